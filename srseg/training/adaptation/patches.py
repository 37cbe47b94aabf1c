"""Batches of patches from both domains, a pure function of seed and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from srseg.training.adaptation.images import Domain, Volume
from srseg.training.randomness import generator_of

_SOURCE, _TARGET, _NOISE = range(3)  # streams; a number, once given, stays: it is part of the seed


@dataclass(frozen=True)
class Batch:
    """What one step sees.

    Attributes:
        source: (B, C, ...) patches of the domain that the joint network knows.
        target: (B, C, ...) patches of the domain to adapt; of other places and patients.
        generator: on the CPU, for every random number of the step.
    """

    source: torch.Tensor
    target: torch.Tensor
    generator: torch.Generator

    def normal(self, like: torch.Tensor) -> torch.Tensor:
        """Return standard normal numbers of the shape and on the device of `like`."""
        return torch.randn(like.shape, generator=self.generator).to(like.device)

    def normal_code(self, width: int) -> torch.Tensor:
        """Return standard normal numbers (B, width), on the batch's device."""
        shape = (len(self.source), width)
        return torch.randn(shape, generator=self.generator).to(self.source.device)


def draw_batch(
    source: Domain,
    target: Domain,
    *,
    patch_size: Sequence[int],
    batch_size: int,
    key: tuple[int, int],
    device: torch.device,
) -> Batch:
    """Return the batch of one step.

    Args:
        source: its images.
        target: its images.
        patch_size: voxels (Z, Y, X), or (Y, X) for patches of single slices.
        batch_size: patches of each domain.
        key: seed and step; nothing else decides.
        device: where the patches go.
    """
    options = {"patch_size": tuple(patch_size), "batch_size": batch_size}
    return Batch(
        source=_patches(source, key=(*key, _SOURCE), **options).to(device),
        target=_patches(target, key=(*key, _TARGET), **options).to(device),
        generator=generator_of((*key, _NOISE)),
    )


def _patches(
    domain: Domain, *, patch_size: tuple[int, ...], batch_size: int, key: tuple[int, ...]
) -> torch.Tensor:
    generator = np.random.default_rng(np.random.SeedSequence(key))
    patches = []
    for _ in range(batch_size):
        volume = domain.volumes[generator.integers(len(domain.volumes))]
        patches.append(_patch(volume, patch_size, generator))
    return torch.from_numpy(np.stack(patches))


def _patch(
    volume: Volume, patch_size: tuple[int, ...], generator: np.random.Generator
) -> np.ndarray:
    """Return a patch around a voxel of the body, flipped by chance; edges are repeated."""
    size = (1, *patch_size) if len(patch_size) == 2 else patch_size
    centre = volume.centres[generator.integers(len(volume.centres))]
    where, padding = [slice(None)], [(0, 0)]
    for n, wanted, at in zip(volume.image.shape[1:], size, centre, strict=True):
        start = int(np.clip(at - wanted // 2, 0, max(0, n - wanted)))
        where.append(slice(start, start + wanted))
        missing = max(0, wanted - n)
        padding.append((missing // 2, missing - missing // 2))
    patch = np.pad(volume.image[tuple(where)], padding, mode="edge")
    flips = generator.integers(2, size=3)
    axes = tuple(axis + 1 for axis, flip in enumerate(flips) if flip)
    patch = np.flip(patch, axes) if axes else patch
    return np.ascontiguousarray(patch[:, 0] if len(patch_size) == 2 else patch)
