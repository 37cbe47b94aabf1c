"""How a command runs: logging is set up, and a user's mistake becomes one line and status 1."""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

USER_ERRORS = (
    ValueError,
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    RuntimeError,
)


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import what is heavy inside this block.

    The garbage collector would look at a million objects of torch's modules several times meanwhile
    and once more at the end of the process: a second in all.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def run_command(
    command: Callable[[argparse.Namespace], int | None], args: argparse.Namespace
) -> int:
    """Return the exit status of `command(args)`: 0, or 1 after one line on stderr.

    With `args.verbose` the traceback is printed too. Workers' errors arrive as RuntimeError with
    the case in their message.
    """
    from srseg import environment

    verbose = bool(getattr(args, "verbose", False))
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(message)s", stream=sys.stdout
    )
    for name in ("matplotlib", "PIL", "h5py", "numexpr", "blosc2"):  # their own chatter
        logging.getLogger(name).setLevel(logging.WARNING)
    environment.prepare()
    try:
        return command(args) or 0
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept.", file=sys.stderr)
        return 130
    except USER_ERRORS as error:
        if verbose:
            traceback.print_exc()
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 1


def _one_line(error: BaseException) -> str:
    """Return what went wrong in one line; of a worker's traceback that is the last one."""
    text = str(error).strip()
    if "Traceback (most recent call last)" in text:
        _, _, text = text.splitlines()[-1].partition(": ")
    return " ".join(text.split()) or type(error).__name__
