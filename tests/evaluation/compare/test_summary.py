"""What may be the reference, who is tested, and when a fraction of the oracle gap is given."""

from __future__ import annotations

import numpy as np
import pytest

from srseg.evaluation.compare.records import check_comparable
from srseg.evaluation.compare.summary import chosen_reference, summarise
from tests.evaluation.compare.synthetic import GAIN, comparison_of, scores_of

CASES = 8
SPREAD = np.linspace(-0.03, 0.03, CASES)


def level(dice: float, gain: float | None = None, **known):
    rows = [{"1": dice + d, "2": dice + d * abs(d) * 20} for d in SPREAD]
    gains = () if gain is None else [gain + 3 * d for d in SPREAD]
    return scores_of(rows, gains, **known)


def methods(**changes):
    found = {
        "oracle": level(0.90, reads="hr"),
        "lr_then_upsample": level(0.80),
        "PFSeg": level(0.82, 1.0),
        "SRSegTrainer": level(0.86, 1.5),
        "interpolate_bspline": level(0.95, 0.0, reads="true labels"),
    }
    return comparison_of({**found, **changes})


def test_the_default_reference_is_ours_else_the_first_that_reads_lr():
    assert chosen_reference(methods(), None) == "SRSegTrainer"
    assert chosen_reference(methods(), "PFSeg") == "PFSeg"
    other = methods(SRSegTrainer=level(0.86, reads="hr"))
    assert chosen_reference(other, None) == "lr_then_upsample"
    blind = comparison_of({"oracle": level(0.9, reads="hr")})
    assert chosen_reference(blind, None) is None
    assert summarise(blind).against == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("oracle", "oracle reads HR images and cannot be the reference; possible: lr_then"),
        ("interpolate_bspline", "reads the true labels and cannot be the reference"),
        ("nobody", "unknown reference 'nobody'; compared are: oracle, lr_then_upsample"),
    ],
)
def test_what_sees_the_truth_is_never_the_reference(name, message):
    with pytest.raises(ValueError, match=message):
        summarise(methods(), name)


def test_fair_methods_come_first_then_by_dice():
    assert summarise(methods()).order == (
        "SRSegTrainer",
        "PFSeg",
        "lr_then_upsample",
        "oracle",
        "interpolate_bspline",
    )


def test_true_labels_are_no_opponent_but_their_image_is():
    against = summarise(methods()).against
    assert "Dice" not in against["interpolate_bspline"]
    assert against["interpolate_bspline"][GAIN].difference.value == pytest.approx(-1.5)
    assert "SRSegTrainer" not in against
    assert GAIN not in against["lr_then_upsample"]


def test_holm_is_over_the_methods_that_are_tested():
    """All differences have one sign: p = 2 / 2^8 each, times three opponents in Dice."""
    against = summarise(methods()).against
    assert against["PFSeg"]["Dice"].p == pytest.approx(3 * 2 / 2**CASES)
    assert against["oracle"]["Dice"].p == pytest.approx(3 * 2 / 2**CASES)
    assert against["PFSeg"][GAIN].p == pytest.approx(2 * 2 / 2**CASES)
    assert against["PFSeg"]["Dice"].difference.value == pytest.approx(-0.04)


def test_groups_take_the_p_values_away():
    found = methods()
    groups = {case: f"p{number // 2}" for number, case in enumerate(found.cases)}
    grouped = comparison_of(found.methods, groups)
    summary = summarise(grouped)
    assert summary.num_groups == 4
    assert np.isnan(summary.against["PFSeg"]["Dice"].p)
    assert summary.means["PFSeg"]["Dice"].value == pytest.approx(
        summarise(found).means["PFSeg"]["Dice"].value
    )


def test_the_gap_is_closed_in_part():
    summary = summarise(methods())
    assert set(summary.gap) == {"SRSegTrainer", "PFSeg"}
    assert summary.gap["SRSegTrainer"].value == pytest.approx(0.6)
    assert summary.gap["PFSeg"].value == pytest.approx(0.2)
    assert summary.gap_notes == (
        "Oracle gap: 0.1000 Dice from lr_then_upsample to oracle, all at 1500 steps.",
    )


def test_unequal_steps_have_no_fraction_and_a_reason():
    summary = summarise(methods(PFSeg=level(0.82, steps=1400)))
    assert set(summary.gap) == {"SRSegTrainer"}
    assert "No fraction for PFSeg: it was trained for 1400 steps" in summary.gap_notes[0]
    summary = summarise(methods(oracle=level(0.9, reads="hr", steps=3000)))
    assert summary.gap == {}
    assert "lr_then_upsample was trained for 1500 steps, oracle for 3000" in summary.gap_notes[0]
    unknown = {"steps": None}
    summary = summarise(
        methods(oracle=level(0.9, reads="hr", **unknown), lr_then_upsample=level(0.8, **unknown))
    )
    assert summary.gap == {}
    assert "an unknown number of steps" in summary.gap_notes[0]


def test_a_small_gap_has_no_fraction_and_a_reason():
    summary = summarise(methods(oracle=level(0.805, reads="hr")))
    assert summary.gap == {}
    assert summary.gap_notes == (
        "No fraction of the oracle gap: oracle is +0.0050 Dice above lr_then_upsample, less than "
        "0.01.",
    )


def test_without_oracle_or_baseline_nothing_is_said():
    found = dict(methods().methods)
    del found["oracle"]
    summary = summarise(comparison_of(found))
    assert (summary.gap, summary.gap_notes) == ({}, ())


def test_other_batch_sizes_are_said():
    notes = summarise(methods(oracle=level(0.9, reads="hr", batch_size=1))).gap_notes
    assert any("batch sizes are not" in note for note in notes)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (level(0.8, scale="2x2x2"), "oracle and B have different HR grids: scale 1x2x2 to"),
        (level(0.8, hr_spacing_mm="1x1x1"), "different HR grids: .* to 1x1x1 mm"),
        (scores_of([{"1": 0.8}] * CASES), "oracle and B have different labels: 1, 2 and 1"),
        (scores_of([{"1": 0.8, "2": 0.8}]), "not every method has every case: B .* b, c, d, e, f,"),
    ],
)
def test_what_has_no_common_truth_is_refused(other, message):
    check_comparable(methods())
    with pytest.raises(ValueError, match=message):
        check_comparable(methods(B=other))
