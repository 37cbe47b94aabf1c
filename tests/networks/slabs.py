"""How far a stage on the HR grid, computed in slabs, is from the whole."""

from __future__ import annotations

import torch
from torch import nn

SHAPE = (11, 13, 12)


def make_inputs(scale: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    shape = SHAPE[: len(scale)]
    return torch.randn(2, 6, *shape), torch.randn(2, 2, *shape)


def slab_difference(
    stage: nn.Module, axis: int, halo: int, *, start: int, stop: int
) -> list[float]:
    """Return how far logits and SR image of LR voxels start..stop are from those of the whole."""
    inputs = make_inputs(stage.scale)
    size, factor = inputs[0].shape[2 + axis], stage.scale[axis]
    first, last = max(0, start - halo), min(size, stop + halo)
    with torch.no_grad():
        whole = stage(*inputs)
        slab = stage(*(x.narrow(2 + axis, first, last - first).contiguous() for x in inputs))
    length = (stop - start) * factor
    return [
        (b.narrow(2 + axis, (start - first) * factor, length)
         - a.narrow(2 + axis, start * factor, length)).abs().max().item()
        for a, b in zip(whole, slab, strict=True)
        if a is not None
    ]  # fmt: skip
