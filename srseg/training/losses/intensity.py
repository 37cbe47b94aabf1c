"""Where the intensities of a batch begin and how wide they spread, for losses that need a range.

Both are taken per channel over the whole batch, from the HR image where it is known, and are
constants to the gradient. No range is below `LEAST_WIDTH`: in a patch of air the noise would be
blown up to full contrast.
"""

from __future__ import annotations

import torch

LEAST_WIDTH = 1.0  # the standard deviation, or the whole range, of a normalised image
PERCENTILES = (0.5, 99.5)  # as in srseg.metrics.image
_MOST_VALUES = 2**18  # sorting more of them would not change a percentile noticeably


def whole_range(hr_image: torch.Tensor, counted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return minimum and width (to the maximum) per channel, each (C,); 0 and 1 without a truth.

    Args:
        hr_image: (B, C, ...).
        counted: (B, 1, ...) bool.
    """
    hr_image = hr_image.detach().float()
    axes = (0, *range(2, hr_image.ndim))
    lowest = torch.where(counted, hr_image, torch.inf).amin(axes)
    highest = torch.where(counted, hr_image, -torch.inf).amax(axes)
    known = counted.any()
    width = torch.where(known, highest - lowest, LEAST_WIDTH).clamp_min(LEAST_WIDTH)
    return torch.where(known, lowest, 0), width


def percentile_range(
    hr_image: torch.Tensor, counted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the 0.5th percentile and the width to the 99.5th per channel, each (C,).

    Of many voxels only every n-th is looked at, a quarter of a million of them. 0 and 1 without a
    truth.

    Args:
        hr_image: (B, C, ...).
        counted: (B, 1, ...) bool.
    """
    channels = hr_image.detach().float().movedim(1, -1)[counted[:, 0]].T  # (C, N)
    if channels.shape[1] == 0:
        return channels.new_zeros(len(channels)), channels.new_full((len(channels),), LEAST_WIDTH)
    channels = channels[:, :: -(-channels.shape[1] // _MOST_VALUES)]
    shares = torch.tensor(PERCENTILES, device=channels.device) / 100
    low, high = torch.quantile(channels, shares, dim=1)
    return low, (high - low).clamp_min(LEAST_WIDTH)


def rescaled(image: torch.Tensor, low: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """Return `image` (B, C, ...) with `low` (C,) at 0 and `low` + `width` at 1, fp32."""
    shape = (1, -1, *(1,) * (image.ndim - 2))
    return (image.float() - low.reshape(shape)) / width.reshape(shape)
