"""How far a Gaussian code is from a standard normal one, as a mean: no weight depends on its size.

Kingma & Welling, "Auto-encoding variational Bayes" (ICLR 2014), appendix B, there as a sum.
"""

from __future__ import annotations

import torch


def kl_divergence(mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """Return the mean over all entries of KL(N(mean, deviation^2) || N(0, 1)), float32.

    Args:
        mean: of any shape.
        deviation: of the same shape, above 0.
    """
    mean, variance = mean.float(), deviation.float().square()
    return 0.5 * (mean.square() + variance - variance.log() - 1).mean()
