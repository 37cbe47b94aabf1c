"""Files of groups: JSON, CSV with and without heading, and what is refused."""

from __future__ import annotations

import pytest

from srseg.evaluation.compare.groups import read_groups

CASES = ["patient001_frame01", "patient001_frame12"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("g.json", '{"patient001_frame01": 1, "patient001_frame12": 1, "another": 2}'),
        ("g.csv", "case,group\npatient001_frame01,1\npatient001_frame12,1\n"),
        ("g.csv", "patient001_frame01, 1\n\npatient001_frame12, 1,more\n"),
    ],
)
def test_groups_are_read(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_groups(tmp_path / name, CASES) == dict.fromkeys(CASES, "1")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("g.json", "{", "is not valid JSON"),
        ("g.json", '{"a": ["b"]}', "must hold one object of case: group"),
        ("g.json", "[1]", "must hold one object"),
        ("g.csv", "patient001_frame01\n", "must have two columns"),
        ("g.csv", "patient001_frame01,\n", "case 'patient001_frame01' has an empty group"),
        ("g.json", '{"patient001_frame01": null}', "case 'patient001_frame01' has an empty group"),
        ("g.csv", "a,1\na,1\na,2\n", "case 'a' is in the groups 1 and 2"),
        ("g.csv", "patient001_frame01,1\n", r"1 case\(s\) have no group in .*patient001_frame12"),
    ],
)
def test_other_files_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_groups(tmp_path / name, CASES)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.csv' does not exist"):
        read_groups(tmp_path / "none.csv", CASES)
