"""What a comparison knows: facts of each method, and its numbers per case and label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

READS_LR, READS_HR, READS_LABELS = "lr", "hr", "true labels"
IMAGE = "image"
"""Stands where a label would in the rows of SR metrics."""
SEGMENTATION_METRICS = (
    "Dice",
    "IoU",
    "nsd_hr_voxel",
    "nsd_lr_voxel",
    "hd95_mm",
    "volume_error_percent",
)
SR_METRICS = (
    "psnr_body_db",
    "psnr_whole_db",
    "psnr_body_gain_over_cubic_db",
    "psnr_body_gain_over_sinc_db",
    "ssim_body",
    "ssim_whole",
    "mae_input_units",
    "nmse",
    "hfen",
    "lr_consistency_psnr_db",
)


@dataclass(frozen=True)
class Facts:
    """What is known of a method besides its numbers per case; None is unknown.

    Attributes:
        reads: what its output is made from: "lr", "hr" or "true labels".
        checkpoint: first digits of the SHA-256 of its weights.
        scale: HR voxels per LR voxel (Z, Y, X), as "2x2x2".
        hr_spacing_mm: planned, as "1x1x1".
        steps: of the optimiser.
        batch_size: samples per step.
        training_minutes: on the clock of the training machine.
        seconds_per_case: from files to files, without loading the model.
        peak_memory_gib: of main memory, of the predicting process.
        peak_gpu_memory_gib: on a GPU.
        device: that predicted, with or without test-time flips.
        parameters: weights of the network.
        flops_per_hr_voxel: of one forward pass of a planned patch.
    """

    reads: str
    checkpoint: str | None = None
    scale: str | None = None
    hr_spacing_mm: str | None = None
    steps: int | None = None
    batch_size: int | None = None
    training_minutes: float | None = None
    seconds_per_case: float | None = None
    peak_memory_gib: float | None = None
    peak_gpu_memory_gib: float | None = None
    device: str | None = None
    parameters: int | None = None
    flops_per_hr_voxel: float | None = None


@dataclass(frozen=True)
class Setting:
    """What is the same for all methods of a comparison.

    Attributes:
        dataset: its name.
        plans: name of the plans.
        configuration: of the plans.
        fold: that was trained.
        cases: "validation" for the fold's own, "files" for a test folder.
    """

    dataset: str
    plans: str
    configuration: str
    fold: str
    cases: str = "validation"


@dataclass(frozen=True)
class Scores:
    """One method's numbers: case -> label -> metric -> value; SR metrics under `IMAGE`."""

    facts: Facts
    cases: Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Comparison:
    """All methods on the same cases.

    Attributes:
        setting: what they share.
        methods: by name, in the order in which they are shown.
        label_names: label as text -> its name.
        groups: of each case; the keys are the cases, in order.
    """

    setting: Setting
    methods: Mapping[str, Scores]
    label_names: Mapping[str, str]
    groups: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def cases(self) -> tuple[str, ...]:
        """All cases, in order."""
        return tuple(self.groups)

    def reads(self, method: str) -> str:
        """Return what a method's output is made from."""
        return self.methods[method].facts.reads

    def values(self, method: str, metric: str) -> np.ndarray:
        """Return a metric (cases, labels), one column for SR metrics; NaN for none."""
        labels: Sequence[str] = [IMAGE] if metric in SR_METRICS else list(self.label_names)
        scores = self.methods[method].cases
        return np.array(
            [
                [scores.get(case, {}).get(label, {}).get(metric, np.nan) for label in labels]
                for case in self.cases
            ],
            dtype=float,
        ).reshape(len(self.cases), len(labels))

    def has(self, method: str, metric: str) -> bool:
        """Return whether a method has any number of a metric."""
        return bool(np.isfinite(self.values(method, metric)).any())


def check_comparable(comparison: Comparison) -> None:
    """Refuse methods whose numbers are not of one thing.

    Raises:
        ValueError: naming two methods with other HR grids, labels or cases.
    """
    first_name, first = next(iter(comparison.methods.items()))
    first_grid: tuple[str, Facts] | None = None
    for name, scores in comparison.methods.items():
        if scores.facts.scale is not None:
            if first_grid is None:
                first_grid = name, scores.facts
            check_same_hr_grid(*first_grid, name, scores.facts)
        labels, known = _labels(scores), _labels(first)
        if labels != known:
            raise ValueError(
                f"{first_name} and {name} have different labels: {_listed(known)} and "
                f"{_listed(labels)}."
            )
        missing = sorted(set(comparison.cases) ^ set(scores.cases))
        if missing:
            raise ValueError(
                f"not every method has every case: {name} and the others differ in "
                f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}."
            )


def check_same_hr_grid(name: str, facts: Facts, other_name: str, other: Facts) -> None:
    """Raise ValueError if two methods were planned for different HR grids."""
    if (facts.scale, facts.hr_spacing_mm) != (other.scale, other.hr_spacing_mm):
        raise ValueError(
            f"{name} and {other_name} have different HR grids: scale {facts.scale} to "
            f"{facts.hr_spacing_mm} mm and scale {other.scale} to {other.hr_spacing_mm} mm "
            "(Z, Y, X), so no common truth."
        )


def _labels(scores: Scores) -> set[str]:
    return {label for case in scores.cases.values() for label in case if label != IMAGE}


def _listed(labels: set[str]) -> str:
    return ", ".join(sorted(labels)) or "none"
