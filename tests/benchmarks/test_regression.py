"""The comparison with recorded ratios, on given numbers: nothing is timed here."""

from __future__ import annotations

import json
import sys

import pairs
import prediction
import pytest
import regression

RECORDED = {"clock": 10.0, "cpu": 4.0}
WORK = {"lr_size": 48, "dtype": "shipped"}


def usages(*seconds: float, others: float = 0.0) -> list[pairs.Usage]:
    return [pairs.Usage(s, 2 * s, 0, others) for s in seconds]


def test_ratios_are_medians_of_the_rounds():
    taken = {pairs.THEIRS: usages(10, 20, 90), pairs.OURS: usages(2, 2, 3)}
    assert regression.ratios_of(taken) == {"clock": 10.0, "cpu": 10.0}


@pytest.mark.parametrize("measured", [(10, 4), (7, 2.8), (30, 12)])
def test_70_percent_suffice(measured):
    assert regression.complaint(dict(zip(RECORDED, measured, strict=True)), RECORDED) is None


@pytest.mark.parametrize(
    ("measured", "named"),
    [
        ((6.9, 4), "clock 6.90 times nnU-Net's speed, recorded 10.00 (69%)"),
        ((10, 1), "cpu 1.00 times nnU-Net's speed, recorded 4.00 (25%)"),
    ],
)
def test_less_is_one_line_that_names_the_ratio(measured, named):
    line = regression.complaint(dict(zip(RECORDED, measured, strict=True)), RECORDED)
    assert line == f"prediction has become slower: {named}."


def test_both_can_fall():
    line = regression.complaint({"clock": 1, "cpu": 1}, RECORDED)
    assert line is not None
    assert line.count("recorded") == 2
    assert "\n" not in line


def test_without_a_record_the_line_says_how_to_make_one(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="no ratios are recorded.*run regression.py -record"
    ):
        regression.load_record(tmp_path / "none.json", WORK)


def test_other_work_is_not_compared(tmp_path):
    file = tmp_path / "record.json"
    regression.save_record(file, {"ratios": RECORDED, "work": WORK}, 0.1)
    assert regression.load_record(file, WORK)["ratios"] == RECORDED
    with pytest.raises(ValueError, match="is of other work.*'lr_size': 48.*'lr_size': 24"):
        regression.load_record(file, {**WORK, "lr_size": 24})


def test_a_disturbed_measurement_is_not_recorded(tmp_path):
    with pytest.raises(ValueError, match="other processes took 40% of the cores, at most 10%"):
        regression.save_record(tmp_path / "record.json", {"ratios": RECORDED}, 0.4)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Return a function that runs the command with seconds given for both sides."""
    monkeypatch.setattr(prediction, "write_synthetic", lambda root, options: {})
    monkeypatch.setattr(pairs, "machine", lambda threads: "a machine")

    def run(theirs, ours, *flags):
        taken = {pairs.THEIRS: usages(*theirs), pairs.OURS: usages(*ours)}
        monkeypatch.setattr(prediction, "in_turn", lambda *_: taken)
        file = tmp_path / "record.json"
        monkeypatch.setattr(sys, "argv", ["regression.py", "-file", str(file), *flags])
        return regression.main()

    return run


def test_status_0_as_recorded_and_1_below(command, tmp_path, capsys):
    assert command([20.0] * 3, [2.0] * 3) == 1
    assert "run regression.py -record" in capsys.readouterr().err
    assert command([20.0] * 3, [2.0] * 3, "-record") == 0
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["ratios"] == {"clock": 10.0, "cpu": 10.0}
    assert record["machine"] == "a machine"
    assert "-record" in record["command"]
    assert command([20.0] * 3, [2.8] * 3) == 0
    assert capsys.readouterr().err == ""
    assert command([20.0] * 3, [3.0] * 3) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: prediction has become slower: clock 6.67")
    assert error.count("\n") == 1
    assert command([20.0] * 3, [2.0] * 3, "-lr_size", "24") == 1
    assert "other work" in capsys.readouterr().err
