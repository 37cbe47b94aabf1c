"""JSON files: an exact round trip, readable lists, and never half a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from srseg.planning.json_file import as_text, plain, write_json

CONTENT = {
    "patch_size": (3, np.int64(4), 5),
    "spacing": np.array([0.1, 2.5]),
    "strides": [[1, 2], [2, 2]],
    "words": "a [ 1,  2 ] and {x}",
    "names": ["a [b", "c]  d"],
    "flag": np.bool_(True),
    "nothing": None,
    0: {"empty": [], "deep": {"list": [1.0]}},
}


def test_round_trip_is_exact():
    assert json.loads(as_text(CONTENT)) == plain(CONTENT)


def test_lists_of_numbers_stand_on_one_line():
    assert '"patch_size": [3, 4, 5]' in as_text(CONTENT)
    assert "    [1, 2],\n" in as_text(CONTENT)


def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(tmp_path: Path):
    file = tmp_path / "plans.json"
    write_json({"a": 1}, file)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"a": float("nan")}, file)
    assert json.loads(file.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "plans.json"
    write_json({"a": 1}, file)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_json({"a": 2}, file)
    monkeypatch.undo()
    assert json.loads(file.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]
