"""The planned trunk moved to the HR grid, for methods whose segmenter works there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

_KERNEL_ANISOTROPY = 2.0  # nnU-Net's: from here on an axis is too coarse to be convolved
_MAX_FEATURES = {2: 512, 3: 320}  # nnU-Net's


def hr_topology(
    arch_kwargs: Mapping[str, Any], scale: Sequence[int], hr_spacing: Sequence[float]
) -> dict[str, Any]:
    """Return the trunk's arguments for the HR grid: one stage more on top of the planned ones.

    The new first stage works on HR voxels and its neighbour's stride is `scale`, so the stages
    below see the very grids that were planned, and every LR patch that fitted still does. Widths
    start again at the planned first one, as nnU-Net's would.

    Args:
        arch_kwargs: of the planned network, on the LR grid.
        scale: refinement per axis.
        hr_spacing: mm per axis.
    """
    if prod(scale) == 1:
        return dict(arch_kwargs)
    num_stages, num_axes = int(arch_kwargs["n_stages"]) + 1, len(scale)
    features = list(arch_kwargs["features_per_stage"])
    most = max(_MAX_FEATURES[num_axes], features[-1])
    kernel = [1 if mm / min(hr_spacing) > _KERNEL_ANISOTROPY else 3 for mm in hr_spacing]
    own = {
        "n_stages": num_stages,
        "features_per_stage": [min(most, features[0] * 2**i) for i in range(num_stages)],
        "kernel_sizes": [kernel, *arch_kwargs["kernel_sizes"]],
        "strides": [[1] * num_axes, list(scale), *arch_kwargs["strides"][1:]],
        "n_conv_per_stage_decoder": [
            *arch_kwargs["n_conv_per_stage_decoder"],
            arch_kwargs["n_conv_per_stage_decoder"][-1] if num_stages > 2 else 2,
        ],
    }
    for name in ("n_conv_per_stage", "n_blocks_per_stage"):
        if arch_kwargs.get(name) is not None:
            own[name] = [arch_kwargs[name][0], *arch_kwargs[name]]
    return {**arch_kwargs, **own}
