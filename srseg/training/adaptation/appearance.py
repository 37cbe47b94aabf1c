"""A source image as another scanner might show it: tone curve, bias field, noise."""

from __future__ import annotations

import torch
from torch.nn import functional as F

_TONE = 0.4  # below 0.5 the curve rises everywhere
_BIAS = 0.3  # of the logarithm, at the corners of a patch
_NOISE = 0.1  # largest deviation, in the body's frame from -1 to 1
_MODES = {2: "bilinear", 3: "trilinear"}


def changed_appearance(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return `image` (B, C, ...), in the body's frame, with another contrast; places stay.

    Args:
        image: -1 to 1 inside the body.
        generator: on the CPU; decides everything.
    """
    num_axes = image.ndim - 2
    per_channel = (*image.shape[:2], *[1] * num_axes)
    draws = torch.rand(2, *per_channel, generator=generator).to(image.device)
    corners = torch.randn(*image.shape[:2], *[2] * num_axes, generator=generator)
    noise = torch.randn(image.shape, generator=generator).to(image.device)
    curved = image + _TONE * (2 * draws[0] - 1) * (1 - image.clamp(-1, 1).square())
    field = F.interpolate(
        _BIAS * corners.to(image.device),
        size=image.shape[2:],
        mode=_MODES[num_axes],
        align_corners=True,
    )
    return (curved + 1) * field.exp() - 1 + _NOISE * draws[1] * noise
