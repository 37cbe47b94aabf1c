"""How far training is: by epochs, or by a time budget. The schedules follow it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class TrainingClock:
    """Progress of training in [0, 1] and when it ends.

    With a time budget, progress is the share of it that was spent in training (time between a
    stop and its resume, and final validation, do not count); else the share of iterations.

    Attributes:
        num_epochs: epochs to train where no time budget is given.
        iterations_per_epoch: optimiser steps per epoch.
        budget_seconds: training time, or None.
        spent_seconds: time trained before this run (from a checkpoint).
        now: the clock, replaceable in tests.
    """

    num_epochs: int
    iterations_per_epoch: int
    budget_seconds: float | None = None
    spent_seconds: float = 0.0
    now: Callable[[], float] = time.monotonic
    _started: float | None = field(default=None, repr=False)

    def start(self) -> None:
        """Begin to count the time of this run."""
        self._started = self.now()

    def elapsed(self) -> float:
        """Return the seconds trained so far, earlier runs included."""
        running = 0.0 if self._started is None else self.now() - self._started
        return self.spent_seconds + running

    def progress(self, epoch: int, iteration: int) -> float:
        """Return the share of training done before `iteration` of `epoch`."""
        if self.budget_seconds is not None:
            return min(1.0, self.elapsed() / self.budget_seconds)
        total = max(1, self.num_epochs * self.iterations_per_epoch)
        return min(1.0, (epoch * self.iterations_per_epoch + iteration) / total)

    def finished(self, epoch: int, iteration: int = 0) -> bool:
        """Return whether training is over before `iteration` of `epoch`."""
        if self.budget_seconds is not None:
            return self.elapsed() >= self.budget_seconds
        return epoch >= self.num_epochs
