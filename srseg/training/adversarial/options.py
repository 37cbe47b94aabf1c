"""The block `adversarial` of a method file: what judges the network, and how much that counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from srseg.networks.discriminator import NORMALISATIONS
from srseg.training.adversarial.judged_pairs import MASKS
from srseg.training.losses.adversarial import ADVERSARIAL_LOSSES
from srseg.training.losses.schedule import Weight, schedule_from_json
from srseg.training.losses.terms import is_share
from srseg.training.optimizer import check_optimizer

JUDGES = {"both": (True, True), "image": (True, False), "segmentation": (False, True)}
_OPTIMIZER = {"name": "adam", "learning_rate": 0.0005, "betas": [0.5, 0.999]}
_CHOICES = {
    "judges": tuple(JUDGES),
    "loss": ADVERSARIAL_LOSSES,
    "masks": MASKS,
    "normalisation": NORMALISATIONS,
}
_COLLAPSE = {"below": 0.01, "steps": 500}
_KEYS = (*_CHOICES, "weight", "widths", "optimizer", "collapse")


@dataclass(frozen=True)
class AdversarialOptions:
    """How a discriminator takes part in a training.

    Attributes:
        weight: of the generator's adversarial term, a function of the progress.
        judges: what the discriminator sees, a key of `JUDGES`: the image and the segmentation
            together, or one of them alone.
        loss: one of `ADVERSARIAL_LOSSES`.
        masks: how probabilities and true masks are made comparable, one of `MASKS`.
        normalisation, widths: of the discriminator.
        optimizer: of the discriminator, as a method's own.
        collapse_below: its loss, as a share of what guessing costs, under which it has won.
        collapse_steps: how many steps in a row end the training; 0 for no guard.
    """

    weight: Weight
    judges: str = "both"
    loss: str = "least_squares"
    masks: str = "straight_through"
    normalisation: str = "spectral"
    widths: tuple[int, ...] = (16, 32, 64, 64)
    optimizer: Mapping[str, Any] = field(default_factory=lambda: dict(_OPTIMIZER))
    collapse_below: float = _COLLAPSE["below"]
    collapse_steps: int = int(_COLLAPSE["steps"])

    @property
    def sees_image(self) -> bool:
        """Whether the discriminator sees the SR image."""
        return JUDGES[self.judges][0]

    @property
    def sees_segmentation(self) -> bool:
        """Whether the discriminator sees the segmentation."""
        return JUDGES[self.judges][1]


def adversarial_from_json(content: Mapping[str, Any], source: str) -> AdversarialOptions:
    """Return the options of a method's block `adversarial`; only `weight` is required.

    Raises:
        ValueError: for unknown keys, a missing weight or values that are not allowed; `source` is
            named.
    """
    unknown = sorted(set(content) - set(_KEYS))
    if unknown or "weight" not in content:
        raise ValueError(
            f"{source}: adversarial has the keys {sorted(content)}; weight is required, "
            f"known: {', '.join(_KEYS)}."
        )
    for key, allowed in _CHOICES.items():
        if key in content and content[key] not in allowed:
            raise ValueError(
                f"{source}: {key} of adversarial is {content[key]!r}; "
                f"allowed: {', '.join(allowed)}."
            )
    given: dict[str, Any] = {key: content[key] for key in _CHOICES if key in content}
    if isinstance(content["weight"], Mapping) and "per_round" in content["weight"]:
        raise ValueError(f"{source}: the weight of adversarial is per_round, but it has no rounds.")
    given["weight"] = schedule_from_json(content["weight"], "adversarial")
    if "widths" in content:
        given["widths"] = _widths(content["widths"], source)
    if "optimizer" in content:
        given["optimizer"] = _optimizer(content["optimizer"], source)
    if "collapse" in content:
        given |= _collapse(content["collapse"], source)
    return AdversarialOptions(**given)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _widths(widths: Any, source: str) -> tuple[int, ...]:
    fits = isinstance(widths, list | tuple) and widths and all(_is_count(w, 1) for w in widths)
    if not fits:
        raise ValueError(
            f"{source}: widths of adversarial is {widths!r}; it must list whole numbers above 0."
        )
    return tuple(widths)


def _optimizer(options: Any, source: str) -> dict[str, Any]:
    if not isinstance(options, Mapping):
        raise ValueError(f"{source}: optimizer of adversarial is {options!r}; it is no object.")
    try:
        check_optimizer(options)
    except ValueError as error:
        raise ValueError(f"{source}, adversarial: {error}") from error
    return dict(options)


def _collapse(limits: Any, source: str) -> dict[str, Any]:
    if not isinstance(limits, Mapping) or not set(limits) <= set(_COLLAPSE):
        raise ValueError(
            f"{source}: collapse of adversarial is {limits!r}; it holds {', '.join(_COLLAPSE)}."
        )
    limits = {**_COLLAPSE, **limits}
    if not is_share(limits["below"]) or not _is_count(limits["steps"], 0):
        raise ValueError(
            f"{source}: collapse of adversarial is {limits!r}; below must lie between 0 and 1, "
            "steps must be a whole number, 0 for no guard."
        )
    return {"collapse_below": float(limits["below"]), "collapse_steps": limits["steps"]}
