"""Weights that change over training: constant, a linear ramp over part of it, or by rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from srseg.training.losses.terms import is_number

Weight = Callable[[float, int], float]  # of (progress, round)


@dataclass(frozen=True)
class Schedule:
    """A weight as a function of training progress in [0, 1].

    Constant at `start` until progress `begin`, then linear to `end` at progress `finish`, then
    constant at `end`.
    """

    start: float
    end: float
    begin: float = 0.0
    finish: float = 1.0

    def __call__(self, progress: float, round: int = 0) -> float:  # noqa: A002
        """Return the weight at `progress` in [0, 1]; rounds change nothing."""
        if progress <= self.begin or self.start == self.end:
            return self.start
        if progress >= self.finish:
            return self.end
        share = (progress - self.begin) / (self.finish - self.begin)
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True)
class RoundSchedule:
    """A weight that grows with the rounds of an alternating training: `per_round` * round."""

    per_round: float

    def __call__(self, progress: float, round: int = 0) -> float:  # noqa: A002
        """Return the weight in a round, counted from 0; progress changes nothing."""
        return self.per_round * round


def schedule_from_json(value: float | Mapping, term: str) -> Weight:
    """Return the schedule of a weight.

    Args:
        value: a number, {"start", "end"[, "begin", "finish"]}, or {"per_round"}.
        term: is named in messages.

    Raises:
        ValueError: for unknown keys, negative weights, or a ramp that ends before it begins.
    """
    given = value if isinstance(value, Mapping) else {"start": value, "end": value}
    ramp = {"start", "end"} <= set(given) <= {"start", "end", "begin", "finish"}
    if not (ramp or set(given) == {"per_round"}) or not all(map(is_number, given.values())):
        raise ValueError(
            f"the weight of loss term '{term}' is {value!r}; allowed: a number, an object with "
            "start, end and optionally begin, finish (shares of training), or one with per_round."
        )
    numbers = {key: float(number) for key, number in given.items()}
    if not ramp:
        if numbers["per_round"] < 0:
            raise ValueError(
                f"the weight of loss term '{term}' is {value!r}; per_round must be >= 0."
            )
        return RoundSchedule(**numbers)
    schedule = Schedule(**numbers)
    if min(schedule.start, schedule.end) < 0 or not 0 <= schedule.begin < schedule.finish <= 1:
        raise ValueError(
            f"the weight of loss term '{term}' is {value!r}; weights must be >= 0 and "
            "0 <= begin < finish <= 1."
        )
    return schedule
