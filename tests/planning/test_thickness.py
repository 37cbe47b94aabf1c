"""Structure thickness: known answers on boxes and balls, no two axes alike."""

from __future__ import annotations

import numpy as np
import pytest

from srseg.planning.thickness import label_groups, structure_thickness

SPACING = (3.0, 0.7, 0.5)


def test_box_has_its_edges():
    labels = np.zeros((12, 17, 20), np.float32)
    labels[2:5, 4:11, 1:18] = 1
    assert structure_thickness(labels, {"box": (1,)}, SPACING)["box"] == pytest.approx(
        [3 * 3.0, 7 * 0.7, 17 * 0.5]
    )


def test_runs_that_touch_the_border_are_counted_whole():
    labels = np.zeros((4, 6, 5), np.uint8)
    labels[:, 3:, :2] = 2
    assert structure_thickness(labels, {"corner": (2,)}, (1, 1, 1))["corner"] == [4, 3, 2]


def test_gap_makes_two_runs():
    labels = np.zeros((9, 3, 3), np.uint8)
    labels[1:3] = labels[4:8] = 1
    assert structure_thickness(labels, {"slabs": (1,)}, (1, 1, 1))["slabs"][0] == 3


def test_ball_has_its_median_chord():
    at = np.stack(np.meshgrid(*(np.arange(61) - 30,) * 3, indexing="ij"))
    ball = (at**2).sum(0) < 25.0**2
    measured = structure_thickness(ball, {"ball": (1,)}, (1, 1, 1))["ball"]
    assert measured == pytest.approx([50 / np.sqrt(2)] * 3, rel=0.05)


def test_region_is_the_union_of_its_labels():
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[1:3, 1:7, 1:7] = 1
    labels[3:6, 1:7, 1:7] = 2
    groups = {"whole": (1, 2), "core": (2,)}
    measured = structure_thickness(labels, groups, (2.0, 1.0, 1.0))
    assert measured["whole"][0] == 10.0
    assert measured["core"][0] == 6.0


def test_absent_structure_has_no_entry():
    assert structure_thickness(np.zeros((3, 4, 5)), {"tumour": (1,)}, SPACING) == {}


def test_marks_outside_the_image_are_no_structure():
    labels = np.full((4, 4, 4), -1, np.int16)
    labels[1:3, 1:3, 1:3] = 1
    assert structure_thickness(labels, {"a": (1,)}, (1, 1, 1)) == {"a": [2, 2, 2]}


def test_groups_leave_out_background_and_ignore():
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    assert label_groups({"labels": labels}) == {"whole": (1, 2), "core": (2,)}
