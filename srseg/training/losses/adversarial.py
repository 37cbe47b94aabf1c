"""What generators and discriminators descend, from the discriminator's scores.

Least squares after Mao et al. (ICCV 2017), on scores without a sigmoid; hinge after Lim & Ye
(2017). All in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

ADVERSARIAL_LOSSES = ("least_squares", "hinge")
# the least that a discriminator loses which cannot tell real from made
CHANCE = {"least_squares": 0.25, "hinge": 1.0}
_Scores = torch.Tensor


def _checked(kind: str) -> str:
    if kind not in ADVERSARIAL_LOSSES:
        raise ValueError(
            f"unknown adversarial loss '{kind}'; known: {', '.join(ADVERSARIAL_LOSSES)}."
        )
    return kind


_REAL: dict[str, Callable[[_Scores], torch.Tensor]] = {
    "least_squares": lambda scores: (scores - 1).square().mean(),
    "hinge": lambda scores: (1 - scores).relu().mean(),
}
_FAKE: dict[str, Callable[[_Scores], torch.Tensor]] = {
    "least_squares": lambda scores: scores.square().mean(),
    "hinge": lambda scores: (1 + scores).relu().mean(),
}
_FOOLED: dict[str, Callable[[_Scores], torch.Tensor]] = {
    "least_squares": _REAL["least_squares"],
    "hinge": lambda scores: -scores.mean(),
}


def discriminator_loss(kind: str, real: _Scores, fake: _Scores) -> torch.Tensor:
    """Return half the sum of the errors on real and on made images.

    Args:
        kind: one of `ADVERSARIAL_LOSSES`.
        real: the discriminator's scores of real images.
        fake: of made ones, which are detached from their generator.

    Raises:
        ValueError: for an unknown kind.
    """
    _checked(kind)
    return 0.5 * (_REAL[kind](real.float()) + _FAKE[kind](fake.float()))


def generator_loss(kind: str, fake: _Scores) -> torch.Tensor:
    """Return how far the discriminator is from taking `fake`, its scores of made images, for real.

    Raises:
        ValueError: for an unknown kind.
    """
    return _FOOLED[_checked(kind)](fake.float())
