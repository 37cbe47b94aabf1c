"""Weights: constant or a ramp."""

import pytest

from srseg.training.losses.schedule import schedule_from_json


def test_a_number_is_constant():
    schedule = schedule_from_json(0.5, "sr_l1")
    assert [schedule(p) for p in (0.0, 0.3, 1.0)] == [0.5, 0.5, 0.5]


def test_ramp_by_hand():
    schedule = schedule_from_json({"start": 1, "end": 3, "begin": 0.2, "finish": 0.6}, "sr_l1")
    assert [schedule(p) for p in (0.1, 0.2, 0.4, 0.6, 0.9)] == pytest.approx([1, 1, 2, 3, 3])


def test_a_weight_per_round_by_hand():
    schedule = schedule_from_json({"per_round": 2}, "semantic")
    assert [schedule(0.9, n) for n in (0, 1, 3)] == [0, 2, 6]


def test_rounds_do_not_change_the_other_weights():
    for value in (3.0, {"start": 1, "end": 5}):
        schedule = schedule_from_json(value, "sr_l1")
        assert schedule(0.5, 7) == 3.0


@pytest.mark.parametrize(
    "value",
    [
        "1",
        True,
        {"start": 1},
        {"start": 1, "end": 2, "stop": 3},
        {"start": 1, "end": "2"},
        -1.0,
        float("nan"),
        {"per_round": -1},
        {"per_round": 1, "start": 1},
        {"per_round": "1"},
    ],
)
def test_wrong_weights_name_the_term(value):
    with pytest.raises(ValueError, match="sr_l1"):
        schedule_from_json(value, "sr_l1")


def test_ramp_must_run_forward():
    with pytest.raises(ValueError, match="begin < finish"):
        schedule_from_json({"start": 1, "end": 2, "begin": 0.5, "finish": 0.5}, "sr_l1")
