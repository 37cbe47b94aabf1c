"""Declared labels: nnU-Net's verdict, in words."""

from __future__ import annotations

import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.images.labels import check_labels, declared_labels

GOOD = [
    ({"background": 0, "left": 1, "right": 2}, None),
    ({"background": 0, "left": "1"}, None),
    ({"background": 0, "left": 1, "ignore": 2}, None),
    ({"background": 0, "left": [1], "right": 2}, None),
    ({"background": 0, "both": [1, 2], "right": 2}, [1, 2]),
    ({"background": 0, "both": [1, 2], "right": 2, "ignore": 3}, [1, 2]),
    ({"background": 0, "nothing": [0, 0], "both": [1, 2]}, [1]),
]
BAD = [
    ({"left": 1, "right": 2}, None, "background must be declared as 0, got None"),
    ({"background": 1, "left": 0}, None, "background must be declared as 0, got 1"),
    ({"background": [0], "left": 1}, None, r"background must be declared as 0, got \[0\]"),
    ({"background": 0, "left": "one"}, None, "a value is no whole number"),
    ({"background": 0, "left": None}, None, "a value is no whole number"),
    (["background", "left"], None, "labels must be names with values"),
    ({"background": 0, "both": [1, 2]}, None, r"an entry each \(1: both\), got None"),
    ({"background": 0, "both": [1, 2], "one": 2}, [1], r"an entry each \(2: both, one\), got 1"),
    ({"background": 0, "left": 2, "ignore": 1}, None, "ignore must be the highest value"),
    ({"background": 0, "left": 1, "ignore": 1}, None, "ignore must be the highest value"),
    ({"background": 0, "left": 1, "ignore": [2]}, None, "ignore must be one whole number"),
]


def declared(labels, order) -> dict:
    return {"labels": labels, **({} if order is None else {"regions_class_order": order})}


@pytest.mark.parametrize(("labels", "order"), GOOD)
def test_what_nnunet_takes_is_taken(labels, order):
    LabelManager(labels, order)
    check_labels(declared(labels, order))


@pytest.mark.parametrize(("labels", "order", "words"), BAD)
def test_what_nnunet_refuses_is_refused_in_words(labels, order, words):
    with pytest.raises((AssertionError, AttributeError, RuntimeError, TypeError, ValueError)):
        LabelManager(labels, order)
    with pytest.raises(ValueError, match=words):
        check_labels(declared(labels, order))


def test_a_gap_is_refused_though_nnunet_takes_it():
    labels = {"background": 0, "left": 1, "right": 3}
    with pytest.raises(ValueError, match="without a gap, got 0, 1, 3"):
        check_labels(declared(labels, None))


def test_values_of_regions_and_ignore_are_declared():
    labels = {"background": 0, "both": [1, 2], "right": 2, "ignore": 3}
    assert declared_labels({"labels": labels}) == {0, 1, 2, 3}
