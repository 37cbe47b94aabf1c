"""Errors name their case, dead workers are noticed, and results are the same in any number."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from srseg.preprocessing import workers
from srseg.preprocessing.workers import for_each_case

TASKS = {"a": 1, "b": 2, "c": 3}


def square(number: int) -> tuple[int, int]:
    return number**2, os.getpid()


def fail_at_two(number: int) -> int:
    if number == 2:
        raise ValueError("the image is upside down.")
    return number


def fail_by_name(number: int) -> None:
    raise FileNotFoundError(f"case {'abc'[number - 1]} has no file x.")


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def number_of_threads(_: int) -> int:
    return torch.get_num_threads()


def slow(folder: Path) -> None:
    (folder / "begun").touch()
    time.sleep(30)


def run(work, num_processes, tasks=TASKS):
    return for_each_case(work, tasks, num_processes=num_processes, show_progress=False)


@pytest.mark.parametrize("num_processes", [1, 2, 8])
def test_results_by_case(num_processes):
    results = run(square, num_processes)
    assert {case: value for case, (value, _) in results.items()} == {"a": 1, "b": 4, "c": 9}
    in_this_process = {pid == os.getpid() for _, pid in results.values()}
    assert in_this_process == {num_processes == 1}


@pytest.mark.parametrize("num_processes", [1, 2])
def test_an_error_names_its_case(num_processes):
    with pytest.raises(RuntimeError, match=r"^case b: the image is upside down\.$"):
        run(fail_at_two, num_processes)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_case_is_not_named_twice(num_processes):
    with pytest.raises(RuntimeError, match=r"^case [abc] has no file x\.$"):
        run(fail_by_name, num_processes)


def test_a_dead_worker_is_noticed():
    with pytest.raises(RuntimeError, match=r"a worker process died .*too little memory"):
        run(die, 2)


def test_workers_use_one_thread_each():
    assert set(run(number_of_threads, 2).values()) == {1}


def test_nothing_to_do():
    assert run(square, 2, {}) == {}


def test_spawned_workers_do_the_same(monkeypatch):
    monkeypatch.setattr(workers, "_context", lambda: multiprocessing.get_context("spawn"))
    assert {value for value, _ in run(abs_pair, 2).values()} == {1, 2, 3}


def abs_pair(number: int) -> tuple[int, int]:
    return abs(number), 0


def test_no_worker_outlives_its_parent(tmp_path):
    """Killed with -9, a parent cannot tell its workers; they notice."""
    context = multiprocessing.get_context("fork")
    parent = context.Process(target=run, args=(slow, 2, {"a": tmp_path, "b": tmp_path}))
    parent.start()
    wait_until(lambda: (tmp_path / "begun").exists())
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    if not children.is_file():
        parent.kill()
        pytest.skip("no list of child processes on this system")
    worker_pids = [int(pid) for pid in children.read_text().split()]
    assert len(worker_pids) == 2
    parent.kill()
    parent.join()
    wait_until(lambda: not any(is_running(pid) for pid in worker_pids))


def is_running(pid: int) -> bool:
    """Return whether a process is there and more than a zombie that nobody fetched."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
