"""Which cases belong together, such as two scans of one patient: from a JSON or CSV file."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

_HEADING = "case"


def read_groups(file: str | Path, cases: Sequence[str]) -> dict[str, str]:
    """Return the group of each case.

    Args:
        file: JSON, `{"case": "group", ...}`, or CSV with the columns case and group (a first line
            that begins with "case" is a heading).
        cases: those to be grouped; the file may know more.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is neither, lacks a case, or has none or two groups for one.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"the file of groups '{file}' does not exist.")
    rows = _from_json(file) if file.suffix.lower() == ".json" else _from_csv(file)
    known: dict[str, str] = {}
    for case, group in rows:
        if not group:
            raise ValueError(f"case '{case}' has an empty group in '{file}'; give it one.")
        if known.setdefault(case, group) != group:
            raise ValueError(
                f"case '{case}' is in the groups {known[case]} and {group} in '{file}'; give one."
            )
    missing = [case for case in cases if case not in known]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ValueError(f"{len(missing)} case(s) have no group in '{file}': {shown}.")
    return {case: known[case] for case in cases}


def _from_json(file: Path) -> list[tuple[str, str]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"the file of groups '{file}' is not valid JSON: {error}.") from error
    if not isinstance(content, dict) or any(isinstance(v, list | dict) for v in content.values()):
        raise ValueError(f"the file of groups '{file}' must hold one object of case: group.")
    return [(case, "" if group is None else str(group)) for case, group in content.items()]


def _from_csv(file: Path) -> list[tuple[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        lines = [line for line in csv.reader(opened) if line]
    if any(len(line) < 2 for line in lines):
        raise ValueError(f"the file of groups '{file}' must have two columns, case and group.")
    if lines and lines[0][0].strip().lower() == _HEADING:
        lines = lines[1:]
    return [(case.strip(), group.strip()) for case, group, *_ in lines]
