"""Flips and quarter turns move all arrays of a sample alike, and only where nothing changes."""

import numpy as np
import pytest
import torch

from srseg.degradation.degradation import Degradation
from srseg.degradation.spec import AxisDegradation, DegradationSpec
from srseg.training.augmentation import AugmentationOptions
from srseg.training.mirroring import alike_planes, flipped_and_turned
from srseg.training.samples import Patch, Triplet

SCALE = (1, 2, 2)
GAUSS = AxisDegradation("slice_gauss", {"thickness_mm": 2.5})


def triplet():
    """A triplet whose LR voxels are the means of their HR blocks."""
    hr_image = torch.arange(2 * 3 * 8 * 8.0).view(2, 3, 8, 8) ** 1.5
    lr_image = torch.nn.functional.avg_pool3d(hr_image, SCALE)
    hr_seg = (hr_image[:1] > 500).to(torch.int16)
    return Triplet(lr_image, hr_image, hr_seg, hr_image[:1] > 300)


def drawn(seed, planes=(), **options):
    values = {"flip_probability": 0.0, **options}
    return flipped_and_turned(
        triplet(),
        np.random.default_rng(seed),
        options=AugmentationOptions.from_json(values),
        mirror_axes=(0, 2),
        alike_planes=planes,
    )


def assert_arrays_agree(sample):
    lr_image = torch.nn.functional.avg_pool3d(sample.hr_image, SCALE)
    torch.testing.assert_close(sample.lr_image, lr_image)
    assert torch.equal(sample.hr_seg, (sample.hr_image[:1] > 500).to(torch.int16))
    assert torch.equal(sample.valid, sample.hr_image[:1] > 300)


def test_flips_move_all_arrays_alike_and_keep_to_their_axes():
    original, seen = triplet().hr_image, set()
    for seed in range(30):
        sample = drawn(seed, flip_probability=0.5)
        assert_arrays_agree(sample)
        flipped = [
            axes
            for axes in ((), (1,), (3,), (1, 3))
            if torch.equal(original.flip(axes), sample.hr_image)
        ]
        seen.update(flipped)
        assert len(flipped) == 1
    assert len(seen) == 4


def test_quarter_turns_move_all_arrays_alike():
    original, seen = triplet().hr_image, set()
    for seed in range(30):
        sample = drawn(seed, planes=[(1, 2)], rotate90_probability=1.0)
        assert_arrays_agree(sample)
        seen.update(
            k for k in (1, 2, 3) if torch.equal(torch.rot90(original, k, (2, 3)), sample.hr_image)
        )
    assert seen == {1, 2, 3}


def test_without_options_nothing_moves():
    assert torch.equal(drawn(0, planes=[(1, 2)]).hr_image, triplet().hr_image)


def degradation(scale, spacing, axes):
    return Degradation(DegradationSpec(tuple(axes)), scale, spacing)


@pytest.mark.parametrize(
    ("lr_size", "scale", "spacing", "axes", "planes"),
    [
        ((8, 8, 8), (2, 2, 2), (1, 1, 1), [GAUSS] * 3, [(0, 1), (0, 2), (1, 2)]),
        ((8, 8, 6), (2, 2, 2), (1, 1, 1), [GAUSS] * 3, [(0, 1)]),
        ((8, 8, 8), (1, 2, 2), (1, 1, 1), [GAUSS] * 3, [(1, 2)]),
        ((8, 8, 8), (2, 2, 2), (1, 1, 1.2), [GAUSS] * 3, [(0, 1)]),
        (
            (8, 8, 8),
            (2, 2, 2),
            (1, 1, 1),
            [GAUSS, AxisDegradation("area"), GAUSS],
            [(0, 2)],
        ),
    ],
)
def test_planes_are_alike_in_every_respect(lr_size, scale, spacing, axes, planes):
    patch = Patch(np.array(lr_size), np.array(scale), spacing)
    assert alike_planes(patch, degradation(scale, spacing, axes)) == planes


def test_without_a_known_spacing_no_plane_is_turned():
    patch = Patch(np.array([8, 8, 8]), np.array([2, 2, 2]), (1.0, 1.0, 1.0))
    assert alike_planes(patch, None) == []
