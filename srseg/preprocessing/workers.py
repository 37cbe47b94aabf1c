"""One function over many cases, in this process or in several, with the case in every error."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from tqdm import tqdm

Task = TypeVar("Task")
Result = TypeVar("Result")

# libraries with threads of their own, and what sets how many: workers already take all cores
_THREADED = {
    "torch": ("OMP_NUM_THREADS", "set_num_threads"),
    "blosc2": ("BLOSC_NTHREADS", "set_nthreads"),
}

# what a case can make the code raise; anything else is no fault of a case
CASE_ERRORS = (ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError)


def for_each_case(
    work: Callable[[Task], Result],
    tasks: Mapping[str, Task],
    *,
    num_processes: int,
    show_progress: bool = True,
    description: str = "Preprocessing cases",
) -> dict[str, Result]:
    """Return `work(task)` of every case, by case.

    Args:
        work: must pickle, as processes are spawned.
        tasks: argument of each case.
        num_processes: 1 works in this process.
        show_progress: a bar, where the output is a terminal.
        description: of the bar.

    Raises:
        RuntimeError: with the case and the worker's message for the first case that fails, or
            when a worker died; cases not begun by then are left out.
    """
    # disable=None: tqdm's own word for "only on a terminal"
    bar = tqdm(total=len(tasks), desc=description, disable=None if show_progress else True)
    run = _in_this_process if num_processes <= 1 or len(tasks) <= 1 else _in_processes
    results = {}
    with bar:
        for case, result in run(work, tasks, num_processes):
            results[case] = result
            bar.update()
    return results


def _in_this_process(
    work: Callable[[Task], Result], tasks: Mapping[str, Task], _: int
) -> Iterator[tuple[str, Result]]:
    for case, task in tasks.items():
        try:
            result = work(task)
        except CASE_ERRORS as error:
            raise _named(case, error) from error
        yield case, result


def _in_processes(
    work: Callable[[Task], Result], tasks: Mapping[str, Task], num_processes: int
) -> Iterator[tuple[str, Result]]:
    executor = ProcessPoolExecutor(
        min(num_processes, len(tasks)),
        mp_context=_context(),
        initializer=_prepare_worker,
        initargs=(os.getpid(),),
    )
    try:
        futures: dict[Future, str] = {executor.submit(work, t): case for case, t in tasks.items()}
        for future in as_completed(futures):
            yield futures[future], _result_of(future, futures[future])
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _result_of(future: Future, case: str) -> Any:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"a worker process died while case {case} or one beside it was preprocessed; the "
            f"usual reason is too little memory: use fewer processes (-np)."
        ) from error
    except CASE_ERRORS as error:
        raise _named(case, error) from error


def _named(case: str, error: Exception) -> RuntimeError:
    message = str(error) or type(error).__name__
    known = message.startswith(f"case {case}")
    return RuntimeError(message if known else f"case {case}: {message}")


def _context() -> multiprocessing.context.BaseContext:
    """Return how workers start: spawned, although they then import for seconds what the work needs.

    Forked from a process that has used blosc2, workers died in or hung on its compressor. On Linux
    a process without any library of `_THREADED` forks, which takes a third off the time of a small
    dataset's fingerprint.
    """
    can_fork = sys.platform == "linux" and not any(name in sys.modules for name in _THREADED)
    return multiprocessing.get_context("fork" if can_fork else "spawn")


def _prepare_worker(parent: int) -> None:
    for name, (variable, setter) in _THREADED.items():
        os.environ[variable] = "1"  # where the work imports the library later
        if name in sys.modules:
            getattr(sys.modules[name], setter)(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    """End this worker when its parent is gone: nobody else would after a kill -9."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
