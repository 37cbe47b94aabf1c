"""Edges: how steep the SR image is, compared with the HR image."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from srseg.training.losses.counted import hr_truth, masked_mean
from srseg.training.losses.terms import LossContext, Option, Term, is_positive
from srseg.training.losses.windows import fitting

EDGE_OPTIONS = {"epsilon": Option(1e-3, "a number above 0", is_positive)}


def gradient_magnitude(
    image: torch.Tensor, hr_spacing: Sequence[float], epsilon: float
) -> torch.Tensor:
    """Return the Sobel gradient magnitude, intensity per finest voxel, fp32.

    sqrt(sum of squared derivatives + epsilon^2): the epsilon keeps the gradient finite where the
    image is flat. A derivative is a central difference, smoothed by (1, 2, 1) / 4 along the other
    axes and divided by the voxel's length in finest voxels.

    Args:
        image: (B, C, Z, Y, X) or (B, C, Y, X).
        hr_spacing: mm per spatial axis.
        epsilon: in the units of the result.

    Returns:
        (B, C, n - 2 per axis): voxels whose neighbours are all there. Axes with fewer than three
        voxels are left as they are.
    """
    image = image.float()
    axes = [axis for axis in range(2, image.ndim) if image.shape[axis] >= 3]
    squares = torch.full((), epsilon**2, device=image.device)
    for axis in axes:
        derivative = image
        for other in axes:
            low, middle, high = (
                derivative.narrow(other, start, derivative.shape[other] - 2) for start in range(3)
            )
            if other == axis:
                derivative = (high - low) * (0.5 * min(hr_spacing) / hr_spacing[axis - 2])
            else:
                derivative = 0.25 * low + 0.5 * middle + 0.25 * high
        squares = squares + derivative.square()
    return squares.sqrt()


def edge_loss(
    sr_image: torch.Tensor,
    hr_image: torch.Tensor,
    valid: torch.Tensor,
    *,
    hr_spacing: Sequence[float],
    epsilon: float = 1e-3,
) -> torch.Tensor:
    """Return the mean absolute difference of the gradient magnitudes, fp32.

    JOANet's published code compares Canny maps, which have no gradient;
    this has one wherever the SR image is not perfectly flat. Voxels count whose neighbours are
    all valid; 0 where there is none.

    Args:
        sr_image: (B, C, Z, Y, X) or (B, C, Y, X).
        hr_image: the same shape, the same intensity frame.
        valid: (B, 1, ...) bool on the HR grid.
        hr_spacing: mm per spatial axis.
        epsilon: see `gradient_magnitude`.
    """
    widths = [3 if n >= 3 else 1 for n in hr_image.shape[2:]]
    if max(widths) == 1:
        return masked_mean(sr_image.float(), torch.zeros_like(valid))
    sr_edges, hr_edges = (
        gradient_magnitude(image, hr_spacing, epsilon) for image in (sr_image, hr_image)
    )
    return masked_mean((sr_edges - hr_edges).abs(), fitting(valid, widths))


def edge_term(context: LossContext, epsilon: float) -> Term:
    """Return the term `edge`."""
    return lambda output, batch: edge_loss(
        output.sr, *hr_truth(batch), hr_spacing=context.hr_spacing, epsilon=epsilon
    )
