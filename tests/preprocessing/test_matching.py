"""A side alone: channel numbers, or names of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from srseg.preprocessing.matching import match_by_name


@pytest.mark.parametrize(
    ("names", "cases"),
    [
        ("a_0000 a_0001 b_0000 b_0001", ["a", "b"]),
        ("a b", ["a", "b"]),
        ("a_0001 a_0002", ["a_0001", "a_0002"]),
        ("a_0000", ["a"]),
        ("a_0107", ["a_0107"]),
    ],
)
def test_a_side_alone(names, cases):
    found = match_by_name({"moving": [Path(f"{name}.nii.gz") for name in names.split()]})
    assert list(found["moving"]) == cases
