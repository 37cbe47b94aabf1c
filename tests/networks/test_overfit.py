"""Every network learns one case by heart: labels finer than LR voxels, and detail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from srseg.degradation.spec import default_degradation
from srseg.geometry.separable import resample
from srseg.metrics.segmentation import dice
from srseg.networks.build import build_network

HR_SPACING, SCALE = (2.0, 0.9, 0.8), (1, 2, 2)
LR_SHAPE = (4, 12, 16)
STEPS = 250
SERIAL = "serial.SerialSRSeg"
UNFOLDED = {"name": "unfolded", "width": 8, "depth": 2, "num_convs": 1, "iterations": 2}
NETWORKS = {
    "default": ("joint_unet.JointUNet", {}),
    "residual trunk": ("joint_unet.JointUNet", {"trunk": "residual"}),
    "split at the decoder": ("joint_unet.JointUNet", {"split": "decoder"}),
    "split at the bottleneck": ("joint_unet.JointUNet", {"split": "bottleneck"}),
    "SR image into segmentation": ("joint_unet.JointUNet", {"sr_into_seg": True}),
    "segments only": ("joint_unet.JointUNet", {"sr_head": False}),
    "PFSeg": ("two_decoders.PFSegNet", {}),
    "PFSeg, guidance not given": ("two_decoders.PFSegNet", {"guidance": True}),
    "gated": ("dual_decoder_gate.DualDecoderGate", {}),
    "cubic, then segmenter": (SERIAL, {"sr_network": {"name": "cubic"}}),
    "EDSR, then segmenter": (
        SERIAL,
        {"sr_network": {"name": "edsr", "width": 8, "num_blocks": 2}},
    ),
    "unfolded, then segmenter": (SERIAL, {"sr_network": UNFOLDED}),
    "on the LR grid": ("lr_segmentation.LRSegmentation", {}),
    "slices as channels": ("slices_as_channels.SlicesAsChannels", {"hr_width": 32}),
}
# Without an SR network of their own (the cubic one has nothing to learn)
NO_SR = {"segments only", "cubic, then segmenter", "on the LR grid"}
LR_GRID_DICE, HR_GRID_DICE = 0.75, 0.9


def one_case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return LR image, HR image and labels of two overlapping blobs with a fine texture."""
    shape = [n * s for n, s in zip(LR_SHAPE, SCALE, strict=True)]
    axes = [(torch.arange(n) + 0.5) / n for n in shape]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    middle = torch.tensor([0.5, 0.4, 0.35]).reshape(3, 1, 1, 1)
    distance = (grid - middle).norm(dim=0)
    labels = (distance < 0.3).long() + (distance < 0.18).long()
    texture = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    hr_image = (labels + 0.3 * texture)[None, None]
    lr_image = nn.functional.interpolate(hr_image, LR_SHAPE, mode="area")
    return lr_image, hr_image, labels[None]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_overfits_one_case(architecture, name):
    class_name, options = NETWORKS[name]
    options = {"features_per_stage": [8, 12, 16], "hr_width": 8, **options}
    planned = architecture(3, scale=list(SCALE), **options)
    planned["network_class_name"] = f"srseg.networks.{class_name}"
    if class_name == SERIAL:
        spec = default_degradation("MR", HR_SPACING, SCALE, multislice=True)
        planned["arch_kwargs"] |= {"degradation": spec.to_json(), "hr_spacing": list(HR_SPACING)}
    if name == "slices as channels":
        planned["arch_kwargs"]["num_slices"] = LR_SHAPE[0]
    torch.manual_seed(4)
    network = build_network(planned, 1, 3, deep_supervision=False)
    lr_image, hr_image, labels = one_case()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.004)
    for _ in range(STEPS):
        output = network(lr_image)
        loss = nn.functional.cross_entropy(output.seg[0], labels)
        if output.sr is not None and output.sr.requires_grad:
            loss = loss + 3 * (output.sr - hr_image).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    predicted = network(lr_image).seg[0].argmax(1)
    least = LR_GRID_DICE if name == "on the LR grid" else HR_GRID_DICE
    for label in (1, 2):
        found, truth = (np.asarray(mask == label) for mask in (predicted, labels))
        assert dice(found, truth) > least
    if name not in NO_SR:
        cubic = resample(lr_image[0], hr_image.shape[2:], kind="cubic")[None]
        error = (output.sr.detach() - hr_image).abs().mean()
        assert error < 0.8 * (cubic - hr_image).abs().mean()
