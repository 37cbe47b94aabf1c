"""The fingerprint: nnU-Net's file, with a block of ours about resolution and structure."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from srseg import environment
from srseg.planning.case_fingerprint import CaseAnalysis, CaseFingerprint, peak_bytes
from srseg.planning.effective_resolution import INTERPOLATED
from srseg.planning.json_file import as_text, write_json
from srseg.planning.raw_dataset import check_integrity, find_raw_dataset, reader_writer_class
from srseg.preprocessing.workers import for_each_case

logger = logging.getLogger(__name__)

FINGERPRINT_FILE = "dataset_fingerprint.json"
BLOCK_VERSION = 1  # raise it when an entry of the block changes its meaning
_QUANTILES = {"p5": 5, "p50": 50, "p95": 95, "max": 100}
_AXES = "ZYX"


class SRSegFingerprintExtractor:
    """Does what nnU-Net's fingerprint extractor does, from one reading, and knows more of a case.

    It is no subclass: that would import torch, which takes longer than a small dataset.

    `num_foreground_voxels_for_intensitystats` is 2e6 instead of nnU-Net's 1e8, which is drawn with
    replacement however small the dataset is: 1e8 took six cases 9 s and 1.5 GB, 1e6 gave the same
    numbers to three digits.

    Raises:
        ValueError: if nnUNet_raw is not set, the dataset is unknown (the known ones are listed)
            or its dataset.json cannot be used.
        FileNotFoundError: if a file of a case is missing.
    """

    def __init__(self, dataset_name_or_id: str | int, num_processes: int = 8) -> None:
        self.raw_dataset = find_raw_dataset(dataset_name_or_id)
        self.dataset_name = self.raw_dataset.name
        self.num_processes = num_processes
        self.show_progress_bar = True
        self.num_foreground_voxels_for_intensitystats = 2e6

    def run(self, overwrite_existing: bool = False) -> dict[str, Any]:
        """Return the fingerprint after writing dataset_fingerprint.json.

        A file of the same version and the same cases is left as it is unless
        `overwrite_existing`.

        Raises:
            ValueError: if nnUNet_preprocessed is not set, or no case has any foreground.
            RuntimeError: in one sentence that names the case that cannot be used.
        """
        preprocessed = environment.required_folder("nnUNet_preprocessed")
        file = preprocessed / self.dataset_name / FINGERPRINT_FILE
        if not overwrite_existing:
            existing = self._usable(file)
            if existing is not None:
                logger.info("%s: the fingerprint is there; --clean makes it anew.", file)
                return existing
        results = self._analyse_cases()
        fingerprint = {
            **stock_entries(results, self.raw_dataset.num_channels),
            "srseg": srseg_block(results, is_paired=self.raw_dataset.is_paired),
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(fingerprint, file)
        _warn(fingerprint["srseg"])
        return json.loads(as_text(fingerprint))

    def _usable(self, file: Path) -> dict[str, Any] | None:
        if not file.is_file():
            return None
        try:
            fingerprint = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            return None
        block = fingerprint.get("srseg", {})
        same = (
            block.get("version") == BLOCK_VERSION
            and block.get("paired") == self.raw_dataset.is_paired
            and list(block.get("cases", ())) == list(self.raw_dataset.cases)
        )
        return fingerprint if same else None

    def _analyse_cases(self) -> dict[str, CaseFingerprint]:
        raw = self.raw_dataset
        analysis = CaseAnalysis(
            reader_writer_class(raw),
            raw.dataset_json,
            int(self.num_foreground_voxels_for_intensitystats // len(raw.cases)),
        )
        bytes_per_worker = peak_bytes(raw.cases.values(), raw.num_channels)
        results = for_each_case(
            analysis,
            raw.cases,
            num_processes=environment.worker_count(bytes_per_worker, self.num_processes),
            show_progress=self.show_progress_bar,
            description="Reading cases",
        )
        return {case: results[case] for case in raw.cases}  # workers finish in any order


def extract_fingerprint(
    dataset: int | str,
    *,
    num_processes: int | None = None,
    verify: bool = False,
    clean: bool = False,
    show_progress: bool = True,
) -> dict:
    """Return a dataset's fingerprint after writing it where it is missing.

    Args:
        dataset: its number or name.
        num_processes: at most; None takes the cores there are.
        verify: check dataset.json against the files, and every case again.
        clean: read all cases again.
        show_progress: a bar, where the output is a terminal.
    """
    extractor = SRSegFingerprintExtractor(dataset, num_processes or environment.available_cores())
    logger.info("Fingerprint of %s", extractor.dataset_name)
    if verify:
        check_integrity(extractor.raw_dataset)
    extractor.show_progress_bar = show_progress
    return extractor.run(overwrite_existing=clean or verify)


def stock_entries(results: Mapping[str, CaseFingerprint], num_channels: int) -> dict[str, Any]:
    """Return the four entries of nnU-Net's fingerprint, cases in the dataset's order.

    Raises:
        ValueError: if no case has any foreground.
    """
    statistics = {}
    for channel in range(num_channels):
        values = np.concatenate([r.intensities[channel] for r in results.values()])
        if not values.size:
            raise ValueError(
                f"none of the {len(results)} cases has any foreground; check that labelsTr holds "
                "the labels that dataset.json declares."
            )
        low, median, high = np.percentile(values, (0.5, 50.0, 99.5))
        statistics[str(channel)] = {
            "mean": float(np.mean(values)),
            "median": float(median),
            "std": float(np.std(values)),
            "min": float(np.min(values)),
            "max": float(np.max(values)),
            "percentile_99_5": float(high),
            "percentile_00_5": float(low),
        }
    relative_sizes = [r.relative_size_after_crop for r in results.values()]
    return {
        "spacings": [r.spacing for r in results.values()],
        "shapes_after_crop": [list(r.shape_after_crop) for r in results.values()],
        "foreground_intensity_properties_per_channel": statistics,
        "median_relative_size_after_cropping": float(np.median(relative_sizes)),
    }


def srseg_block(results: Mapping[str, CaseFingerprint], *, is_paired: bool) -> dict[str, Any]:
    """Return the `srseg` entry: figures of the whole dataset, then of every case by name.

    All per-axis values are in the reader's (Z, Y, X) order. `interpolated_cases` counts per axis
    the cases in which some channel is resolved at least 1.85 times coarser than its voxels.
    """
    cases = {case: result.block for case, result in results.items()}
    blocks = list(cases.values())
    thicknesses = [b["structure_thickness_mm"] for b in blocks]
    structures = sorted({name for thickness in thicknesses for name in thickness})
    return {
        "version": BLOCK_VERSION,
        "paired": is_paired,
        "num_cases": len(cases),
        "size_quantiles": _quantiles([b["shape"] for b in blocks]),
        "field_of_view_mm": _quantiles([b["field_of_view_mm"] for b in blocks]),
        "anisotropy": _median([[b["anisotropy"]] for b in blocks])[0],
        "effective_resolution_mm": _median(
            [channel for b in blocks for channel in b["effective_resolution_mm"]]
        ),
        "interpolated_cases": np.sum([_is_interpolated(b) for b in blocks], axis=0).tolist(),
        "cases_with_duplicated_slices": [case for case, b in cases.items() if _has_duplicates(b)],
        "cases_without_foreground": [
            case for case, b in cases.items() if not b["num_foreground_voxels"]
        ],
        "structure_thickness_mm": {
            name: _median([t[name] for t in thicknesses if name in t]) for name in structures
        },
        "cases": cases,
    }


def _is_interpolated(block: Mapping[str, Any]) -> list[bool]:
    return [
        any(
            channel[axis] is not None and channel[axis] >= INTERPOLATED * block["spacing"][axis]
            for channel in block["effective_resolution_mm"]
        )
        for axis in range(3)
    ]


def _has_duplicates(block: Mapping[str, Any]) -> bool:
    """Return whether more than a single slice in ten repeats its neighbour along some axis."""
    counts = zip(block["duplicated_slices"], block["shape"], strict=True)
    return any(repeated > 1 and repeated > n / 10 for repeated, n in counts)


def _table(rows: Sequence[Sequence[float | None]]) -> np.ndarray:
    return np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=float)


def _without_nan(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]


def _median(rows: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Return the median of every column, None where no row has a value."""
    return _without_nan(np.array([_percentile(column, 50) for column in _table(rows).T]))


def _quantiles(rows: Sequence[Sequence[float | None]]) -> dict[str, list[float | None]]:
    table = _table(rows).T
    return {
        name: _without_nan(np.array([_percentile(column, q) for column in table]))
        for name, q in _QUANTILES.items()
    }


def _percentile(column: np.ndarray, q: float) -> float:
    known = column[~np.isnan(column)]
    return float(np.percentile(known, q)) if known.size else float("nan")


def _warn(block: Mapping[str, Any]) -> None:
    """Say what a user should know of the dataset before training on it."""
    for axis, count in zip(_AXES, block["interpolated_cases"], strict=True):
        if count:
            logger.warning(
                "along %s, the detail of %d of %d cases is at least %g times coarser than their "
                "voxels (interpolated, zero-filled or smoothed): nothing finer can be learned "
                "from them.",
                axis,
                count,
                block["num_cases"],
                INTERPOLATED,
            )
    for entry, words in (
        ("cases_with_duplicated_slices", "slices that repeat their neighbour in"),
        ("cases_without_foreground", "no foreground (kept for planning and training) in"),
    ):
        if block[entry]:
            logger.warning("%s: %s.", words, ", ".join(block[entry]))
