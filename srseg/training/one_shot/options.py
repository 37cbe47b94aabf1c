"""The block `one_shot` of a method file, read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from srseg.training.losses.terms import is_number, is_positive

# Bi-JROS's; of the terms that the levels add up
_WEIGHTS = {
    "lncc": 1.0,
    "smoothness": 1.0,
    "inverse_consistency": 10.0,
    "dice": 1.0,
    "segmentation": 1.0,
}


@dataclass(frozen=True)
class OneShotOptions:
    """How a one-shot training proceeds.

    Attributes:
        atlas: the case whose labels are used; None for the training case whose size is nearest to
            the images without labels.
        joint_share: share of training, from its beginning, in which the encoder and both decoders
            descend together; then the encoder is frozen and the decoders take bi-level steps.
        window: HR voxels of the LNCC's windows.
        weights: of the terms; those given replace the defaults.
        mix: between which the share of the image itself in the pseudo image is drawn.
        epsilon: of the bi-level step.
    """

    atlas: str | None = None
    joint_share: float = 0.85
    window: int = 9
    weights: Mapping[str, float] = field(default_factory=lambda: dict(_WEIGHTS))
    mix: tuple[float, float] = (0.6, 0.95)
    epsilon: float = 1e-8


def one_shot_from_json(block: Mapping[str, Any], source: str) -> OneShotOptions:
    """Return the options of a method file's block.

    Args:
        block: the content; keys that are left out have their defaults.
        source: names the file in messages.

    Raises:
        ValueError: for an unknown key (the known ones are listed) or a value that is not allowed.
    """
    known = [entry.name for entry in fields(OneShotOptions)]
    unknown = sorted(set(block) - set(known))
    if unknown:
        raise ValueError(
            f"{source}: unknown keys {unknown} in one_shot; known: {', '.join(known)}."
        )
    weights = block.get("weights", {})
    fits = {
        "atlas": lambda v: v is None or (isinstance(v, str) and v != ""),
        "joint_share": lambda v: is_number(v) and 0 <= v <= 1,
        "window": lambda v: type(v) is int and v >= 3 and v % 2 == 1,
        "weights": lambda v: (
            isinstance(v, Mapping)
            and set(v) <= set(_WEIGHTS)
            and all(is_number(w) and w >= 0 for w in v.values())
        ),
        "mix": lambda v: (
            isinstance(v, list | tuple)
            and len(v) == 2
            and all(is_number(n) for n in v)
            and 0 <= v[0] <= v[1] <= 1
        ),
        "epsilon": is_positive,
    }
    allowed = {
        "atlas": "null or the name of a case",
        "joint_share": "a number from 0 to 1",
        "window": "an odd whole number from 3 on",
        "weights": f"numbers from 0 on for some of {', '.join(_WEIGHTS)}",
        "mix": "two numbers from 0 to 1, the lower one first",
        "epsilon": "a number above 0",
    }
    for key, value in block.items():
        if not fits[key](value):
            raise ValueError(f"{source}: one_shot.{key} is {value!r}; allowed: {allowed[key]}.")
    changed = {"weights": {**_WEIGHTS, **weights}}
    if "mix" in block:
        changed["mix"] = tuple(block["mix"])
    return OneShotOptions(**{**block, **changed})
