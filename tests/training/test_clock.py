"""Progress follows the epochs or the time budget, across stops."""

import pytest

from srseg.training.clock import TrainingClock


def test_epochs_give_progress_by_iteration():
    clock = TrainingClock(num_epochs=4, iterations_per_epoch=10)
    assert clock.progress(1, 5) == pytest.approx(15 / 40)
    assert not clock.finished(3, 9)
    assert clock.finished(4)


def test_budget_counts_time_of_all_runs_but_not_the_pause():
    now = [100.0]
    clock = TrainingClock(1000, 10, budget_seconds=60.0, spent_seconds=15.0, now=lambda: now[0])
    assert clock.progress(0, 0) == pytest.approx(0.25)
    clock.start()
    now[0] = 130.0
    assert clock.progress(500, 3) == pytest.approx(0.75)
    assert not clock.finished(999)
    now[0] = 145.0
    assert clock.finished(0)
    assert clock.progress(0, 0) == 1.0
