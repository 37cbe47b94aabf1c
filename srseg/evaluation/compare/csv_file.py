"""compare.csv: a row per method, case and label, and a row of facts per method.

The file stands for itself: committed per-case numbers of several days make one table.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from srseg.evaluation.compare.groups import read_groups
from srseg.evaluation.compare.records import (
    IMAGE,
    SEGMENTATION_METRICS,
    SR_METRICS,
    Comparison,
    Facts,
    Scores,
    Setting,
)

_SETTING = tuple(f.name for f in fields(Setting))
_FACTS = tuple(f.name for f in fields(Facts))
_METRICS = (*SEGMENTATION_METRICS, *SR_METRICS)
_KEYS = (*_SETTING, "method", "case", "group", "label", "label_name")
COLUMNS = (*_KEYS, *_METRICS, *_FACTS)
_WHOLE_NUMBERS = ("steps", "batch_size", "parameters")
_TEXTS = ("reads", "checkpoint", "scale", "hr_spacing_mm", "device")
_SAME = 1e-4
_DIGITS = 6  # significant; enough for every table, and a third of the size


def csv_text(comparison: Comparison) -> str:
    """Return the file's text; values that do not exist are empty."""
    shared = asdict(comparison.setting)
    with io.StringIO(newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for method, scores in comparison.methods.items():
            facts = {k: _text(v) for k, v in asdict(scores.facts).items()}
            writer.writerow({**shared, "method": method, **facts})
            for case in comparison.cases:
                for label, metrics in scores.cases[case].items():
                    name = comparison.label_names.get(label, "")
                    keys = {"case": case, "group": comparison.groups[case], "label": label}
                    numbers = {k: _text(v) for k, v in metrics.items() if k in _METRICS}
                    row = {**shared, "method": method, **keys, "label_name": name, **numbers}
                    writer.writerow(row)
        return stream.getvalue()


def read_results(
    places: Sequence[str | Path],
    *,
    dataset: str | None = None,
    fold: str | None = None,
    plans: str | None = None,
    configuration: str | None = None,
    models: Sequence[str] | None = None,
    groups: str | Path | None = None,
) -> Comparison:
    """Return the comparison that several files of this format make together.

    Args:
        places: CSV files, or folders of them (CSV files of other kinds are passed over there).
        dataset: id or name; only its rows.
        fold: only its rows.
        plans: only theirs.
        configuration: only its rows.
        models: methods to keep; None is all.
        groups: a file of groups instead of the recorded ones; see `read_groups`.

    Raises:
        FileNotFoundError: if a place or any fitting row is missing.
        ValueError: if the rows are of several datasets, folds or the like, a method has two
            different results, or a method is unknown.
    """
    wanted = {"fold": fold, "plans": plans, "configuration": configuration}
    merged = _Merged()
    for file in _files(places):
        for row in _rows(file):
            if all(value in (None, row[key]) for key, value in wanted.items()) and _is_of(
                row["dataset"], dataset
            ):
                merged.add(row, file)
    comparison = merged.comparison(models, places)
    if groups is None:
        return replace(comparison, groups=merged.recorded_groups())
    return replace(comparison, groups=read_groups(groups, comparison.cases))


class _Merged:
    """Rows of several files, put together."""

    def __init__(self) -> None:
        self._settings: dict[Setting, Path] = {}
        self._facts: dict[str, tuple[Facts, Path]] = {}
        self._numbers: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
        self._label_names: dict[str, str] = {}
        self._groups: dict[str, set[str]] = {}

    def add(self, row: Mapping[str, str], file: Path) -> None:
        self._settings.setdefault(Setting(**{key: row[key] for key in _SETTING}), file)
        method, case, label = row["method"], row["case"], row["label"]
        if not case:
            self._add_facts(method, _facts_of(row, file), file)
            return
        if label != IMAGE:
            name = row["label_name"]
            if self._label_names.setdefault(label, name) != name:
                raise ValueError(
                    f"label {label} is {name} in {file} and {self._label_names[label]} in an "
                    "earlier file; name the files that belong to one table."
                )
        self._groups.setdefault(case, set()).add(row["group"])
        numbers = {key: _number(row[key], file) for key in _METRICS if row[key] != ""}
        known = self._numbers.setdefault(method, {}).setdefault(case, {}).setdefault(label, numbers)
        if not _agree(known, numbers):
            first = self._facts[method][1] if method in self._facts else "an earlier file"
            raise ValueError(
                f"{method} has different numbers for case {case} in {first} and {file}; name "
                f"the files that belong to one table."
            )

    def _add_facts(self, method: str, facts: Facts, file: Path) -> None:
        known, first = self._facts.setdefault(method, (facts, file))
        if (known.checkpoint, known.reads) != (facts.checkpoint, facts.reads):
            raise ValueError(
                f"{method} was trained differently in {first} and {file}; name the files that "
                f"belong to one table."
            )

    def recorded_groups(self) -> dict[str, str]:
        """Return the group of each case.

        Raises:
            ValueError: if the files disagree.
        """
        for case, names in self._groups.items():
            if len(names) > 1:
                raise ValueError(
                    f"case {case} is in the groups {' and '.join(sorted(names))} in these files; "
                    "say which by -groups."
                )
        return {case: next(iter(names)) for case, names in self._groups.items()}

    def comparison(self, models: Sequence[str] | None, places: Sequence[str | Path]) -> Comparison:
        if not self._numbers:
            raise FileNotFoundError(
                f"no rows in {', '.join(map(str, places))} fit what -d, -f, -c and -p ask for."
            )
        if len(self._settings) > 1:
            kinds = "; ".join(
                f"{' '.join(asdict(setting).values())} in {file}"
                for setting, file in self._settings.items()
            )
            raise ValueError(
                f"the files hold several comparisons ({kinds}); choose by -d, "
                "-f, -c or -p, or name one of the files."
            )
        unknown = [name for name in models or () if name not in self._numbers]
        if unknown:
            raise ValueError(
                f"unknown model '{unknown[0]}' in these files; known: {', '.join(self._numbers)}."
            )
        lacking = [name for name in self._numbers if name not in self._facts]
        if lacking:
            raise ValueError(f"{lacking[0]} has numbers but no row that says what it is.")
        methods = {
            name: Scores(self._facts[name][0], cases)
            for name, cases in self._numbers.items()
            if models is None or name in models
        }
        cases = dict.fromkeys(self._groups, "")
        return Comparison(next(iter(self._settings)), methods, self._label_names, cases)


def _files(places: Sequence[str | Path]) -> list[Path]:
    """Return the CSV files of this format."""
    files: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            found = [file for file in sorted(place.glob("*.csv")) if _is_ours(file)]
            if not found:
                raise FileNotFoundError(f"the folder {place} has no CSV file of srseg_compare.")
            files += found
        elif not place.is_file():
            raise FileNotFoundError(f"there is no file or folder {place}.")
        elif not _is_ours(place):
            raise ValueError(f"'{place}' is no CSV file of srseg_compare.")
        else:
            files.append(place)
    return files


def _is_ours(file: Path) -> bool:
    with file.open(encoding="utf-8", newline="") as opened:
        heading = next(csv.reader(opened), [])
    return set(_KEYS) <= set(heading)


def _rows(file: Path) -> list[dict[str, str]]:
    """Return the rows; a column that an older file lacks is empty."""
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened, restval=""))
    return [{**dict.fromkeys(COLUMNS, ""), **row} for row in rows]


def _is_of(name: str, dataset: str | None) -> bool:
    if dataset is None or name == dataset:
        return True
    prefix = f"Dataset{int(dataset):03d}" if dataset.isdecimal() else dataset
    return name.split("_")[0] == prefix


def _facts_of(row: Mapping[str, str], file: Path) -> Facts:
    values: dict[str, Any] = {}
    for key in _FACTS:
        text = row[key]
        if text == "":
            values[key] = None
        elif key in _TEXTS:
            values[key] = text
        else:
            number = _number(text, file)
            values[key] = int(number) if key in _WHOLE_NUMBERS else number
    return Facts(**values)


def _number(text: str, file: Path) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"'{file}' has '{text}' where a number belongs.") from error


def _agree(numbers: Mapping[str, float], others: Mapping[str, float]) -> bool:
    """Return whether two rows are of one result: machines differ in the last digits."""
    return numbers.keys() == others.keys() and all(
        math.isclose(value, others[key], rel_tol=_SAME, abs_tol=_SAME)
        for key, value in numbers.items()
    )


def _text(value: Any) -> str:
    """Return a value as it stands in the file: not finite or None is empty."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value)
