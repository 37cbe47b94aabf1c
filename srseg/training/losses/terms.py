"""What a loss term is: how it is made, which options it takes, what it may look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.degradation.degradation import Degradation
from srseg.networks.output import JointOutput

Term = Callable[[JointOutput, Mapping[str, Any]], torch.Tensor]
REQUIRED = object()  # the default of an option that must be given


@dataclass(frozen=True)
class LossContext:
    """What terms must know of the configuration.

    Attributes:
        label_manager: nnU-Net's.
        batch_dice: Dice over the batch instead of per sample (from the plans).
        scale: HR voxels per LR voxel, one entry per axis of the batches (2 for a 2d
            configuration).
        ddp: whether gradients are gathered over processes.
        degradation: the planned one, always with three axes: 2-D batches are one slice of it.
            None where no term needs it.
    """

    label_manager: LabelManager
    batch_dice: bool
    scale: tuple[int, ...]
    ddp: bool = False
    degradation: Degradation | None = None

    @property
    def hr_spacing(self) -> tuple[float, ...]:
        """Mm per axis of the batches; ones where there is no degradation to say it."""
        if self.degradation is None:
            return (1.0,) * len(self.scale)
        return self.degradation.hr_spacing[-len(self.scale) :]


@dataclass(frozen=True)
class Option:
    """One option of a term.

    Attributes:
        default: its value when it is not given, or `REQUIRED`.
        allowed: in words, what it may be.
        fits: whether a value from a JSON file is allowed.
    """

    default: Any
    allowed: str
    fits: Callable[[Any], bool]


@dataclass(frozen=True)
class TermSpec:
    """A registered term.

    Attributes:
        factory: (context, **options) -> term; all options are given.
        options: what it takes beside `weight`.
        needs_sr: whether it looks at the SR image.
        skipped_at_zero: not computed (and logged as 0) while its weight is 0; for terms on the SR
            image.
    """

    factory: Callable[..., Term]
    options: Mapping[str, Option] = field(default_factory=dict)
    needs_sr: bool = False
    skipped_at_zero: bool = False


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a finite number (true and false are none)."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def is_positive(value: Any) -> bool:
    """Return whether a JSON value is a finite number above 0."""
    return is_number(value) and value > 0


def is_share(value: Any) -> bool:
    """Return whether a JSON value is a number above 0 and below 1."""
    return is_number(value) and 0 < value < 1


def one_of(default: str, names: Collection[str]) -> Option:
    """Return an option that is one of some names."""
    known = tuple(names)
    return Option(default, f"one of {', '.join(known)}", lambda value: value in known)


def checked_options(name: str, spec: TermSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a term without its weight, defaults filled in.

    Raises:
        ValueError: for an option that is unknown, missing or out of range; the known ones are
            listed.
    """
    known = ", ".join(("weight", *spec.options))
    unknown = sorted(set(given) - set(spec.options) - {"weight"})
    if unknown:
        raise ValueError(f"loss term '{name}' has the unknown options {unknown}; known: {known}.")
    options = {key: given.get(key, option.default) for key, option in spec.options.items()}
    missing = [key for key, value in options.items() if value is REQUIRED]
    if missing or "weight" not in given:
        missing = missing if "weight" in given else ["weight", *missing]
        raise ValueError(f"loss term '{name}' lacks the options {missing}; known: {known}.")
    for key, value in options.items():
        if not spec.options[key].fits(value):
            raise ValueError(
                f"the option '{key}' of loss term '{name}' is {value!r}; "
                f"allowed: {spec.options[key].allowed}."
            )
    return options
