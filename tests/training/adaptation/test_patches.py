"""Batches: a function of seed and step, of both domains, padded where an image is small."""

import numpy as np
import pytest
import torch

from srseg.training.adaptation.patches import draw_batch
from tests.training.adaptation.domains import domain

SOURCE, TARGET = domain(target=False), domain(target=True)


def draw(key, patch_size=(4, 8, 6), batch_size=3):
    options = {"patch_size": patch_size, "batch_size": batch_size, "key": key}
    return draw_batch(SOURCE, TARGET, device=torch.device("cpu"), **options)


def test_seed_and_step_decide_alone():
    np.random.seed(1)
    torch.manual_seed(1)
    first = draw((7, 2))
    np.random.seed(2)
    torch.manual_seed(2)
    again = draw((7, 2))
    assert torch.equal(first.source, again.source)
    assert torch.equal(first.target, again.target)
    noise = first.normal(first.source)
    assert torch.equal(noise, again.normal(again.source))
    for key in ((7, 3), (8, 2)):
        other = draw(key)
        assert not torch.equal(first.source, other.source)
        assert not torch.equal(first.target, other.target)
        assert not torch.equal(noise, other.normal(other.source))


@pytest.mark.parametrize(
    ("patch_size", "expected"), [((4, 8, 6), (3, 1, 4, 8, 6)), ((8, 6), (3, 1, 8, 6))]
)
def test_patches_are_cut_or_slices(patch_size, expected):
    batch = draw((0, 0), patch_size)
    assert batch.source.shape == batch.target.shape == expected


def test_a_small_image_is_padded_by_its_edges():
    batch = draw((0, 1), (8, 16, 20), batch_size=8)
    values = {float(v) for volume in SOURCE.volumes for v in volume.image.ravel()}
    assert set(batch.source.unique().tolist()) <= values
    assert batch.source.shape == (8, 1, 8, 16, 20)


def test_all_places_and_flips_come():
    """Patches of every volume, and both ways round."""
    volume = SOURCE.volumes[0].image[0]
    seen = set()
    for step in range(40):
        for patch in draw((0, step), volume.shape, batch_size=1).source[0]:
            for axes in [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]:
                if np.array_equal(np.flip(patch.numpy(), axes), volume):
                    seen.add(axes)
    assert len(seen) >= 6
