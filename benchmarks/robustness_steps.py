"""How the steps of a robustness report run: each once, as a command of its own, into the log."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustness import Report

_RUN = "import sys; from srseg.cli.{} import main; sys.exit(main(sys.argv[1:]))"


def once(target: Path, make: Callable[[Path], None]) -> Path:
    """Return `target` after `make` filled it under another name, unless it is there already."""
    if not target.exists():
        unfinished = target.with_name(f".{target.name}.tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        unfinished.mkdir()
        make(unfinished)
        unfinished.replace(target)
    return target


def command(name: str, *arguments: object) -> list[str]:
    """Return a command of srseg, run by this Python."""
    return [sys.executable, "-c", _RUN.format(name), *map(str, arguments)]


def run(words: Sequence[str], report: Report) -> None:
    """Run a command; what it says goes to the report's log.

    Raises:
        RuntimeError: with the end of what it said, if it fails.
    """
    log = report.folder / "log.txt"
    threads = str(report.args.threads)
    variables = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with log.open("a", encoding="utf-8") as stream:
        shown = " ".join(word for word in words[1:] if not word.startswith("import sys;"))
        stream.write(f"\n$ {shown}\n")
        stream.flush()
        start = stream.tell()
        status = subprocess.run(
            words, env=variables, stdout=stream, stderr=subprocess.STDOUT, check=False
        ).returncode
    if status:
        said = log.read_bytes()[start:].decode(errors="replace").strip().splitlines()
        raise RuntimeError(f"'{shown}' ended with {status}: {' '.join(said[-3:])}")


def linked(files: Mapping[str, Path]) -> Callable[[Path], None]:
    """Return what fills a folder with links: name -> file."""

    def make(folder: Path) -> None:
        for name, file in files.items():
            (folder / name).symlink_to(file.resolve())

    return make
