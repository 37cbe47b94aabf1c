"""What gives logits and SR image of any box of a case on the network's HR grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch


class Stack(NamedTuple):
    """What a network answers in one box, float32.

    Attributes:
        logits: (K, Z, Y, X).
        sr_image: (C, Z, Y, X) in the normalised frame, None without SR head.
    """

    logits: torch.Tensor
    sr_image: torch.Tensor | None


class Source(Protocol):
    """Logits and SR image of a case, asked for box by box.

    Attributes:
        shape: HR voxels (Z, Y, X) of the case on the network's grid, without padding.
        scale: (Z, Y, X); boxes that begin at its multiples cost least.
        context: HR voxels that a box costs on each side of an axis beside its own.
    """

    shape: tuple[int, ...]
    scale: tuple[int, ...]
    context: tuple[int, ...]

    def box(self, box: Sequence[slice]) -> Stack:
        """Return what lies in `box`, to be read only.

        Boxes must be asked for in order: none begins before an earlier one along the first axis.
        """

    def num_bytes(self, shape: Sequence[int]) -> int:
        """Return about how much memory it takes to compute a box of `shape`."""


class WholeStack:
    """Logits and SR image that exist already; they may be on any device.

    Args:
        logits: (K, Z, Y, X).
        sr_image: (C, Z, Y, X) or None.
    """

    def __init__(self, logits: torch.Tensor, sr_image: torch.Tensor | None) -> None:
        self.stack = Stack(logits, sr_image)
        self.shape = tuple(logits.shape[1:])
        self.scale, self.context = (1, 1, 1), (0, 0, 0)

    def box(self, box: Sequence[slice]) -> Stack:
        """Return what lies in `box`, where possible without a copy."""
        where = (..., *box)
        logits, sr_image = self.stack
        return Stack(logits[where].float(), None if sr_image is None else sr_image[where].float())

    def num_bytes(self, shape: Sequence[int]) -> int:
        """Return 0: nothing is computed."""
        return 0


def split_stack(stack: torch.Tensor, num_heads: int) -> Stack:
    """Return the (K + C, Z, Y, X) result of a network apart; without SR head C is 0."""
    return Stack(stack[:num_heads], stack[num_heads:] if len(stack) > num_heads else None)


def check_finite(*parts: torch.Tensor | None) -> None:
    """Check what a network answered.

    Raises:
        RuntimeError: if there are NaN or infinite values.
    """
    if not all(bool(torch.isfinite(part.sum())) for part in parts if part is not None):
        raise RuntimeError(
            "the network answered with NaN or infinite values: its training diverged, or "
            "lower precision (autocast) does not suit it."
        )
