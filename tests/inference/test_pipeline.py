"""Threads beside the network: order, bounds and errors."""

from __future__ import annotations

import threading
import time

import pytest

from srseg.inference.pipeline import WriteBehind, computed_ahead, naming


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_results_come_in_order(num_threads):
    def slow_for_even(item):
        time.sleep(0.01 * (item % 2 == 0))
        return item * item

    actual = list(computed_ahead(slow_for_even, range(7), num_threads))
    assert actual == [(i, i * i) for i in range(7)]


@pytest.mark.parametrize("num_threads", [1, 2])
def test_never_more_than_the_threads_ahead(num_threads):
    begun = []
    for item, _ in computed_ahead(lambda i: begun.append(i), range(8), num_threads):
        time.sleep(0.01)
        assert len(begun) <= item + 1 + num_threads
    assert sorted(begun) == list(range(8))


def test_reading_runs_beside_the_caller():
    threads = {t for _, t in computed_ahead(lambda _: threading.current_thread().name, range(3), 1)}
    assert threading.current_thread().name not in threads


@pytest.mark.parametrize("num_threads", [0, 1])
def test_an_error_comes_at_its_item_s_turn(num_threads):
    def fails_at_two(item):
        if item == 2:
            raise ValueError("two is wrong")
        return item

    results = computed_ahead(fails_at_two, range(5), num_threads)
    assert [next(results), next(results)] == [(0, 0), (1, 1)]
    with pytest.raises(ValueError, match="two is wrong"):
        next(results)


@pytest.mark.parametrize("num_threads", [0, 1, 2])
def test_all_is_written_at_the_end(num_threads):
    written = []

    def write(item, *, delay):
        time.sleep(delay)
        written.append(item)

    with WriteBehind(num_threads) as writer:
        for item in range(5):
            writer.submit(write, item, delay=0.01)
    assert sorted(written) == list(range(5))


@pytest.mark.parametrize("position", [0, 4])
def test_an_error_of_writing_is_raised(position):
    def write(item):
        if item == position:
            raise RuntimeError(f"disk full at {item}")

    def write_all():
        with WriteBehind(1) as writer:
            for item in range(5):
                writer.submit(write, item)

    with pytest.raises(RuntimeError, match=f"disk full at {position}"):
        write_all()


def test_the_caller_s_own_error_wins_and_writing_ends_first():
    written = []

    def write():
        time.sleep(0.02)
        written.append(1)

    def fail_after_submitting():
        with WriteBehind(1) as writer:
            writer.submit(write)
            raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        fail_after_submitting()
    assert written == [1]


def test_errors_carry_the_case():
    with pytest.raises(ValueError, match="^case a: no such"), naming("a"):
        raise FileNotFoundError("no such file")
    with pytest.raises(ValueError, match="^case a is odd"), naming("a"):
        raise ValueError("case a is odd")
    with pytest.raises(RuntimeError, match="^case a: MemoryError"), naming("a"):
        raise MemoryError
