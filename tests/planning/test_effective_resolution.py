"""Interpolated and duplicated slices are noticed, whatever the header says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from srseg.geometry.separable import resample
from srseg.planning.effective_resolution import (
    INTERPOLATED,
    duplicated_slices,
    effective_resolution,
)

SHAPE = (25, 44, 37)
SPACING = (3.0, 0.7, 0.5)


def natural_image(shape: tuple[int, ...], seed: int = 3) -> np.ndarray:
    """Return a random image whose power falls with the square of frequency, over white noise."""
    generator = np.random.default_rng(seed)
    frequencies = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
    radius = np.sqrt(sum(f**2 for f in frequencies)) + 1 / max(shape)
    noise = np.fft.fftn(generator.standard_normal(shape))
    image = np.fft.ifftn(noise / radius**2).real
    return image / image.std() + 0.02 * generator.standard_normal(shape)


def interpolated(image: np.ndarray, axis: int, factor: int, kind: str) -> np.ndarray:
    new_shape = [n * factor if i == axis else n for i, n in enumerate(image.shape)]
    return resample(torch.from_numpy(image)[None], new_shape, kind=kind, antialias=True)[0].numpy()


def test_image_of_full_detail_has_its_spacing():
    measured = np.divide(effective_resolution(natural_image(SHAPE), SPACING), SPACING)
    assert (measured >= 1).all()
    assert (measured < 1.4).all()


@pytest.mark.parametrize("kind", ["linear", "cubic"])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_interpolated_axis_is_noticed_and_the_others_are_not(axis: int, factor: int, kind: str):
    image = interpolated(natural_image(SHAPE), axis, factor, kind)
    spacing = [mm / factor if i == axis else mm for i, mm in enumerate(SPACING)]
    measured = np.divide(effective_resolution(image, spacing), spacing)
    assert 0.9 * factor < measured[axis] < 1.35 * factor
    assert measured[axis] >= INTERPOLATED
    assert all(measured[i] < INTERPOLATED for i in range(3) if i != axis)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_duplicated_slices_halve_the_resolution(axis: int):
    image = natural_image(SHAPE).repeat(2, axis=axis)
    assert duplicated_slices(image)[axis] == SHAPE[axis]
    assert sum(duplicated_slices(image)) == SHAPE[axis]
    measured = effective_resolution(image, SPACING)
    assert measured[axis] == pytest.approx(2 * SPACING[axis], rel=0.15)
    assert measured[axis] >= 2 * SPACING[axis]


def test_duplicates_are_noticed_where_a_spectrum_needs_more_slices():
    image = natural_image((5, 44, 37)).repeat(2, axis=0)
    assert effective_resolution(image, SPACING)[0] == 2 * SPACING[0]


def test_too_few_slices_are_not_judged():
    assert effective_resolution(natural_image((9, 44, 37)), SPACING)[0] is None


def test_padding_is_not_a_duplicate():
    image = np.pad(natural_image(SHAPE), ((0, 3), (2, 0), (0, 0)))
    assert duplicated_slices(image) == [0, 0, 0]


def test_one_repeated_slice_is_counted_even_if_sampled_lines_only_suspect_it():
    image = natural_image((20, 90, 85))  # more lines than are sampled
    image[7] = image[6]
    assert duplicated_slices(image) == [1, 0, 0]
    image[7, 21, 21] += 1  # on a line that is not
    assert duplicated_slices(image) == [0, 0, 0]


def test_band_that_the_fit_needs_is_not_judged():
    smooth = gaussian_filter(natural_image(SHAPE), 9)
    measured = np.divide(effective_resolution(smooth, SPACING), SPACING)
    assert ((measured > INTERPOLATED) & (measured <= 5)).all()


def test_constant_image_says_nothing():
    assert effective_resolution(np.full(SHAPE, 5.0), SPACING) == [None, None, None]


def test_large_image_is_judged_from_a_sample_of_its_lines():
    image = interpolated(natural_image((20, 90, 85)), 0, 2, "cubic")
    measured = effective_resolution(image, (1.0, 1.0, 1.0))
    assert measured[0] == pytest.approx(2, abs=0.5)
