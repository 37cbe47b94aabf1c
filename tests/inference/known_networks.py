"""Networks whose answer is known beforehand, and what a test needs around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from srseg.geometry.separable import resample
from srseg.inference.predictor import Predictor
from srseg.networks.output import JointOutput
from tests.images.readers import write_volume
from tests.preprocessing.hand_plans import hand_plans, managers

RAMP_NORMAL_XYZ = (0.5, 0.7, -0.4)
RAMP_OFFSET_MM = 3.0


def repeated(array: np.ndarray, scale: Sequence[int]) -> np.ndarray:
    """Return `array` with every voxel of its last axes repeated `scale` times."""
    for axis, s in enumerate(scale, start=array.ndim - len(scale)):
        array = np.repeat(array, s, axis=axis)
    return array


class NearestNetwork(nn.Module):
    """The identity network: repeats every voxel; label 1 where the (first) channel is > 0."""

    def __init__(self, scale: Sequence[int], sr_head: bool = True) -> None:
        super().__init__()
        self.scale, self.sr_head = tuple(scale), sr_head
        self.calls: list[tuple[int, ...]] = []

    def forward(self, lr_image: torch.Tensor) -> JointOutput:
        self.calls.append(tuple(lr_image.shape))
        image = lr_image
        for axis, s in enumerate(self.scale, start=2):
            image = image.repeat_interleave(s, dim=axis)
        logits = torch.cat((-image[:, :1], image[:, :1]), 1)
        return JointOutput([logits], image if self.sr_head else None)


class RampNetwork(nn.Module):
    """Upsamples linearly; label 1 where the point its three channels name is in a half-space."""

    def __init__(self, scale: Sequence[int]) -> None:
        super().__init__()
        self.scale = tuple(float(s) for s in scale)

    def forward(self, lr_image: torch.Tensor) -> JointOutput:
        image = F.interpolate(
            lr_image, scale_factor=self.scale, mode="trilinear", align_corners=False
        )
        normal = torch.tensor(RAMP_NORMAL_XYZ, device=image.device).reshape(1, 3, 1, 1, 1)
        distance = (image * normal).sum(1, keepdim=True) - RAMP_OFFSET_MM
        return JointOutput([torch.cat((-distance, distance), 1)], image)


class InterpolatingNetwork(nn.Module):
    """Interpolates with a kernel that damps nothing, as the way to the native grid does."""

    def __init__(self, scale: Sequence[int]) -> None:
        super().__init__()
        self.scale = tuple(scale)

    def forward(self, lr_image: torch.Tensor) -> JointOutput:
        shape = [n * s for n, s in zip(lr_image.shape[2:], self.scale, strict=True)]
        image = resample(lr_image, shape, kind="lanczos")
        return JointOutput([torch.cat((-image[:, :1], image[:, :1]), 1)], image)


class FlipBlindNetwork(NearestNetwork):
    """Adds the index along the last axis, so flipping its input matters."""

    def forward(self, lr_image: torch.Tensor) -> JointOutput:
        out = super().forward(lr_image)
        index = torch.arange(out.sr.shape[-1], dtype=torch.float32, device=out.sr.device)
        return JointOutput([out.seg[0]], out.sr + index)


def dataset_json(num_channels: int = 1, file_ending: str = ".nii.gz", **more: object) -> dict:
    return {
        "channel_names": {str(i): f"MR{i}" for i in range(num_channels)},
        "labels": {"background": 0, "organ": 1},
        "numTraining": 4,
        "file_ending": file_ending,
        **more,
    }


def known_predictor(
    network: nn.Module,
    scale: Sequence[int],
    *,
    hr_spacing: Sequence[float] = (2.0, 0.75, 0.5),
    patch_size: Sequence[int] = (9, 12, 10),
    num_channels: int = 1,
    description: dict | None = None,
    mirroring_axes: Sequence[int] | None = (0, 1, 2),
    patch_free: bool = False,
    settings: dict | None = None,
    **plan_options: object,
) -> Predictor:
    """Return the CPU predictor of a known network; spacing, scale and patch in plan order."""
    plan_options.setdefault("normalization", ("ZScoreNormalization",) * num_channels)
    plans = hand_plans(hr_spacing, scale, patch_size=patch_size, **plan_options)
    for configuration in plans["configurations"].values():
        configuration["patch_free"] = patch_free
    plans_manager, configuration_manager = managers(plans)
    return Predictor.from_network(
        network,
        plans_manager,
        configuration_manager,
        description or dataset_json(num_channels),
        mirroring_axes=mirroring_axes,
        device="cpu",
        **(settings or {}),
    )


def random_case(
    folder: Path, case: str = "a", shape: Sequence[int] = (5, 8, 7), seed: int = 0
) -> np.ndarray:
    """Write one channel of noise inside a border of zeros; return the array (Z, Y, X)."""
    folder.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).normal(50, 10, shape).astype(np.float32)
    array[0] = 0
    array[:, -2:] = 0
    array[:, :, 0] = 0
    write_volume(folder / f"{case}_0000.nii.gz", array)
    return array
