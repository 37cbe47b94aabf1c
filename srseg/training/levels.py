"""The two levels of a bi-level training: the losses of each, and which cases each one sees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from srseg.training.randomness import fold_number, stream_number

LEVELS = ("lower", "upper")
_KEYS = (*LEVELS, "epsilon", "fraction")


@dataclass(frozen=True)
class Levels:
    """The block `bilevel` of a method.

    Attributes:
        losses: of the levels "lower" and "upper": term name -> options, as a method's `losses`.
        epsilon: of `BilevelOptimizer`.
        fraction: share of the training cases that the lower level sees.
    """

    losses: Mapping[str, Mapping[str, Mapping[str, Any]]]
    epsilon: float
    fraction: float


def levels_from_json(content: Any, source: str) -> Levels:
    """Return the levels of a method's block.

    Args:
        content: {"lower": {"losses": {...}}, "upper": {"losses": {...}}, "epsilon": 1e-8,
            "fraction": 0.5}; the last two may be left out.
        source: named in messages.

    Raises:
        ValueError: for unknown or missing keys, or values out of range.
    """
    if not isinstance(content, Mapping) or not set(LEVELS) <= set(content) <= set(_KEYS):
        raise ValueError(
            f"{source}: bilevel must hold lower and upper and may hold epsilon and fraction, got "
            f"{content!r}."
        )
    losses = {}
    for level in LEVELS:
        block = content[level]
        terms = block.get("losses") if isinstance(block, Mapping) else None
        whole = isinstance(terms, Mapping) and set(block) == {"losses"} and terms
        if not whole or not all(isinstance(options, Mapping) for options in terms.values()):
            raise ValueError(
                f"{source}: {level} of bilevel is {block!r}; it must hold losses, and these at "
                "least one term with its options."
            )
        losses[level] = terms
    epsilon = _number(content, "epsilon", 1e-8, source)
    fraction = _number(content, "fraction", 0.5, source)
    if not epsilon > 0:
        raise ValueError(f"{source}: epsilon of bilevel is {epsilon}; it must be above 0.")
    if not 0 < fraction < 1:
        raise ValueError(f"{source}: fraction of bilevel is {fraction}; it must lie in (0, 1).")
    return Levels(losses, epsilon, fraction)


def halves(
    cases: Sequence[str], *, fraction: float, seed: int, fold: int | str
) -> dict[str, list[str]]:
    """Return which cases each level sees: disjoint, together all, at least one each.

    Args:
        cases: the training cases of the fold; their order does not matter.
        fraction: share of the lower level.
        seed: of the training.
        fold: a number or "all".

    Raises:
        ValueError: for fewer than two cases.
    """
    if len(cases) < 2:
        raise ValueError(
            f"a bi-level training gives each level cases of its own and fold {fold} has "
            f"{len(cases)} training case(s); at least 2 are needed."
        )
    key = (seed, fold_number(fold), stream_number("halves"))
    mixed = np.random.default_rng(np.random.SeedSequence(key)).permutation(sorted(cases))
    count = min(max(round(fraction * len(cases)), 1), len(cases) - 1)
    return {"lower": sorted(mixed[:count].tolist()), "upper": sorted(mixed[count:].tolist())}


def _number(content: Mapping[str, Any], key: str, default: float, source: str) -> float:
    value = content.get(key, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise ValueError(f"{source}: {key} of bilevel is {value!r}; it must be a number.")
    return float(value)
