"""Physics of each operator, measured on its matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from srseg.degradation.operators import (
    FWHM_PER_SIGMA,
    OPERATORS,
    AxisGeometry,
    cast_matrix,
    operator_matrix,
)

SPACING_MM = 0.7


def matrix_of(name, n_hr, scale, spacing_mm=SPACING_MM, **options):
    axis = AxisGeometry(scale, spacing_mm)
    return operator_matrix(name, n_hr, axis, tuple(sorted(options.items()))).numpy()


def every_operator(scale, spacing_mm=SPACING_MM):
    """Yield (name, options) of all that can be simulated, with thin, equal and thick slices."""
    for window in ("none", "hamming", "tukey"):
        yield "kspace_crop", {"window": window}
    for factor in (0.6, 1.0, 1.7):
        for name in ("slice_gauss", "slab_mean"):
            yield name, {"thickness_mm": factor * scale * spacing_mm}
    for name in ("area", "bicubic_aa", "legacy_linear", "legacy_nearest"):
        yield name, {}


def transfer_function(matrix):
    """Return (f, gain): the response to every cosine of the HR axis, f in cycles per HR voxel.

    On the mirrored extension the DCT-II's cosines are eigenfunctions, so the gain is the ratio
    of what comes out to the same cosine sampled at the LR centres, at any row.
    """
    n_lr, n_hr = matrix.shape
    frequency = np.arange(n_hr)
    hr_cosines = np.cos(np.pi * np.outer(2 * np.arange(n_hr) + 1, frequency) / (2 * n_hr))
    lr_cosines = np.cos(np.pi * np.outer(2 * np.arange(n_lr) + 1, frequency) / (2 * n_lr))
    keep = (lr_cosines**2).sum(axis=0) > 1e-6  # at odd multiples of Nyquist the samples are 0
    gain = ((matrix @ hr_cosines) * lr_cosines).sum(axis=0)[keep]
    gain /= (lr_cosines**2).sum(axis=0)[keep]
    residual = (matrix @ hr_cosines)[:, keep] - gain * lr_cosines[:, keep]
    np.testing.assert_allclose(residual, 0, atol=1e-9)
    return frequency[keep] / (2 * n_hr), gain


def box_gain(f, width):
    """Gain of the mean of `width` whole voxels."""
    with np.errstate(invalid="ignore"):
        return np.where(f == 0, 1.0, np.sin(np.pi * f * width) / (width * np.sin(np.pi * f)))


def keys_gain(u):
    """Gain of Keys' cubic kernel (IEEE TASSP 1981, eq. for a = -0.5), u in cycles per step."""
    u = np.where(u == 0, 1e-6, u)
    first = 3 / (np.pi * u) ** 2 * (np.sinc(u) ** 2 - np.sinc(2 * u))
    second = 3 * np.sinc(2 * u) ** 2 - 2 * np.sinc(2 * u) - np.sinc(4 * u)
    return first - 0.5 * 2 / (np.pi * u) ** 2 * second


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_a_constant_keeps_its_value_up_to_the_border(scale):
    for n_lr in (1, 2, 7, 10):
        for name, options in every_operator(scale):
            matrix = matrix_of(name, n_lr * scale, scale, **options)
            assert matrix.shape == (n_lr, n_lr * scale)
            np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    ("scale", "factor"),  # a kernel much narrower than a voxel cannot be sampled to 0.02
    [(2, 1.0), (2, 1.3), (3, 0.75), (3, 1.0), (3, 1.3), (4, 0.75), (4, 1.0), (4, 1.3)],
)
def test_slice_gauss_adds_the_missing_gaussian(scale, factor):
    thickness_mm = factor * scale * SPACING_MM
    f, gain = transfer_function(
        matrix_of("slice_gauss", 60 * scale, scale, thickness_mm=thickness_mm)
    )
    added_mm = math.sqrt(thickness_mm**2 - SPACING_MM**2)
    sigma = added_mm / 2.3548 / SPACING_MM
    below = f <= 0.5 / scale
    expected = np.exp(-2 * (math.pi * sigma * f) ** 2)
    np.testing.assert_allclose(gain[below], expected[below], atol=0.02)


@pytest.mark.parametrize(("scale", "whole"), [(2, 2), (2, 4), (3, 3), (3, 5), (4, 2), (4, 4)])
def test_slab_mean_of_whole_voxels_is_their_mean(scale, whole):
    f, gain = transfer_function(
        matrix_of("slab_mean", 50 * scale, scale, thickness_mm=whole * SPACING_MM)
    )
    np.testing.assert_allclose(gain, box_gain(f, whole), atol=1e-9)


@pytest.mark.parametrize(("scale", "whole"), [(2, 3), (3, 2), (4, 5)])
def test_slab_mean_takes_half_of_the_voxels_its_faces_cut(scale, whole):
    f, gain = transfer_function(
        matrix_of("slab_mean", 50 * scale, scale, thickness_mm=whole * SPACING_MM)
    )
    np.testing.assert_allclose(gain, box_gain(f, whole) * np.cos(np.pi * f), atol=1e-9)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_kspace_crop_keeps_what_the_lr_grid_can_hold_and_nothing_else(scale):
    f, gain = transfer_function(matrix_of("kspace_crop", 30 * scale, scale, window="none"))
    below = f < 0.5 / scale - 1e-9
    np.testing.assert_allclose(gain[below], 1, atol=1e-9)
    np.testing.assert_allclose(gain[~below], 0, atol=1e-9)


def test_kspace_windows_taper_the_outer_frequencies():
    n_lr, scale = 40, 3
    f, hamming = transfer_function(matrix_of("kspace_crop", n_lr * scale, scale, window="hamming"))
    tukey = transfer_function(matrix_of("kspace_crop", n_lr * scale, scale, window="tukey"))[1]
    relative = f * 2 * scale  # 1 at the LR Nyquist frequency
    below = relative < 1 - 1e-9
    expected = 0.54 + 0.46 * np.cos(np.pi * relative[below])
    np.testing.assert_allclose(hamming[below], expected, atol=1e-9)
    np.testing.assert_allclose(hamming[~below], 0, atol=1e-9)
    np.testing.assert_allclose(tukey[relative < 0.7], 1, atol=1e-9)
    np.testing.assert_allclose(tukey[np.isclose(relative, 0.85)], 0.5, atol=1e-9)
    assert np.all(np.diff(tukey[below]) <= 1e-9)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_transfer_of_the_operators_without_options(scale):
    n_hr = 48 * scale
    below = 0.5 / scale
    f, area = transfer_function(matrix_of("area", n_hr, scale))
    np.testing.assert_allclose(area, box_gain(f, scale), atol=1e-9)
    f, cubic = transfer_function(matrix_of("bicubic_aa", n_hr, scale))
    kept = f <= below
    np.testing.assert_allclose(cubic[kept], keys_gain(f * scale)[kept], atol=0.02)
    f, linear = transfer_function(matrix_of("legacy_linear", n_hr, scale))
    expected = np.ones_like(f) if scale % 2 else np.cos(np.pi * f)
    np.testing.assert_allclose(linear, expected, atol=1e-9)


@pytest.mark.parametrize("spacing_mm", [0.5, 1.0])
@pytest.mark.parametrize("scale", [2, 3, 4, 9])
def test_slice_gauss_has_its_fwhm_in_mm(spacing_mm, scale):
    thickness_mm = 6.0
    row = matrix_of("slice_gauss", 96 * scale, scale, spacing_mm, thickness_mm=thickness_mm)[48]
    position_mm = (np.arange(96 * scale) - 48 * scale - (scale - 1) / 2) * spacing_mm
    variance_mm2 = (row * position_mm**2).sum() + (spacing_mm / 2.3548) ** 2
    assert 2.3548 * math.sqrt(variance_mm2) == pytest.approx(thickness_mm, rel=0.01)
    if scale % 2:  # a voxel sits on the peak: read the added kernel off at half height too
        upper = position_mm >= 0
        half_mm = np.interp(-0.5 * row.max(), -row[upper], position_mm[upper])
        added_mm = math.sqrt(thickness_mm**2 - spacing_mm**2)
        assert 2 * half_mm == pytest.approx(added_mm, rel=0.02)


@pytest.mark.parametrize("spacing_mm", [0.5, 1.0])
def test_slab_mean_has_its_width_in_mm(spacing_mm):
    row = matrix_of("slab_mean", 120, 4, spacing_mm, thickness_mm=5.0)[15]
    # a box's standard deviation is width / sqrt(12); the HR voxels are boxes themselves
    position_mm = (np.arange(120) - 61.5) * spacing_mm
    deviation_mm = math.sqrt((row * position_mm**2).sum())
    assert deviation_mm == pytest.approx(math.hypot(5.0, spacing_mm) / math.sqrt(12), rel=0.02)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_what_would_alias_to_a_constant_is_suppressed(scale):
    """Gain at 1/T (T the LR spacing), the PSF of the HR voxel included."""

    def gain_at_lr_sampling_rate(name, **options):
        row = matrix_of(name, 60 * scale, scale, **options)[30]
        distance = np.arange(60 * scale) - 30 * scale - (scale - 1) / 2
        return abs((row * np.exp(2j * np.pi * distance / scale)).sum())

    lr_spacing_mm = scale * SPACING_MM
    hr_gauss = math.exp(-2 * (math.pi / FWHM_PER_SIGMA / scale) ** 2)
    gauss = gain_at_lr_sampling_rate("slice_gauss", thickness_mm=lr_spacing_mm) * hr_gauss
    assert -20 * math.log10(gauss + 1e-12) > 30
    assert gain_at_lr_sampling_rate("slab_mean", thickness_mm=lr_spacing_mm) < 1e-12
    assert gain_at_lr_sampling_rate("area") < 1e-12
    assert gain_at_lr_sampling_rate("kspace_crop", window="hamming") < 2e-3
    if scale % 2:  # what "aliased" means
        assert gain_at_lr_sampling_rate("legacy_linear") == pytest.approx(1)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("n_lr", [40, 41])
def test_a_blob_keeps_its_place(scale, n_lr):
    n_hr = n_lr * scale
    for name, options in every_operator(scale):
        if name == "legacy_nearest" and scale % 2 == 0:
            continue  # off by half an HR voxel, as its description says
        for centre in (n_lr / 2, n_lr / 2 + 0.3):  # in LR voxels from the first face
            hr_position = (np.arange(n_hr) + 0.5) / scale
            blob = np.exp(-0.5 * ((hr_position - centre) / 2) ** 2)
            lr_blob = matrix_of(name, n_hr, scale, **options) @ blob
            lr_position = np.arange(n_lr) + 0.5
            measured = (lr_blob * lr_position).sum() / lr_blob.sum()
            true = (blob * hr_position).sum() / blob.sum()
            assert abs(measured - true) < 0.01, (name, options)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("n_lr", [1, 6, 9])
def test_flips_commute(scale, n_lr):
    for name, options in every_operator(scale):
        matrix = matrix_of(name, n_lr * scale, scale, **options)
        if name == "legacy_nearest" and scale % 2 == 0:
            continue
        np.testing.assert_allclose(matrix[::-1, ::-1], matrix, atol=1e-12, err_msg=name)


def test_nearest_takes_the_voxel_that_torch_takes():
    for scale in (2, 3, 4):
        line = torch.arange(7.0 * scale)
        expected = F.interpolate(line[None, None], size=7, mode="nearest-exact")[0, 0]
        matrix = matrix_of("legacy_nearest", 7 * scale, scale)
        np.testing.assert_array_equal(matrix @ line.numpy(), expected.numpy())


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_inside_bicubic_and_linear_are_those_of_torch(scale):
    n_lr = 20
    seeded = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, n_lr * scale, 5, generator=seeded, dtype=torch.float64)
    for name, mode, antialias in (
        ("bicubic_aa", "bicubic", True),
        ("legacy_linear", "bilinear", False),
    ):
        expected = F.interpolate(image, size=(n_lr, 5), mode=mode, antialias=antialias)[0, 0]
        ours = matrix_of(name, n_lr * scale, scale) @ image[0, 0].numpy()
        np.testing.assert_allclose(ours[2:-2], expected[2:-2].numpy(), atol=1e-6)


def test_scale_one_changes_nothing_up_to_the_voxel_size():
    for name, options in every_operator(1):
        if options.get("thickness_mm", 0) > SPACING_MM:
            assert np.abs(matrix_of(name, 9, 1, **options) - np.eye(9)).max() > 0.1, name
        else:
            np.testing.assert_array_equal(matrix_of(name, 9, 1, **options), np.eye(9), name)
    np.testing.assert_array_equal(matrix_of("identity", 9, 1), np.eye(9))


def test_identity_refuses_a_refined_axis():
    with pytest.raises(ValueError, match="'identity' is for scale 1, this axis has 2"):
        matrix_of("identity", 8, 2)


def test_thickness_below_the_hr_voxel_takes_the_nearest_voxels():
    odd = matrix_of("slice_gauss", 9, 3, thickness_mm=0.1)
    np.testing.assert_array_equal(odd, matrix_of("legacy_linear", 9, 3))
    even = matrix_of("slice_gauss", 8, 2, thickness_mm=0.1)
    np.testing.assert_array_equal(even, matrix_of("legacy_linear", 8, 2))
    # just above: a kernel too narrow for floating point must not vanish
    np.testing.assert_allclose(
        matrix_of("slice_gauss", 8, 2, thickness_mm=SPACING_MM * 1.0001), even, atol=1e-9
    )


def test_axes_shorter_than_the_kernel_are_mirrored_again_and_again():
    matrix = matrix_of("slice_gauss", 2, 2, thickness_mm=30 * SPACING_MM)
    np.testing.assert_allclose(matrix, [[0.5, 0.5]], atol=1e-12)


def test_descriptions_say_what_is_aliased():
    aliased = {name for name, operator in OPERATORS.items() if operator.aliased}
    assert aliased == {"legacy_linear", "legacy_nearest"}
    for name in aliased:
        assert OPERATORS[name].description.startswith("aliased")


@pytest.mark.parametrize("scale", [2, 3])
def test_margins_of_local_operators_reach_just_beyond_the_kernel(scale):
    axis = AxisGeometry(scale, SPACING_MM)
    for name, options in every_operator(scale):
        if name == "kspace_crop":
            continue
        margin = OPERATORS[name].margin(axis, **options)
        row = matrix_of(name, 31 * scale, scale, **options)[15]
        reached = np.nonzero(row)[0] // scale  # LR voxels whose block is read
        assert margin == max(15 - reached.min(), reached.max() - 15), (name, options)


def test_matrices_cached_under_inference_mode_serve_training():
    axis = AxisGeometry(2, 0.123)
    with torch.inference_mode():
        matrix = cast_matrix("area", 8, axis, (), dtype=torch.float32, device=torch.device("cpu"))
    assert not matrix.is_inference()
    assert matrix.dtype == torch.float32
