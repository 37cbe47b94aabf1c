"""From a comparison to what is said of it: means, intervals, tests, the oracle gap, footnotes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from srseg.evaluation.compare.records import (
    READS_HR,
    READS_LABELS,
    READS_LR,
    SEGMENTATION_METRICS,
    SR_METRICS,
    Comparison,
)
from srseg.evaluation.compare.statistics import (
    LEAST_GAP,
    Estimate,
    Resamples,
    gap_fraction,
    holm,
    label_mean,
    signed_rank_p,
)

DEFAULT_REFERENCE = "SRSegTrainer"
BASELINE, ORACLE = "lr_then_upsample", "oracle"
TESTED = ("Dice", "nsd_hr_voxel", "hd95_mm", "psnr_body_gain_over_cubic_db")
"""Metrics for which methods are tested against the reference."""


@dataclass(frozen=True)
class Against:
    """A method against the reference in one metric.

    Attributes:
        difference: mean of the groups' paired differences with its interval.
        p: Wilcoxon's, corrected by Holm over the methods; NaN for no test.
    """

    difference: Estimate
    p: float


@dataclass(frozen=True)
class Summary:
    """All that tables and plots show.

    Attributes:
        comparison: where it comes from.
        reference: the method that the others are tested against; None where none may be.
        order: of the methods in tables.
        means: method -> metric -> mean over labels and cases.
        label_dice: method -> label -> mean Dice.
        against: method -> tested metric -> comparison with the reference.
        gap: method -> fraction of the oracle gap closed; {} where there is no such gap.
        gap_notes: why a method has no fraction, or what to know of all.
        num_groups: of the cases.
    """

    comparison: Comparison
    reference: str | None
    order: tuple[str, ...]
    means: Mapping[str, Mapping[str, Estimate]]
    label_dice: Mapping[str, Mapping[str, Estimate]]
    against: Mapping[str, Mapping[str, Against]]
    gap: Mapping[str, Estimate] = field(default_factory=dict)
    gap_notes: tuple[str, ...] = ()
    num_groups: int = 0


def summarise(comparison: Comparison, reference: str | None = None) -> Summary:
    """Return the summary of a comparison.

    Args:
        comparison: checked by `check_comparable`.
        reference: which method the others are tested against; by default `SRSegTrainer` where it is
            there, else the first that reads LR images.

    Raises:
        ValueError: if the reference is unknown or sees the truth.
    """
    reference = chosen_reference(comparison, reference)
    resamples = Resamples(list(comparison.groups.values()))
    means = {
        name: {
            metric: resamples.estimate(comparison.values(name, metric))
            for metric in (*SEGMENTATION_METRICS, *SR_METRICS)
        }
        for name in comparison.methods
    }
    gap, notes = _gaps(comparison, resamples)
    return Summary(
        comparison=comparison,
        reference=reference,
        order=_ordered(comparison, means),
        means=means,
        label_dice=_label_dice(comparison, resamples),
        against={} if reference is None else _against(comparison, reference, resamples),
        gap=gap,
        gap_notes=notes,
        num_groups=len(resamples.names),
    )


def chosen_reference(comparison: Comparison, wanted: str | None) -> str | None:
    """Return the name of the reference; None if no method reads LR images only.

    Raises:
        ValueError: if the wanted one is unknown or sees the truth.
    """
    fair = [name for name in comparison.methods if comparison.reads(name) == READS_LR]
    if wanted is None:
        return DEFAULT_REFERENCE if DEFAULT_REFERENCE in fair else next(iter(fair), None)
    if wanted not in comparison.methods:
        raise ValueError(
            f"unknown reference '{wanted}'; compared are: {', '.join(comparison.methods)}."
        )
    if wanted not in fair:
        what = "HR images" if comparison.reads(wanted) == READS_HR else "the true labels"
        raise ValueError(
            f"{wanted} reads {what} and cannot be the reference; "
            f"possible: {', '.join(fair) or 'none'}."
        )
    return wanted


def _ordered(
    comparison: Comparison, means: Mapping[str, Mapping[str, Estimate]]
) -> tuple[str, ...]:
    """Return methods by what they read, the fair ones first, then by falling Dice."""
    kinds = (READS_LR, READS_HR, READS_LABELS)

    def key(name: str) -> tuple[int, float]:
        dice = means[name]["Dice"].value
        return kinds.index(comparison.reads(name)), -dice if np.isfinite(dice) else np.inf

    return tuple(sorted(comparison.methods, key=key))


def _label_dice(comparison: Comparison, resamples: Resamples) -> dict[str, dict[str, Estimate]]:
    table: dict[str, dict[str, Estimate]] = {}
    for name in comparison.methods:
        dice = comparison.values(name, "Dice")
        table[name] = {
            label: resamples.estimate(dice[:, [column]])
            for column, label in enumerate(comparison.label_names)
        }
    return table


def _against(
    comparison: Comparison, reference: str, resamples: Resamples
) -> dict[str, dict[str, Against]]:
    """Return each method against the reference; each metric's p-values are one family."""
    table: dict[str, dict[str, Against]] = {
        name: {} for name in comparison.methods if name != reference
    }
    for metric in TESTED:
        theirs = comparison.values(reference, metric)
        values = {
            name: comparison.values(name, metric)
            for name in table
            if _is_tested(comparison, name, metric)
        }
        p_values = {name: signed_rank_p(v, theirs, resamples) for name, v in values.items()}
        adjusted = holm(p_values)
        for name, own in values.items():
            difference = resamples.difference(own, theirs)
            table[name][metric] = Against(difference, adjusted[name])
    return table


def _is_tested(comparison: Comparison, name: str, metric: str) -> bool:
    """Return whether a method is an opponent: not where its output is the truth's own labels."""
    if metric in SEGMENTATION_METRICS and comparison.reads(name) == READS_LABELS:
        return False
    return comparison.has(name, metric)


def _gaps(
    comparison: Comparison, resamples: Resamples
) -> tuple[dict[str, Estimate], tuple[str, ...]]:
    """Return the fraction of the oracle gap each method closes, and why some have none."""
    if not {BASELINE, ORACLE} <= comparison.methods.keys():
        return {}, ()
    baseline, oracle = (comparison.values(name, "Dice") for name in (BASELINE, ORACLE))
    steps = {name: scores.facts.steps for name, scores in comparison.methods.items()}
    if steps[BASELINE] is None or steps[BASELINE] != steps[ORACLE]:
        return {}, (
            f"No fraction of the oracle gap: {BASELINE} was trained for {_known(steps[BASELINE])} "
            f"steps, {ORACLE} for {_known(steps[ORACLE])}.",
        )
    width = label_mean(oracle - baseline)
    if not width >= LEAST_GAP:
        return {}, (
            f"No fraction of the oracle gap: {ORACLE} is {width:+.4f} Dice above {BASELINE}, less "
            f"than {LEAST_GAP:g}.",
        )
    gap, notes = {}, []
    for name in comparison.methods:
        if comparison.reads(name) != READS_LR or name == BASELINE:
            continue
        if steps[name] != steps[BASELINE]:
            notes.append(
                f"No fraction for {name}: it was trained for {_known(steps[name])} steps, "
                f"{BASELINE} and {ORACLE} for {steps[BASELINE]}."
            )
            continue
        gap[name] = gap_fraction(comparison.values(name, "Dice"), baseline, oracle, resamples)
    notes.append(
        f"Oracle gap: {width:.4f} Dice from {BASELINE} to {ORACLE}, all at {steps[BASELINE]} steps."
    )
    sizes = {comparison.methods[name].facts.batch_size for name in (BASELINE, ORACLE, *gap)}
    if len(sizes) > 1:
        notes.append("Steps are equal for the fractions, batch sizes are not: see the costs.")
    if any(np.isnan(e.low) for e in gap.values()) and resamples.names[1:]:
        notes.append(
            "No interval for some fractions: too many resamples have a gap under "
            f"{LEAST_GAP:g}, or lack a label."
        )
    return gap, tuple(notes)


def _known(steps: int | None) -> str:
    return "an unknown number of" if steps is None else str(steps)
