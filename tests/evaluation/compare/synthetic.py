"""Comparisons of made-up numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from srseg.evaluation.compare.records import IMAGE, Comparison, Facts, Scores, Setting

SETTING = Setting("Dataset901_Tiny", "srsegPlans", "3d_fullres", "0")
GAIN = "psnr_body_gain_over_cubic_db"


def facts(reads: str = "lr", **changes) -> Facts:
    """Return the facts of a method trained for 1500 steps, unless changed."""
    known = {"scale": "1x2x2", "hr_spacing_mm": "3x0.75x0.8", "seconds_per_case": 0.5}
    if reads != "true labels":
        known |= {
            "checkpoint": "0123456789ab",
            "steps": 1500,
            "batch_size": 2,
            "device": "cpu with flips",
        }
        known |= {"training_minutes": 25.0, "peak_memory_gib": 1.25, "parameters": 1_340_000}
        known |= {"flops_per_hr_voxel": 127_500.0}
    return Facts(reads=reads, **{**known, **changes})


def scores_of(dice: Sequence[Mapping[str, float]], gains: Sequence[float] = (), **known) -> Scores:
    """Return scores of cases a, b, c, ...: Dice per label, and SR gains where there are any."""
    rows = {}
    for number, labels in enumerate(dice):
        row = {
            label: {"Dice": d, "IoU": d / (2 - d), "nsd_hr_voxel": d, "hd95_mm": 10 * (1 - d)}
            for label, d in labels.items()
        }
        if gains:
            row[IMAGE] = {GAIN: gains[number], "psnr_body_db": 25 + gains[number]}
        rows[chr(ord("a") + number)] = row
    return Scores(facts(**known), rows)


def comparison_of(
    methods: Mapping[str, Scores],
    groups: Mapping[str, str] | None = None,
    label_names: Mapping[str, str] | None = None,
) -> Comparison:
    """Return the comparison; each case is its own group unless told otherwise."""
    cases = next(iter(methods.values())).cases
    return Comparison(
        SETTING,
        methods,
        label_names or {"1": "left", "2": "right"},
        groups or {case: case for case in cases},
    )
