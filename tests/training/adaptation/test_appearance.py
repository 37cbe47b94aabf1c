"""Another appearance keeps places and order, and differs from sample to sample."""

import pytest
import torch

from srseg.training.adaptation import appearance
from srseg.training.adaptation.appearance import changed_appearance


@pytest.mark.parametrize("shape", [(3, 2, 5, 8, 7), (3, 2, 8, 7)])
def test_it_changes_every_sample_in_its_own_way_and_is_repeatable(shape):
    image = torch.linspace(-1, 1, 7).expand(shape)
    first, again = (changed_appearance(image, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, again)
    changes = (first - image).reshape(6, -1)
    assert (changes.abs().mean(dim=1) > 0.01).all()
    assert len({round(float(c.mean()), 4) for c in changes}) == 6


def test_without_noise_and_field_the_order_of_values_stays(monkeypatch):
    monkeypatch.setattr(appearance, "_NOISE", 0.0)
    monkeypatch.setattr(appearance, "_BIAS", 0.0)
    image = torch.linspace(-1.5, 1.5, 200).expand(4, 1, 3, 200)
    for seed in range(20):
        changed = changed_appearance(image, torch.Generator().manual_seed(seed))
        assert (changed.diff(dim=-1) > 0).all()
