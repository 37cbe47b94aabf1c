"""The architecture entry: nnU-Net's topology for the LR volume, complete for our network."""

from __future__ import annotations

import pytest
import torch

from srseg.networks.build import build_network
from srseg.networks.joint_unet import JointUNet
from srseg.planning.architecture import joint_architecture, whole_volume_architecture


@pytest.mark.parametrize(
    ("spacing", "shape", "scale"),
    [((3.0, 1.0, 1.2), (9, 26, 21), (1, 3, 2)), ((1.0, 1.2), (37, 20), (2, 3))],
    ids=["3d", "2d"],
)
def test_whole_volume_goes_through_the_network(spacing, shape, scale):
    architecture, padded = whole_volume_architecture(spacing, shape, scale)
    assert all(p >= n for p, n in zip(padded, shape, strict=True))
    network = build_network(architecture, 1, 4)
    assert isinstance(network, JointUNet)
    with torch.no_grad():
        output = network(torch.zeros(1, 1, *padded))
    assert output.seg[0].shape == (1, 4, *(n * s for n, s in zip(padded, scale, strict=True)))


def test_hr_width_is_set_and_the_stock_entry_is_not_changed():
    architecture, _ = whole_volume_architecture((1.0, 1.2), (37, 20), (2, 3))
    stock = {key: architecture[key] for key in ("arch_kwargs", "_kw_requires_import")}
    before = dict(stock["arch_kwargs"])
    assert joint_architecture(stock, (1, 2), 8)["arch_kwargs"]["hr_width"] == 8
    assert stock["arch_kwargs"] == before
