from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

from srseg.networks.encoder import drop_aliases, initialize_as_nnunet
from srseg.networks.guidance import Guidance, GuidanceBranch, crop_size

CELL, CELLS = (4, 6, 8), (3, 4, 2)  # 12 x 24 x 16 HR voxels, no two axes alike
HR_SHAPE = (12, 24, 16)


def make_branch(ndim: int = 3, *, features: tuple[int, ...] = (3, 5), **changes) -> GuidanceBranch:
    torch.manual_seed(2)
    options = {
        "conv_op": nn.Conv3d if ndim == 3 else nn.Conv2d,
        "conv_bias": True,
        "norm_op": nn.InstanceNorm3d if ndim == 3 else nn.InstanceNorm2d,
        "norm_op_kwargs": {"affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }
    settings = {"cell": CELL[:ndim], "kernel_size": (3,) * ndim} | changes
    branch = GuidanceBranch(2, features, block_options=options, **settings)
    drop_aliases(branch)
    initialize_as_nnunet(branch)
    return branch


class PassOn(nn.Identity):
    input_channels = 2


def passing_branch(ndim: int, num_pools: int) -> GuidanceBranch:
    """Return a branch that only pools, so that features are voxels of the image."""
    branch = make_branch(ndim, features=(2,) * (num_pools + 1))
    branch.blocks = nn.ModuleList(PassOn() for _ in branch.blocks)
    nn.init.constant_(branch.absent, 7.0)
    return branch


def bottleneck_of(ndim: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 4, *CELLS[:ndim], generator=torch.Generator().manual_seed(1))


def cell_means(volume: torch.Tensor) -> torch.Tensor:
    """Return the mean of each cell of (B, C, *HR_SHAPE)."""
    ndim = volume.ndim - 2
    pool = nn.functional.avg_pool3d if ndim == 3 else nn.functional.avg_pool2d
    return pool(volume, CELL[:ndim])


def painted(image: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Return a volume of zeros with each sample's crop at its place."""
    volume = torch.zeros(*image.shape[:2], *HR_SHAPE[: image.ndim - 2])
    for sample, crop, first in zip(volume, image, start.tolist(), strict=True):
        where = (slice(a, a + n) for a, n in zip(first, crop.shape[1:], strict=True))
        sample[(slice(None), *where)] = crop
    return volume


PLACES = [
    (3, (4, 6, 8), [(4, 6, 8), (0, 0, 0)]),  # whole cells
    (3, (3, 5, 7), [(3, 5, 7), (9, 19, 9)]),  # across their faces, and up to the last voxel
    (3, (12, 24, 16), [(0, 0, 0), (0, 0, 0)]),  # everything
    (3, (1, 1, 2), [(5, 6, 7), (11, 23, 14)]),  # next to nothing
    (2, (5, 11), [(2, 13), (7, 0)]),
]


@pytest.mark.parametrize(("ndim", "size", "start"), PLACES)
@pytest.mark.parametrize("num_pools", [0, 1, 2])
def test_features_lie_in_the_cells_that_the_crop_covers(ndim, size, start, num_pools):
    """Every feature is painted back onto its HR voxels and averaged over the cells."""
    branch, image = passing_branch(ndim, num_pools), torch.randn(2, 2, *size)
    start, bottleneck = torch.tensor(start), bottleneck_of(ndim)
    features, step = branch._encode(image)
    for axis, factor in enumerate(step):
        features = features.repeat_interleave(factor, 2 + axis).narrow(2 + axis, 0, size[axis])
    sums = cell_means(painted(features, start))
    share = cell_means(painted(torch.ones_like(features[:, :1]), start))
    out = branch(Guidance(image, start), bottleneck)
    assert torch.equal(out[:, :4], bottleneck)
    torch.testing.assert_close(out[:, 6:], share)
    torch.testing.assert_close(out[:, 4:6], sums + (1 - share) * 7.0)


def test_a_crop_of_world_coordinates_keeps_them():
    """Guidance whose values are its own voxel indices: each cell gets its covered part's centre."""
    branch, size, start = passing_branch(3, 0), (5, 7, 6), (3, 14, 9)
    ramps = torch.meshgrid(*(torch.arange(n).float() for n in HR_SHAPE), indexing="ij")
    where = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    for axis, ramp in enumerate(ramps):
        image = ramp[where].expand(1, 2, *size)
        out = branch(Guidance(image, torch.tensor([start])), bottleneck_of(3, 1))
        for cell in product(*(range(n) for n in CELLS)):
            share = out[(0, 6, *cell)]
            low = max(cell[axis] * CELL[axis], start[axis])
            high = min((cell[axis] + 1) * CELL[axis], start[axis] + size[axis])
            expected = share * (low + high - 1) / 2 + (1 - share) * 7.0
            torch.testing.assert_close(out[(0, 4, *cell)], torch.as_tensor(expected))


def test_the_image_is_pooled_by_two_and_its_remainder_kept():
    branch = passing_branch(3, 2)
    image = torch.arange(7.0).view(1, 1, 1, 1, 7).expand(1, 2, 6, 5, 7)
    features, step = branch._encode(image)
    assert step == [4, 4, 4]
    assert features.shape == (1, 2, 2, 2, 2)
    assert features[0, 0, 0, 0].tolist() == [3, 6]  # the largest of 0..3 and of 4..6


def test_axes_with_small_cells_are_pooled_last_and_no_further_than_a_cell():
    assert make_branch(features=(1,) * 4, cell=(1, 2, 32)).pools == [
        [1, 1, 2],
        [1, 1, 2],
        [1, 2, 2],
    ]
    assert make_branch(features=(1,) * 4, cell=(3, 4, 7)).pools == [[1, 1, 1], [1, 2, 2], [2, 2, 2]]


def test_without_guidance_there_is_a_learned_constant_and_no_cover():
    branch, bottleneck = make_branch().eval(), bottleneck_of(3)
    assert branch.num_channels == 6
    out = branch(None, bottleneck)
    assert out.shape == (2, 10, *CELLS)
    assert torch.equal(out[:, :4], bottleneck)
    assert not out[:, 4:].any()  # before it is learned
    nn.init.normal_(branch.absent)
    out = branch(None, bottleneck)
    assert torch.equal(out[:, 4:9].movedim(1, -1), branch.absent.expand(2, *CELLS, 5))
    assert not out[:, 9].any()


@pytest.mark.parametrize("given", [False, True])
def test_every_weight_has_a_gradient_with_and_without_guidance(given):
    branch = make_branch()
    guidance = Guidance(torch.randn(1, 2, 5, 5, 5), torch.tensor([[1, 2, 3]])) if given else None
    branch(guidance, bottleneck_of(3, 1)).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in branch.parameters())
    moved = any(p.grad.any() for p in branch.blocks.parameters())
    assert moved is given  # without, they are zeros that DDP can add up


@pytest.mark.parametrize("size", [(1, 1, 2), (2, 2, 2), (3, 2, 4), (12, 24, 16)])
def test_small_crops_never_shrink_to_a_single_voxel(size):
    """Instance norm cannot normalise one; what is pooled depends on the crop."""
    branch = make_branch(features=(3, 4, 5, 6))
    out = branch(Guidance(torch.randn(1, 2, *size), torch.zeros(1, 3).long()), bottleneck_of(3, 1))
    assert out.isfinite().all()


def test_low_precision_keeps_place_and_type():
    branch = make_branch()
    bottleneck = bottleneck_of(3).bfloat16()
    guidance = Guidance(torch.randn(2, 2, 7, 5, 6), torch.tensor([[1, 2, 3], [5, 19, 10]]))
    with torch.autocast("cpu", torch.bfloat16):
        out = branch(guidance, bottleneck)
    assert out.dtype == torch.bfloat16
    share = cell_means(painted(torch.ones(2, 1, 7, 5, 6), guidance.start))
    torch.testing.assert_close(out[:, -1:].float(), share, atol=4e-3, rtol=0)


@pytest.mark.parametrize("crop", [(6, 10, 8), (5, 7, 9), (2, 2, 2)])
def test_feature_maps_are_counted_as_they_are_put_out(crop, conv_outputs):
    branch = make_branch(features=(3, 4, 5, 6))
    counted = conv_outputs(branch)
    branch(Guidance(torch.randn(1, 2, *crop), torch.zeros(1, 3).long()), bottleneck_of(3, 1))
    assert branch.compute_conv_feature_map_size(crop) == sum(counted)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ((-1, 0, 0), r"of size \(4, 5, 6\) starts at HR voxel \(-1, 0, 0\)"),
        ((0, 20, 0), r"HR voxels it must start from \(0, 0, 0\) to \(8, 19, 10\)"),
        ((0, 0, 11), r"volume of \(12, 24, 16\) HR voxels"),
    ],
)
def test_a_crop_outside_the_volume_is_an_error(start, message):
    image = torch.randn(2, 2, 4, 5, 6)
    with pytest.raises(ValueError, match=message):
        make_branch()(Guidance(image, torch.tensor([(0, 0, 0), start])), bottleneck_of(3))


def test_a_crop_larger_than_the_volume_is_an_error():
    guidance = Guidance(torch.randn(1, 2, 13, 5, 6), torch.tensor([[0, 0, 0]]))
    with pytest.raises(ValueError, match=r"larger than the volume of \(12, 24, 16\) HR voxels"):
        make_branch()(guidance, bottleneck_of(3, 1))


@pytest.mark.parametrize("shape", [(1, 2, 4, 4, 4), (2, 1, 4, 4, 4), (2, 2, 4, 4), (2, 2, 1, 1, 1)])
def test_a_crop_of_another_shape_is_an_error(shape):
    guidance = Guidance(torch.zeros(shape), torch.zeros(2, 3).long())
    with pytest.raises(ValueError, match=r"\(2, 2, \*axes\) with 3 axes and more than one voxel"):
        make_branch()(guidance, bottleneck_of(3))


@pytest.mark.parametrize("start", [torch.zeros(2, 3), torch.zeros(3).long()])
def test_a_start_that_is_no_list_of_voxels_is_an_error(start):
    with pytest.raises(ValueError, match=r"whole numbers of the shape \(2, 3\) are needed"):
        make_branch()(Guidance(torch.zeros(2, 2, 4, 4, 4), start), bottleneck_of(3))


@pytest.mark.parametrize("features", [(), (4, 0)])
def test_a_branch_needs_features(features):
    with pytest.raises(ValueError, match="at least one number >= 1 is needed"):
        make_branch(features=features)


def test_crop_size_is_a_share_of_each_axis():
    assert crop_size((128, 192, 192), 0.25) == (32, 48, 48)
    assert crop_size((10, 4, 1), 0.25) == (2, 2, 1)
    assert crop_size((10, 20), (0.5, 1)) == (5, 20)
    with pytest.raises(ValueError, match="one number, or 3 are needed"):
        crop_size((10, 20, 30), (0.5, 1))
