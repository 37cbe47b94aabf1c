"""Weights that change over training: constant or a linear ramp over part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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

    def __call__(self, progress: float) -> float:
        """Return the weight at `progress` in [0, 1]."""
        if progress <= self.begin or self.start == self.end:
            return self.start
        if progress >= self.finish:
            return self.end
        share = (progress - self.begin) / (self.finish - self.begin)
        return self.start + share * (self.end - self.start)


def schedule_from_json(value: float | Mapping, term: str) -> Schedule:
    """Return the schedule of a weight: a number, or {"start", "end"[, "begin", "finish"]}.

    Raises:
        ValueError: for unknown keys, negative weights, or a ramp that ends before it begins.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        schedule = Schedule(float(value), float(value))
    elif isinstance(value, Mapping) and {"start", "end"} <= set(value) <= {
        "start",
        "end",
        "begin",
        "finish",
    }:
        schedule = Schedule(**{key: float(number) for key, number in value.items()})
    else:
        raise ValueError(
            f"the weight of loss term '{term}' is {value!r}; allowed: a number, or an object with "
            "start, end and optionally begin, finish (shares of training)."
        )
    if min(schedule.start, schedule.end) < 0 or not 0 <= schedule.begin < schedule.finish <= 1:
        raise ValueError(
            f"the weight of loss term '{term}' is {value!r}; weights must be >= 0 and "
            "0 <= begin < finish <= 1."
        )
    return schedule
