"""Bounds on what a trunk reads, where the normalisation of a channel has some (CT)."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from torch import nn


class InputClip(nn.Module):
    """Clips each channel of (B, C, *axes) to its bounds; without bounds it returns its input.

    The bounds belong to the plans and not to the weights, so no state dict holds them.

    Args:
        num_channels: C.
        bounds: per channel (lowest, highest) or None; None for no bounds at all.

    Raises:
        ValueError: if there is not one entry per channel, or one is not a range.
    """

    def __init__(
        self, num_channels: int, bounds: Sequence[Sequence[float] | None] | None = None
    ) -> None:
        super().__init__()
        rows = [None] * num_channels if bounds is None else list(bounds)
        if len(rows) != num_channels:
            raise ValueError(
                f"input_clip has {len(rows)} entries, {num_channels} are needed: one per channel."
            )
        for row in rows:
            if row is not None and not (len(row) == 2 and row[0] < row[1]):
                raise ValueError(
                    f"an entry of input_clip is {list(row)}; allowed are (lowest, highest) or null."
                )
        self.is_active = any(row is not None for row in rows)
        limits = torch.tensor([(-inf, inf) if row is None else tuple(row) for row in rows])
        self.register_buffer("_low", limits[:, 0], persistent=False)
        self.register_buffer("_high", limits[:, 1], persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the clipped image; a new tensor where anything can be clipped."""
        if not self.is_active:
            return image
        shape = (1, -1, *(1 for _ in image.shape[2:]))
        low, high = (limit.to(image.dtype).view(shape) for limit in (self._low, self._high))
        return torch.clamp(image, low, high)
