"""Stop between two steps, not inside one: SIGINT and SIGTERM become a request."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from typing import Any

logger = logging.getLogger(__name__)


class StopRequest:
    """False until the process is asked to stop."""

    def __init__(self) -> None:
        self.made = False

    def __bool__(self) -> bool:
        return self.made

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Turn SIGINT and SIGTERM into a request; outside the main thread leave them alone."""

        def request(*_: Any) -> None:
            self.made = True
            logger.info("stop requested: saving after this step")

        previous: dict[int, Callable | int | None] = {}
        with contextlib.suppress(ValueError):  # signals belong to the main thread
            for number in (signal.SIGINT, signal.SIGTERM):
                previous[number] = signal.signal(number, request)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
