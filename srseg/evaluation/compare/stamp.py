"""Folders that know what they were made from, so that a second run keeps what still holds."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from srseg.planning.json_file import as_text, write_json

_STAMP = "srseg_compare.json"


def stamped_folder(folder: Path, identity: Any) -> Path:
    """Return `folder`, emptied unless it was begun from the same `identity`.

    Args:
        folder: is made if it does not exist.
        identity: JSON content; all that its files depend on.

    Raises:
        ValueError: if the folder holds files and no stamp, so is none of ours to empty.
    """
    stamp = folder / _STAMP
    begun = read_stamp(folder)
    if folder.exists() and begun is None and any(folder.iterdir()):
        raise ValueError(f"{folder} holds files that srseg_compare did not write; choose another.")
    digest = _digest(identity)
    if begun is None or begun["identity"] != digest:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json({"identity": digest, "content": None}, stamp)
    return folder


def read_stamp(folder: Path) -> dict[str, Any] | None:
    """Return `{"identity": ..., "content": ...}` of a folder, or None without a stamp.

    The content is None until `complete` was called.
    """
    try:
        stamp = json.loads((folder / _STAMP).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    return stamp if isinstance(stamp, dict) and {"identity", "content"} <= stamp.keys() else None


def content_of(folder: Path, identity: Any) -> Any:
    """Return what `complete` recorded if the folder is complete and of this identity, else None."""
    stamp = read_stamp(folder)
    return (
        stamp["content"] if stamp is not None and stamp["identity"] == _digest(identity) else None
    )


def complete(folder: Path, identity: Any, content: Any) -> None:
    """Mark a folder as complete, with `content` (JSON, not None) for the next run."""
    write_json({"identity": _digest(identity), "content": content}, folder / _STAMP)


def files_identity(files: Iterable[Path]) -> list[list[Any]]:
    """Return name, size and time of change of each file, as JSON content.

    Not the folder: one that is moved or copied with its times is still the same.
    """
    return [[f.name, (s := f.stat()).st_size, s.st_mtime_ns] for f in map(Path, files)]


def _digest(identity: Any) -> str:
    return hashlib.sha256(as_text(identity).encode()).hexdigest()
