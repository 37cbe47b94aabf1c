"""JSON files for people: lists of numbers on one line, and never half a file."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

# JSON strings hold no line break, so that a bracket before one is never part of a word
_FLAT_LIST = re.compile(r"\[\n[^\[\]{}\"]*\]")
_LONGEST_LIST = 400  # characters; a longer list keeps one entry a line


def as_text(content: Any) -> str:
    """Return `content` as indented JSON, lists of numbers on one line."""

    def on_one_line(match: re.Match[str]) -> str:
        line = " ".join(match[0].split()).replace("[ ", "[").replace(" ]", "]")
        return line if len(line) <= _LONGEST_LIST else match[0]

    text = json.dumps(plain(content), indent=2, allow_nan=False)
    return _FLAT_LIST.sub(on_one_line, text) + "\n"


def write_json(content: Any, file: Path) -> None:
    """Write `content` under a temporary name and rename it: readers see all of it or nothing."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_text(as_text(content), encoding="utf-8")
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """Return a copy in JSON's own types: NumPy's numbers and arrays, tuples and keys converted."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return value.item()
    return value
