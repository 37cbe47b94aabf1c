"""The arguments that networks are planned with, checked and in their long form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from srseg.geometry.grid import checked_scale
from srseg.networks.encoder import per_stage


def num_axes(conv_op: type[nn.Module]) -> int:
    """Return how many axes `conv_op` works on.

    Raises:
        ValueError: if it is neither `nn.Conv2d` nor `nn.Conv3d`.
    """
    known: dict[type[nn.Module], int] = {nn.Conv2d: 2, nn.Conv3d: 3}
    if conv_op not in known:
        raise ValueError(f"unknown conv_op {conv_op!r}; known: Conv2d, Conv3d of torch.nn.")
    return known[conv_op]


def check_at_least_one(**counts: int) -> None:
    """Raise a ValueError that names the first of `counts` that is below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; at least 1 is needed.")


def scale_of_axes(scale: Sequence[int], ndim: int) -> tuple[int, ...]:
    """Return `scale` as `ndim` whole numbers.

    Raises:
        ValueError: if there is another number of them, or one is no whole number >= 1.
    """
    if len(scale) != ndim:
        raise ValueError(f"scale is {list(scale)}; {ndim} entries are needed, one per axis.")
    return checked_scale(scale)


def per_stage_and_axis(name: str, values: Any, num_stages: int, ndim: int) -> list[list[int]]:
    """Return one entry per stage and axis, as nnU-Net reads a number or a number per stage.

    Raises:
        ValueError: if `values`, the argument `name`, has another number of stages or axes.
    """
    rows = [
        [row] * ndim if isinstance(row, int) else list(row)
        for row in per_stage(name, values, num_stages)
    ]
    if any(len(row) != ndim for row in rows):
        raise ValueError(f"{name} must have {ndim} entries per stage, one per axis: {rows}.")
    return rows


def strides_per_stage(strides: Any, num_stages: int, ndim: int) -> list[list[int]]:
    """Return the encoder's strides per stage and axis.

    Raises:
        ValueError: as `per_stage_and_axis`, or if the first stage leaves the LR grid.
    """
    rows = per_stage_and_axis("strides", strides, num_stages, ndim)
    if any(step != 1 for step in rows[0]):
        raise ValueError(
            f"the first stage must keep the LR grid, its stride is {rows[0]} "
            "where all ones are allowed."
        )
    return rows


def odd_hr_kernel(
    wanted: Sequence[int] | None, first_kernel: Sequence[int], scale: Sequence[int]
) -> tuple[int, ...]:
    """Return the odd kernel per axis of the HR convolutions.

    Where nnU-Net's rule gives the first stage a kernel of 1, the LR grid is so anisotropic that
    neighbours along this axis say little. If the axis is not refined while others are, the HR
    grid is more anisotropic still, so the costly HR convolutions leave it out too.

    Args:
        wanted: `hr_kernel_size` of the plans; None for the rule.
        first_kernel: of the encoder's first stage.
        scale: refinement per axis.

    Raises:
        ValueError: if what is wanted is even, or not one number per axis.
    """
    if wanted is None:
        return tuple(
            1 if size == 1 and factor == 1 else 3
            for size, factor in zip(first_kernel, scale, strict=True)
        )
    if len(wanted) != len(scale) or any(size % 2 == 0 for size in wanted):
        raise ValueError(
            f"hr_kernel_size is {list(wanted)}; {len(scale)} odd numbers are needed, one per axis."
        )
    return tuple(wanted)


def check_input(lr_image: torch.Tensor, num_channels: int, lr_divisor: Sequence[int]) -> None:
    """Raise a ValueError unless `lr_image` is (B, C, *axes) and every axis a fitting multiple."""
    shape = lr_image.shape
    fits = (
        len(shape) == 2 + len(lr_divisor)
        and shape[1] == num_channels
        and all(n % d == 0 for n, d in zip(shape[2:], lr_divisor, strict=True))
    )
    if not fits:
        raise ValueError(
            f"the network got an input of shape {tuple(shape)}; it takes (batch, "
            f"{num_channels}, *axes) with axes that are multiples of {tuple(lr_divisor)}."
        )


def check_patch(lr_patch: Sequence[int], ndim: int) -> None:
    """Raise a ValueError unless `lr_patch` has one length for each of `ndim` axes."""
    if len(lr_patch) != ndim:
        raise ValueError(
            f"got a patch {tuple(lr_patch)}; the network has {ndim} axes, "
            "give their lengths without batch and channels."
        )
