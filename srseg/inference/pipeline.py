"""Reading ahead and writing behind: threads beside the network, with bounded queues.

Threads suffice: decompression, resampling and file writing leave the interpreter lock, nothing is
pickled, and a failing case raises its own error instead of "a worker died".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def computed_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], num_threads: int
) -> Iterator[tuple[Item, Result]]:
    """Yield each item with `function(item)`, in order, at most `num_threads` items early.

    Args:
        function: may raise; its error comes when its item's turn comes.
        items: what to compute.
        num_threads: 0 computes each item when it is asked for.
    """
    if num_threads < 1:
        for item in items:
            yield item, function(item)
        return
    waiting: deque[tuple[Item, Future]] = deque()
    with ThreadPoolExecutor(num_threads, thread_name_prefix="srseg-read") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(function, item)))
                if len(waiting) > num_threads:
                    ready, future = waiting.popleft()
                    yield ready, future.result()
            while waiting:
                ready, future = waiting.popleft()
                yield ready, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


class WriteBehind:
    """Runs functions in the background, at most `num_threads` of them unfinished.

    A context manager: leaving it waits for all, and raises the first error unless another one is
    on its way already. With 0 threads everything runs at once in the caller.
    """

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads
        self._unfinished: deque[Future] = deque()
        self._pool = ThreadPoolExecutor(max(1, num_threads), thread_name_prefix="srseg-write")

    def __enter__(self) -> WriteBehind:
        return self

    def submit(self, function: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Run `function(*args, **options)` soon; raise the error of an earlier one."""
        if self._num_threads < 1:
            function(*args, **options)
            return
        while len(self._unfinished) >= self._num_threads:
            self._unfinished.popleft().result()
        self._unfinished.append(self._pool.submit(function, *args, **options))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            for future in self._unfinished:
                future.result()


@contextmanager
def naming(case: str) -> Iterator[None]:
    """Put the case's name before the message of an error raised inside.

    Raises:
        ValueError: for a wrong file or value.
        RuntimeError: for everything else that can go wrong with one case.
    """
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(_named(case, error)) from error
    except (ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError) as error:
        raise RuntimeError(_named(case, error)) from error


def _named(case: str, error: BaseException) -> str:
    message = str(error) or type(error).__name__
    return message if message.startswith(f"case {case}") else f"case {case}: {message}"
