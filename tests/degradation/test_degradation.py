"""The forward model on volumes: laws, background, margins, determinism."""

from __future__ import annotations

import logging
import math
import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from srseg.degradation.degradation import Degradation, _warn_aliased, degradation_from_plans
from srseg.degradation.spec import (
    AxisDegradation,
    DegradationSpec,
    default_degradation,
    paired_spec,
)
from srseg.geometry.grid import Grid

SCALE, SPACING = (3, 2, 1), (1.3, 0.7, 0.45)
LR_SHAPE = (5, 8, 7)
HR_SHAPE = tuple(n * s for n, s in zip(LR_SHAPE, SCALE, strict=True))

NOMINAL = {
    "kspace_crop": {"window": "none"},
    "slice_gauss": {"thickness_mm": 2.9},
    "slab_mean": {"thickness_mm": 3.1},
    "area": {},
    "bicubic_aa": {},
    "legacy_linear": {},
    "legacy_nearest": {},
}


def degradation_of(*names, scale=SCALE, spacing=SPACING, noise=None, **options):
    names = names if len(names) == 3 else names * 3
    axes = tuple(AxisDegradation(name, {**NOMINAL[name], **options}) for name in names)
    return Degradation(DegradationSpec(axes, noise=noise), scale, spacing)


def random_image(shape=HR_SHAPE, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) + 0.1


def smooth_image(shape, sigma=1.5, seed=0):
    """White noise blurred by `sigma` voxels, independently of the code under test."""
    image = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for dim, n in enumerate(shape):
        distance = torch.arange(n)[:, None] - torch.arange(n)[None]
        blur = torch.exp(-0.5 * (distance.double() / sigma) ** 2)
        image = torch.tensordot(blur / blur.sum(1, keepdim=True), image, ([1], [dim]))
        image = image.movedim(0, dim)
    return image


@pytest.mark.parametrize("name", NOMINAL)
def test_shapes_leading_axes_and_constants(name):
    degradation = degradation_of(name)
    image = torch.stack([random_image(), torch.full(HR_SHAPE, -7.25, dtype=torch.float64)])
    lr_image = degradation(image[None])
    assert lr_image.shape == (1, 2, *LR_SHAPE)
    torch.testing.assert_close(lr_image[0, 0], degradation(image[0]))
    torch.testing.assert_close(lr_image[0, 1], torch.full(LR_SHAPE, -7.25, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "scale"),
    [(name, (3, 1, 5)) for name in NOMINAL]  # at even scales nearest is off centre, and says so
    + [(name, (2, 4, 1)) for name in NOMINAL if name != "legacy_nearest"],
)
def test_flips_commute(name, scale):
    degradation = degradation_of(name, scale=scale)
    image = random_image(tuple(n * s for n, s in zip((5, 6, 7), scale, strict=True)))
    image = image.float()
    for dims in ([-1], [-2], [-3], [-1, -3], [-1, -2, -3]):
        flipped_first = degradation(image.flip(dims))
        torch.testing.assert_close(flipped_first, degradation(image).flip(dims), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NOMINAL)
def test_adjoint(name):
    degradation = degradation_of(name)
    x, y = random_image((2, *HR_SHAPE)), random_image((2, *LR_SHAPE), seed=1)
    forward = (degradation.linear(x) * y).sum()
    backward = (x * degradation.adjoint(y)).sum()
    assert degradation.adjoint(y).shape == x.shape
    assert forward.item() == pytest.approx(backward.item(), rel=1e-12)


@pytest.mark.parametrize("name", ["kspace_crop", "slice_gauss"])
def test_gradients(name):
    degradation = degradation_of(name)
    image = random_image((6, 4, 3)).requires_grad_()
    mask = torch.zeros(6, 4, 3, dtype=torch.bool)
    mask[:3, :2] = True
    assert torch.autograd.gradcheck(degradation.linear, (image,))
    assert torch.autograd.gradcheck(lambda x: degradation(x, zero=mask), (image,))
    lr_image = random_image((2, 2, 3)).requires_grad_()
    assert torch.autograd.gradcheck(degradation.adjoint, (lr_image,))


@pytest.mark.parametrize("name", [n for n in NOMINAL if n != "legacy_nearest"])
def test_world_coordinates_stay_world_coordinates(name):
    """A ramp of HR world coordinates becomes the LR grid's, away from the border."""
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    scale, lr_shape = (3, 2, 1), (17, 22, 29)
    hr_grid = Grid(
        shape=tuple(n * s for n, s in zip(lr_shape, scale, strict=True)),
        spacing=SPACING,
        origin_xyz=(-31.0, 12.5, 77.0),
        direction_xyz=tuple(rotation.ravel()),
    )
    degradation = degradation_of(name, scale=scale)
    lr_ramp = degradation(torch.from_numpy(hr_grid.world_coordinates()), zero=False).numpy()
    expected = hr_grid.coarsened(scale).world_coordinates()
    borders = [max(5, margin) for margin in degradation.margin]
    inside = (slice(None), *(slice(border, -border) for border in borders))
    # a mirrored ramp has a kink, whose ringing a k-space crop carries inwards: 1 % of an LR voxel
    tolerance_mm = 0.01 * SPACING[0] * scale[0] if name == "kspace_crop" else 1e-9
    np.testing.assert_allclose(lr_ramp[inside], expected[inside], atol=tolerance_mm)


@pytest.mark.parametrize("name", ["slice_gauss", "slab_mean"])
def test_thickness_is_in_mm(name):
    image = random_image()
    twice_mm = tuple(2 * mm for mm in SPACING)
    expected = degradation_of(name, thickness_mm=2.0)(image)
    coarser = degradation_of(name, spacing=twice_mm, thickness_mm=4.0)(image)
    torch.testing.assert_close(coarser, expected)
    thinner = degradation_of(name, spacing=twice_mm, thickness_mm=2.0)(image)
    assert not torch.allclose(thinner, expected)


def test_axes_have_their_own_operators():
    degradation = degradation_of("slice_gauss", "area", "area")
    image = random_image()
    along_z = torch.ones_like(image) * image[:, :1, :1]
    torch.testing.assert_close(
        degradation(along_z), degradation_of("slice_gauss", "slice_gauss", "area")(along_z)
    )
    assert not torch.allclose(degradation(along_z), degradation_of("area")(along_z))


# --- background -----------------------------------------------------------------------------


def image_with_background(value=0.0):
    """One block wholly background, one missing a single voxel of it, per channel apart."""
    image = random_image((2, *HR_SHAPE))
    image[0, 3:6, 4:6, 2:4] = value
    image[0, 9:12, 4:6, 5] = value
    image[0, 9, 4, 5] = 3.0
    return image


def test_blocks_of_zeros_stay_zero_in_their_channel():
    degradation = degradation_of("kspace_crop")
    image = image_with_background()
    lr_image = degradation(image)
    zeros = torch.zeros(2, *LR_SHAPE, dtype=torch.bool)
    zeros[0, 1, 2, 2:4] = True
    assert torch.equal(lr_image == 0, zeros)
    torch.testing.assert_close(lr_image[~zeros], degradation.linear(image)[~zeros])


def test_background_of_another_value_is_marked_by_a_mask():
    degradation = degradation_of("kspace_crop")
    image = image_with_background(value=-1.3)
    lr_image = degradation(image, zero=image == -1.3)
    block = lr_image[0, 1, 2, 2:4]
    torch.testing.assert_close(block, torch.full_like(block, -1.3))
    plain = degradation(image, zero=False)
    assert (plain[0, 1, 2, 2:4] + 1.3).abs().min() > 0.01
    kept = torch.ones_like(lr_image, dtype=torch.bool)
    kept[0, 1, 2, 2:4] = False
    torch.testing.assert_close(lr_image[kept], plain[kept])


def test_the_masked_block_gets_its_mean():
    image = random_image()
    mask = torch.zeros_like(image, dtype=torch.bool)
    mask[0:3, 2:4] = True
    block_mean = image[0:3, 2:4, 4].mean()
    lr_image = degradation_of("slice_gauss")(image, zero=mask)
    torch.testing.assert_close(lr_image[0, 1, 4], block_mean)


def test_zero_may_be_switched_off():
    lr_image = degradation_of("kspace_crop")(image_with_background(), zero=False)
    assert (lr_image != 0).all()


def test_an_image_of_zeros_stays_zero():
    for name in NOMINAL:
        assert not degradation_of(name)(torch.zeros(HR_SHAPE)).any()


# --- margins --------------------------------------------------------------------------------


def crop_difference(degradation, image, *, num_crops=10, size=6):
    """Return LR RMS difference, as a fraction of the LR standard deviation, of cropping first."""
    whole = degradation(image)
    squares = []
    rng = np.random.default_rng(0)
    for _ in range(num_crops):
        size_3d = [min(size, n) for n in whole.shape]
        start = [int(rng.integers(0, n - k + 1)) for n, k in zip(whole.shape, size_3d, strict=True)]
        stop = [a + k for a, k in zip(start, size_3d, strict=True)]
        low = [max(0, a - m) for a, m in zip(start, degradation.margin, strict=True)]
        high = [
            min(n, b + m) for n, b, m in zip(whole.shape, stop, degradation.margin, strict=True)
        ]
        hr_box = tuple(
            slice(a * s, b * s) for a, b, s in zip(low, high, degradation.scale, strict=True)
        )
        trim = tuple(slice(a - x, b - x) for a, b, x in zip(start, stop, low, strict=True))
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        squares.append(((degradation(image[hr_box])[trim] - whole[box]) ** 2).mean())
    return (torch.stack(squares).mean().sqrt() / whole.std()).item()


@pytest.mark.parametrize("scale", [(3, 2, 1), (2, 4, 5)])
@pytest.mark.parametrize("name", [n for n in NOMINAL if n != "kspace_crop"])
def test_local_operators_need_no_more_than_their_margin(name, scale):
    degradation = degradation_of(name, scale=scale)
    image = random_image(tuple(n * s for n, s in zip((17, 22, 19), scale, strict=True)))
    image[:15, :20, :15] = 0.0
    assert crop_difference(degradation, image) < 1e-12


@pytest.mark.parametrize("window", ["none", "tukey", "hamming"])
@pytest.mark.parametrize("scale", [(2, 2, 2), (1, 2, 3)])
def test_kspace_crop_is_within_3_percent_at_its_margin(window, scale):
    image = smooth_image(tuple(n * s for n, s in zip((28, 31, 29), scale, strict=True)))
    degradation = degradation_of("kspace_crop", scale=scale, window=window)
    assert crop_difference(degradation, image) < 0.03


def real_image():
    root = os.environ.get("SRSEG_TEST_DATA")
    folder = Path(root) if root else Path(__file__).parents[3] / "shared" / "data" / "nnUNet_raw"
    files = sorted((folder / "Dataset004_Hippocampus" / "imagesTr").glob("*.nii.gz"))
    if not files:
        pytest.skip(f"Dataset004_Hippocampus is not in {folder}; set SRSEG_TEST_DATA")
    sitk = pytest.importorskip("SimpleITK")
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(files[0]))).astype(np.float64)
    return torch.from_numpy(array[tuple(slice(0, n // 2 * 2) for n in array.shape)])


@pytest.mark.parametrize("window", ["none", "tukey", "hamming"])
def test_kspace_crop_is_within_3_percent_on_a_hippocampus(window):
    degradation = degradation_of("kspace_crop", scale=(2, 2, 2), spacing=(1, 1, 1), window=window)
    assert crop_difference(degradation, real_image()) < 0.03


def test_margins_by_hand():
    # sigma = sqrt(2.9^2 - 1.3^2) / 1.3 / 2.3548 = 0.847 voxels, 4 sigma = 3.4 of which 3 are
    # voxels, 2 of them beyond the block: one LR voxel of three
    assert degradation_of("slice_gauss").margin[0] == 1
    assert degradation_of("kspace_crop").margin == (6, 6, 0)
    assert degradation_of("kspace_crop", window="hamming").margin == (2, 2, 0)
    assert degradation_of("area").margin == (0, 0, 0)
    assert degradation_of("bicubic_aa").margin == (2, 2, 0)


# --- randomness -----------------------------------------------------------------------------


def test_noise_only_with_a_generator():
    noise = {"kind": "gaussian", "std": 0.1}
    noisy, clean = degradation_of("area", noise=noise), degradation_of("area")
    image = random_image()
    assert torch.equal(noisy(image), clean(image))
    generator = torch.Generator().manual_seed(0)
    difference = noisy(image, generator=generator) - clean(image)
    expected = 0.1 * clean(image).mean()
    assert difference.std().item() == pytest.approx(expected.item(), rel=0.15)


def test_noise_std_on_a_constant_image():
    degradation = degradation_of("kspace_crop", noise={"kind": "gaussian", "std": 0.03})
    image = torch.full((60, 62, 31), 50.0)
    lr_image = degradation(image, generator=torch.Generator().manual_seed(0))
    assert lr_image.std().item() == pytest.approx(1.5, rel=0.02)


def test_noise_spares_blocks_of_zeros():
    degradation = degradation_of("area", noise={"kind": "rician", "std": 0.1})
    image = image_with_background()
    generator = torch.Generator().manual_seed(0)
    lr_image = degradation(image, generator=generator, zero_signal=0.0)
    assert (lr_image[0, 1, 2, 2:4] == 0).all()
    assert (lr_image == 0).sum() == 2
    with pytest.raises(ValueError, match="pass zero_signal"):
        degradation(image, generator=generator)


def test_same_spec_and_seed_same_output_and_global_state_untouched():
    block = default_degradation("MR", SPACING, SCALE, multislice=False).randomised
    block = {**block, "noise": {"kind": "gaussian", "std": [0.01, 0.1]}}
    axes = default_degradation("MR", SPACING, SCALE, multislice=False).axes
    degradation = Degradation(DegradationSpec(axes, block), SCALE, SPACING)
    image = random_image()

    def outputs(seed):
        generator = torch.Generator().manual_seed(seed)
        return torch.stack(
            [degradation.sample(generator)(image, generator=generator) for _ in range(4)]
        )

    state, np_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = outputs(7)
    assert torch.equal(first, outputs(7))
    assert not torch.equal(first, outputs(8))
    assert not torch.equal(first[0], first[1])
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], np_state)


def test_sample_is_fixed_and_without_a_block_the_same():
    degradation = degradation_of("area")
    assert degradation.sample(torch.Generator()) is degradation
    spec = default_degradation("CT", SPACING, SCALE, multislice=True)
    drawn = Degradation(spec, SCALE, SPACING).sample(torch.Generator().manual_seed(1))
    assert drawn.sample(torch.Generator()) is drawn
    assert drawn.scale == SCALE
    assert drawn.hr_spacing == SPACING


# --- types, devices, processes ----------------------------------------------------------------


def test_dtype_is_kept_and_16_bits_are_summed_in_32():
    degradation = degradation_of("kspace_crop")
    image = random_image()
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        lr_image = degradation(image.to(dtype))
        assert lr_image.dtype == dtype
        if dtype.itemsize == 2:
            assert torch.equal(lr_image, degradation(image.to(dtype).float()).to(dtype))


def test_autocast_does_not_cost_digits():
    degradation = degradation_of("slice_gauss")
    image = random_image(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lr_image = degradation(image)
    assert torch.equal(lr_image, degradation(image))


def test_works_after_being_used_under_inference_mode():
    degradation = degradation_of("area", spacing=(0.11, 0.12, 0.13))
    with torch.inference_mode():
        degradation(random_image(dtype=torch.float32))
    image = random_image(dtype=torch.float32).requires_grad_()
    degradation(image).sum().backward()
    assert image.grad is not None


def test_pickles_into_loader_workers():
    degradation = Degradation(
        default_degradation("MR", SPACING, SCALE, multislice=True), SCALE, SPACING
    )
    copy = pickle.loads(pickle.dumps(degradation))
    assert copy.margin == degradation.margin
    assert torch.equal(copy(random_image()), degradation(random_image()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_cpu():
    image = random_image(dtype=torch.float32)
    for name in NOMINAL:
        degradation = degradation_of(name, noise={"kind": "gaussian", "std": 0.1})
        on_cpu = degradation(image, generator=torch.Generator().manual_seed(0))
        on_gpu = degradation(image.cuda(), generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-4, atol=1e-5)


# --- what is refused ------------------------------------------------------------------------


def test_paired_says_that_nothing_is_simulated():
    degradation = Degradation(paired_spec(), SCALE, SPACING)
    for call in (degradation, degradation.linear, degradation.adjoint):
        with pytest.raises(ValueError, match="'paired': LR images come from files"):
            call(random_image())
    assert degradation.margin == (0, 0, 0)
    assert degradation.sample(torch.Generator()) is degradation


def test_aliased_operators_warn_once(caplog):
    _warn_aliased.cache_clear()
    with caplog.at_level(logging.WARNING, logger="srseg.degradation"):
        for _ in range(3):
            degradation_of("legacy_nearest", "area", "area")
    assert [r.getMessage() for r in caplog.records if "'legacy_nearest'" in r.getMessage()] == [
        caplog.records[0].getMessage()
    ]
    assert "aliased" in caplog.text
    caplog.clear()
    degradation_of("area")
    assert not caplog.records


@pytest.mark.parametrize(
    ("image", "zero", "match"),
    [
        (torch.rand(HR_SHAPE)[:-1], None, r"does not divide the HR image's shape \(14, 16, 7\)"),
        (torch.rand(0, 16, 7), None, "does not divide"),
        (torch.ones(HR_SHAPE, dtype=torch.int16), None, "must be floating point.*torch.int16"),
        (torch.rand(15, 16), None, r"three spatial axes last.*\(15, 16\)"),
        (torch.rand(HR_SHAPE), torch.zeros(HR_SHAPE), "None, False or a bool tensor"),
        (torch.rand(HR_SHAPE), True, "None, False or a bool tensor, got True"),
        (torch.rand(HR_SHAPE), torch.zeros(1, dtype=torch.bool), "must have the HR image's shape"),
    ],
)
def test_bad_images(image, zero, match):
    with pytest.raises(ValueError, match=match):
        degradation_of("area")(image, zero=zero)


@pytest.mark.parametrize(
    ("scale", "spacing", "match"),
    [
        ((2, 2), (1, 1, 1), "three axes"),
        ((2, 2, 2), (1, 1), "three axes"),
        ((2, 2, 0.5), (1, 1, 1), "whole numbers >= 1"),
        ((2, 2, 2), (1, 0, 1), "above 0 mm"),
        ((2, 2, 2), (1, math.nan, 1), "above 0 mm"),
    ],
)
def test_bad_geometry(scale, spacing, match):
    with pytest.raises(ValueError, match=match):
        degradation_of("area", scale=scale, spacing=spacing)


def test_identity_on_a_refined_axis():
    spec = DegradationSpec((AxisDegradation("identity"),) * 3)
    with pytest.raises(ValueError, match="'identity' is for scale 1, this axis has 2"):
        Degradation(spec, (1, 2, 1), SPACING)


# --- from the plans ---------------------------------------------------------------------------


def test_from_plans():
    spec = default_degradation("MR", SPACING, SCALE, multislice=True)
    manager = SimpleNamespace(degradation=spec.to_json(), scale_3d=SCALE, hr_spacing=list(SPACING))
    degradation = degradation_from_plans(manager)
    assert degradation.spec == spec
    assert degradation.scale == SCALE
    assert degradation.hr_spacing == SPACING


def test_from_2d_plans():
    axes = (
        AxisDegradation("identity"),
        AxisDegradation("slice_gauss", {"thickness_mm": 2.1}),
        AxisDegradation("area"),
    )
    manager = SimpleNamespace(
        degradation=DegradationSpec(axes).to_json(), scale_3d=(1, 2, 3), hr_spacing=[0.7, 0.5]
    )
    degradation = degradation_from_plans(manager)
    assert degradation.hr_spacing[1:] == (0.7, 0.5)
    assert degradation(torch.rand(2, 5, 8, 9)).shape == (2, 5, 4, 3)
    manager.degradation = DegradationSpec(axes[::-1]).to_json()
    with pytest.raises(ValueError, match="keeps its slices apart.*'area'"):
        degradation_from_plans(manager)
