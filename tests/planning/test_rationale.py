"""The sentences of the rationale say what happened."""

from __future__ import annotations

import numpy as np
import pytest

from srseg.degradation.spec import default_degradation, paired_spec
from srseg.planning import rationale
from srseg.planning.grids import Cases, PlannedGrids, Wishes
from srseg.planning.scale_rule import ScaleChoice

BLOCK = {"paired": False, "num_cases": 9, "interpolated_cases": [0, 4, 0]}


@pytest.fixture
def grids() -> PlannedGrids:
    cases = Cases(("a",), np.array([[5.0, 0.8, 0.7]]), np.array([[9, 30, 40]]))
    return PlannedGrids((4.0, 0.8, 0.7), ScaleChoice((1, 2, 2), "because."), cases, (0, 1, 2))


def test_spacing_of_the_rule(grids: PlannedGrids):
    words = rationale.spacing(grids, Wishes(), BLOCK)
    assert "4 x 0.8 x 0.7 mm HR, 4 x 1.6 x 1.4 mm LR" in words
    assert "along Z that of the finest tenth" in words
    assert "Along Y, the detail of 4 of 9 cases" in words


@pytest.mark.parametrize(
    ("wishes", "block", "part"),
    [
        (Wishes(lr_spacing=(4.0, 1.6, 1.4)), BLOCK, "of -lr_spacing"),
        (Wishes(hr_spacing=(4.0, 0.8, 0.7)), BLOCK, "of -overwrite_target_spacing"),
        (Wishes(), {**BLOCK, "paired": True}, "follows the real LR images"),
    ],
)
def test_spacing_of_wishes_and_pairs(grids: PlannedGrids, wishes, block, part):
    assert part in rationale.spacing(grids, wishes, block)


def test_patch():
    assert "hold the whole median" in rationale.patch_size((8, 16), (7, 16), 8)
    words = rationale.patch_size((8, 16), (9, 16), 11.5)
    assert "largest patch" in words
    assert "11.5 GB" in words


def test_batch():
    assert rationale.batch_size(2, 9, 0, 2) == "2, the smallest allowed (2)."
    assert "5 %" in rationale.batch_size(5, 9, 5, 2)
    assert "as many as fit" in rationale.batch_size(9, 9, 20, 2)


def test_width():
    assert "the default" in rationale.hr_width(16, 0.5)
    assert "8 instead of 16" in rationale.hr_width(8, 0.7)


@pytest.mark.parametrize(
    ("modality", "scale", "multislice", "parts"),
    [
        ("MR", (1, 2, 2), False, ["MR images", "along Y, X a crop of k-space"]),
        ("MR", (4, 1, 1), True, ["along Z a Gaussian slice profile"]),
        ("CT", (2, 2, 2), False, ["along Z the mean over an LR slice", "along Y, X the mean over"]),
        ("other", (2, 2, 2), False, ["other images than CT and MR", "along Z, Y, X the mean over"]),
        ("MR", (1, 1, 1), False, ["nothing is degraded"]),
    ],
)
def test_degradation(modality, scale, multislice, parts):
    spec = default_degradation(modality, (1.0, 0.8, 0.7), scale, multislice=multislice)
    words = rationale.degradation(spec, (0, 1, 2), modality)
    assert all(part in words for part in parts)


def test_degradation_names_the_readers_axes():
    spec = default_degradation("MR", (3.0, 0.8, 0.7), (1, 2, 2), multislice=False)
    assert "along Z, Y a crop" in rationale.degradation(spec, (2, 0, 1), "MR")


def test_pairs():
    assert "real" in rationale.degradation(paired_spec(), (0, 1, 2), "MR")
