from __future__ import annotations

from itertools import product

import pytest
import torch

from srseg.networks.build import build_network
from srseg.training.guidance import POLICIES, GuidanceCutter
from tests.networks.conftest import tiny_architecture

SHAPE = (8, 13, 18)  # no two axes alike, an odd one
BOX = ((1, 5, 2), (3, 4, 6))


def hr_batch(ndim: int = 3, channels: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(3, channels, *SHAPE[-ndim:], generator=generator)


def make_cutter(policy: str, ndim: int = 3, **options) -> GuidanceCutter:
    box = tuple(row[-ndim:] for row in BOX) if policy == "box" else None
    return GuidanceCutter(policy, 0.5, box=box, **options)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CUTTING = [policy for policy in POLICIES if policy != "off"]


@pytest.mark.parametrize("policy", CUTTING)
@pytest.mark.parametrize("ndim", [2, 3])
def test_the_crop_is_what_the_mask_shows_of_the_image_at_its_start(policy, ndim):
    hr_image = hr_batch(ndim)
    guidance, mask = make_cutter(policy, ndim)(hr_image, seeded())
    size = guidance.image.shape[2:]
    assert guidance.start.shape == (3, ndim)
    assert guidance.start.dtype == torch.int64
    assert (mask.dtype, mask.shape) == (torch.bool, (3, 1, *SHAPE[-ndim:]))
    for image, own_mask, crop, start in zip(
        hr_image, mask, guidance.image, guidance.start, strict=True
    ):
        index = tuple(slice(a, a + n) for a, n in zip(start.tolist(), size, strict=True))
        assert torch.equal(crop, image[(slice(None), *index)])
        expected = torch.zeros(SHAPE[-ndim:], dtype=torch.bool)
        expected[index] = True
        assert torch.equal(own_mask[0], expected)


@pytest.mark.parametrize("policy", CUTTING)
def test_guidance_follows_the_augmented_image(policy):
    """World coordinates, flipped and scaled: the crop holds what the target has at its place."""
    index = torch.meshgrid(*(torch.arange(n).float() for n in SHAPE), indexing="ij")
    augmented = (torch.stack(index)[None].repeat(2, 1, 1, 1, 1) * 1.5).flip(2, 4)
    guidance, _ = make_cutter(policy)(augmented, seeded())
    for crop, start in zip(guidance.image, guidance.start, strict=True):
        z, y, x = start.tolist()
        first = [1.5 * (SHAPE[0] - 1 - z), 1.5 * y, 1.5 * (SHAPE[2] - 1 - x)]
        assert crop[:, 0, 0, 0].tolist() == first


@pytest.mark.parametrize("policy", CUTTING)
def test_the_crop_is_a_copy(policy):
    hr_image = hr_batch()
    guidance, _ = make_cutter(policy)(hr_image, seeded())
    before = guidance.image.clone()
    hr_image.zero_()
    assert torch.equal(guidance.image, before)


@pytest.mark.parametrize("policy", CUTTING)
def test_the_network_places_the_crop_where_the_mask_is(policy):
    """Cutter and network count from the same voxel: cell by cell they see the same share."""
    architecture = tiny_architecture(3, scale=[1, 2, 3], guidance=True, guidance_features=[3, 4])
    architecture["network_class_name"] = "srseg.networks.two_decoders.PFSegNet"
    branch = build_network(architecture, 2, 2).guidance_branch
    hr_image = torch.randn(2, 2, 6, 24, 36)
    guidance, mask = make_cutter(policy)(hr_image, seeded())
    share = branch(guidance, torch.zeros(2, 8, 3, 3, 3))[:, -1:]
    assert branch.cell == (2, 8, 12)
    torch.testing.assert_close(share, torch.nn.functional.avg_pool3d(mask.float(), branch.cell))


def test_the_centre_is_the_middle_of_every_sample():
    guidance, mask = GuidanceCutter("centre", (0.25, 0.5, 1))(hr_batch())
    assert guidance.image.shape == (3, 2, 2, 6, 18)
    assert guidance.start.tolist() == [[3, 3, 0]] * 3
    assert mask.sum() == 3 * 2 * 6 * 18


def test_the_published_crop_is_a_quarter_of_each_axis():
    guidance, _ = GuidanceCutter("centre")(torch.zeros(1, 1, 128, 192, 192))
    assert guidance.image.shape == (1, 1, 32, 48, 48)
    assert guidance.start.tolist() == [[48, 72, 72]]


def test_random_crops_are_a_function_of_the_seed_and_go_everywhere():
    cutter, hr_image = make_cutter("random"), hr_batch()
    state = torch.get_rng_state()
    first, again, other = (cutter(hr_image, seeded(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)  # the global state has no part in it
    assert torch.equal(first.start, again.start)
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.start, other.start)
    assert len({tuple(row) for row in first.start.tolist()}) == 3  # a place for each sample
    generator = seeded()
    rows = torch.cat([cutter(hr_image, generator)[0].start for _ in range(100)])
    for axis, (n, size) in enumerate(zip(SHAPE, first.image.shape[2:], strict=True)):
        assert set(rows[:, axis].tolist()) == set(range(n - size + 1))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_variance_takes_the_most_variable_window_of_all(offset):
    hr_image = hr_batch() * torch.rand(3, 2, *SHAPE, generator=seeded(9)) ** 4 + offset
    guidance, _ = GuidanceCutter("variance", 0.4)(hr_image)
    size = guidance.image.shape[2:]
    for image, start in zip(hr_image.double(), guidance.start.tolist(), strict=True):
        spreads = {}
        for place in product(*(range(n - m + 1) for n, m in zip(SHAPE, size, strict=True))):
            index = tuple(slice(a, a + n) for a, n in zip(place, size, strict=True))
            window = image[(slice(None), *index)].flatten(1)
            spreads[place] = window.var(1, unbiased=False).sum().item()
        assert spreads[tuple(start)] == pytest.approx(max(spreads.values()), rel=1e-9)


def test_variance_finds_the_structure_in_an_empty_image():
    hr_image = torch.zeros(1, 1, 16, 20, 24)
    hr_image[..., 9:13, 3:8, 14:20] = hr_batch(channels=1)[:1, :, :4, :5, :6] * 5
    guidance, _ = GuidanceCutter("variance", 0.25)(hr_image)
    assert guidance.start.tolist() == [[9, 3, 14]]


def test_off_cuts_nothing():
    guidance, mask = GuidanceCutter("off")(hr_batch())
    assert guidance is None
    assert mask.shape == (3, 1, *SHAPE)
    assert not mask.any()


def test_guidance_is_dropped_as_often_as_said_and_by_the_generator_alone():
    cutter, hr_image = make_cutter("centre", drop_probability=0.3), hr_batch()
    generator = seeded()
    dropped = [cutter(hr_image, generator)[0] is None for _ in range(500)]
    assert 0.24 < sum(dropped) / 500 < 0.36
    generator = seeded()
    assert dropped == [cutter(hr_image, generator)[0] is None for _ in range(500)]
    always, mask = make_cutter("centre", drop_probability=1.0)(hr_image, generator)
    assert always is None
    assert not mask.any()


def test_an_unknown_policy_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match="'center'; known: box, centre, off, random, variance"):
        GuidanceCutter("center")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0}, "above 0 and at most 1 is allowed"),
        ({"fraction": (0.5, 1.5)}, "above 0 and at most 1 is allowed"),
        ({"fraction": ()}, "above 0 and at most 1 is allowed"),
        ({"box": BOX}, "the other policies take none"),
        ({"policy": "box"}, r"'box' needs \(start, size\)"),
        ({"drop_probability": -0.1}, "from 0 to 1 is allowed"),
    ],
)
def test_settings_out_of_range_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        GuidanceCutter(**{"policy": "centre", **options})


@pytest.mark.parametrize(
    "box", [((6, 0, 0), (3, 2, 2)), ((-1, 0, 0), (2, 2, 2)), ((0, 0), (2, 2)), ((0,) * 3, (0,) * 3)]
)
def test_a_box_that_does_not_fit_is_an_error(box):
    with pytest.raises(ValueError, match=r"must lie inside the \(8, 13, 18\) HR voxels"):
        GuidanceCutter("box", box=box)(hr_batch())


@pytest.mark.parametrize(
    "cutter", [GuidanceCutter("random"), GuidanceCutter("centre", drop_probability=0.5)]
)
def test_chance_without_a_generator_is_an_error(cutter):
    with pytest.raises(ValueError, match=r"needs a torch\.Generator"):
        cutter(hr_batch())
