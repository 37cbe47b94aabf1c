"""Weights and FLOPs against a network small enough to count by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from srseg.evaluation.compare import cost
from srseg.evaluation.compare.cost import network_cost
from tests.preprocessing.hand_plans import hand_plans, managers

LABELS = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "a": 1, "b": 2}}


class OneLayer(nn.Module):
    """Three channels by one convolution of 3 x 3 x 3."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(1, 3, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layer(image)


class NotOnMeta(OneLayer):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        with torch.autocast(image.device.type, enabled=False):  # torch refuses "meta" here
            return super().forward(image)


@pytest.mark.parametrize("network", [OneLayer, NotOnMeta])
@pytest.mark.parametrize(("input_", "per_voxel"), [("lr", 2 * 27 * 3 / 6), ("hr", 2 * 27 * 3)])
def test_a_convolution_by_hand(monkeypatch, network, input_, per_voxel):
    """An LR voxel is six HR voxels; a network on the HR image works on HR voxels itself."""

    def build(architecture, channels, heads, *, device=None):
        assert (channels, heads) == (1, 3)
        with torch.device(device or "cpu"):
            return network()

    monkeypatch.setattr(cost, "build_network", build)
    plans = hand_plans((3.0, 0.5, 0.4), (1, 2, 3))
    plans["configurations"]["3d_fullres"]["input"] = input_
    parameters, flops = network_cost(*managers(plans), LABELS)
    assert parameters == 3 * 27 + 3
    assert flops == pytest.approx(per_voxel)
