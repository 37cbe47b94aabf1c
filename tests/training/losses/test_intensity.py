"""Ranges of a batch by hand: valid voxels alone, per channel, never narrower than 1."""

import pytest
import torch

from srseg.training.losses.intensity import percentile_range, rescaled, whole_range


def example():
    image = torch.stack([torch.arange(11.0) - 3, 20 * torch.arange(11.0)])[None, :, None]
    counted = torch.ones(1, 1, 1, 11, dtype=torch.bool)
    counted[..., -1] = False
    return image, counted


def test_whole_range_by_hand():
    low, width = whole_range(*example())
    assert low.tolist() == [-3, 0]
    assert width.tolist() == [9, 180]


def test_percentiles_are_those_of_numpy():
    low, width = percentile_range(*example())
    assert low.tolist() == pytest.approx([-3 + 9 * 0.005, 180 * 0.005])
    assert width.tolist() == pytest.approx([9 * 0.99, 180 * 0.99], rel=1e-5)


def test_many_voxels_are_thinned_out():
    image = torch.arange(2.0**19).reshape(1, 1, 2**10, 2**9) / 2**19
    low, width = percentile_range(8 * image, torch.ones(1, 1, 2**10, 2**9, dtype=torch.bool))
    assert low.item() == pytest.approx(0.04, rel=1e-3)
    assert width.item() == pytest.approx(7.92, rel=1e-3)


@pytest.mark.parametrize("ends", [whole_range, percentile_range])
def test_constant_images_and_empty_masks_have_the_width_one(ends):
    image, counted = torch.full((2, 1, 3, 4), 5.0), torch.ones(2, 1, 3, 4, dtype=torch.bool)
    assert [value.tolist() for value in ends(image, counted)] == [[5], [1]]
    assert [value.tolist() for value in ends(image, ~counted)] == [[0], [1]]


def test_rescaled_by_hand():
    image = torch.tensor([2.0, 4.0]).reshape(1, 2, 1, 1)
    scaled = rescaled(image, torch.tensor([1.0, 2.0]), torch.tensor([2.0, 8.0]))
    assert scaled.flatten().tolist() == [0.5, 0.25]
