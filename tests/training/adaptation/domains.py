"""Two tiny domains of balls: the target is darker, noisier and has a curved contrast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO

from srseg.inference.adapter import AdapterDescription
from srseg.preprocessing.body import median_map
from srseg.training.adaptation.images import Domain, volume_of
from srseg.training.adaptation.trainer import AdapterTrainer, Schedule

SHAPE = (5, 9, 11)


def ball(seed: int, *, target: bool, num_channels: int = 1) -> np.ndarray:
    """Return an image (C, Z, Y, X), raw."""
    generator = np.random.default_rng(seed)
    at = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij")).astype(float)
    centre = np.array(SHAPE).reshape(3, 1, 1, 1) / 2 + generator.uniform(-1, 1, (3, 1, 1, 1))
    inside = np.exp(-((at - centre) ** 2 / np.reshape((4, 12, 16), (3, 1, 1, 1))).sum(axis=0))
    image = 0.1 + inside + 0.03 * generator.standard_normal((num_channels, *SHAPE))
    if target:
        image = 30 * np.clip(image, 0, None) ** 2 + 0.5 * generator.standard_normal(image.shape)
    else:
        image = 500 * image
    return image.astype(np.float32)


def domain(*, target: bool, num_volumes: int = 3, num_channels: int = 1) -> Domain:
    images = [
        ball(10 * target + seed, target=target, num_channels=num_channels)
        for seed in range(num_volumes)
    ]
    volumes = [volume_of(f"case_{i}", image) for i, image in enumerate(images)]
    return Domain("target" if target else "source", volumes, NibabelIO)


def description(
    method: str, *, num_axes: int = 3, num_channels: int = 1, units: str = "source"
) -> AdapterDescription:
    size, stride = ((4, 8, 6), [1, 2, 2]) if num_axes == 3 else ((8, 6), [2, 2])
    source = domain(target=False, num_channels=num_channels)
    maps = [median_map([v.maps[c] for v in source.volumes]) for c in range(num_channels)]
    return AdapterDescription(
        method=method,
        num_channels=num_channels,
        patch_size=size,
        network={
            "num_channels": num_channels,
            "num_axes": num_axes,
            "widths": [4, 6],
            "strides": [stride],
            "norm": "instance" if method == "munit" else "none",
            "num_blocks": 1,
        },
        source_frame=[[m.slope, m.intercept] for m in maps],
        units=units,
        reader="NibabelIO",
    )


def trainer(
    method: str,
    folder: Path,
    *,
    num_steps: int = 4,
    num_volumes: int = 3,
    weights: dict | None = None,
    learning_rate: float = 2e-4,
    **options: int,
) -> AdapterTrainer:
    num_channels = options.get("num_channels", 1)
    domains = tuple(
        domain(target=target, num_volumes=num_volumes, num_channels=num_channels)
        for target in (False, True)
    )
    return AdapterTrainer(
        description(method, **options),
        domains,
        Schedule(num_steps, None, 3, 1, learning_rate),
        weights=weights,
        folder=folder,
    )
