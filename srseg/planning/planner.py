"""The planner: nnU-Net's rules on the LR grid, with an HR grid above it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

import srseg
from srseg import environment
from srseg.degradation.spec import DegradationSpec, default_degradation, paired_spec
from srseg.networks.joint_unet import JointUNet
from srseg.planning import rationale
from srseg.planning.architecture import HR_WIDTHS, joint_architecture, whole_volume_architecture
from srseg.planning.fingerprint import BLOCK_VERSION, FINGERPRINT_FILE
from srseg.planning.grids import Cases, Wishes, plan_grids
from srseg.planning.json_file import write_json
from srseg.planning.memory_model import MemoryModel
from srseg.planning.modality import is_multislice, modality_of
from srseg.planning.oracle_plans import OraclePlanner
from srseg.planning.patch_free import MAX_DATASET_COVERED, patch_free_configuration
from srseg.planning.raw_dataset import find_raw_dataset, reader_writer_class
from srseg.planning.scale_rule import Scale
from srseg.plans.names import CONFIGURATIONS, PLANS_NAME, check_plans_name
from srseg.preprocessing.intensity import clip_bounds

logger = logging.getLogger(__name__)

PLANS_VERSION = 1
_WIDTH_DOMINATES = 0.6  # of the memory, by what grows with the HR stage's width
_SMALLEST_EDGE = 4  # of a patch; below it nnU-Net's shrinking leads nowhere
_RESAMPLING = {
    "data": "srseg.preprocessing.resampling.resample_image",
    "seg": "srseg.preprocessing.resampling.resample_segmentation",
    "probabilities": "srseg.preprocessing.resampling.resample_image",
}


class SRSegPlanner(ExperimentPlanner):
    """nnU-Net's planner for an LR trunk and an HR stage; `plan_experiment` writes the plans.

    The first six arguments are nnU-Net's, which passes them by name.

    Args:
        dataset_name_or_id: a raw dataset with a fingerprint.
        gpu_memory_target_in_gb: what training may take.
        preprocessor_name: written into the plans.
        plans_name: name of the plans file.
        overwrite_target_spacing: the HR grid in mm, reader order (Z, Y, X).
        suppress_transpose: keep the reader's axis order.
        scale: instead of the rule's, reader order.
        lr_spacing: LR grid in mm, reader order; scale and HR grid follow from it.

    Raises:
        ValueError: if the dataset is unknown, or an argument is out of range, contradicts another
            or does not fit the dataset.
        FileNotFoundError: if a raw file or the fingerprint is missing.
    """

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float = 8,
        preprocessor_name: str = "SRSegPreprocessor",
        plans_name: str = PLANS_NAME,
        overwrite_target_spacing: Sequence[float] | None = None,
        suppress_transpose: bool = False,
        *,
        scale: Sequence[int] | None = None,
        lr_spacing: Sequence[float] | None = None,
    ) -> None:
        wishes = Wishes(scale, lr_spacing, overwrite_target_spacing)
        check_plans_name(plans_name)
        if not gpu_memory_target_in_gb > 0:
            raise ValueError(
                f"-gpu_memory_target must be above 0 GB, got {gpu_memory_target_in_gb:g}."
            )
        raw = find_raw_dataset(dataset_name_or_id)
        folder = environment.required_folder("nnUNet_preprocessed") / raw.name
        read_fingerprint(folder / FINGERPRINT_FILE)  # with our words where it is missing
        target = overwrite_target_spacing
        try:
            super().__init__(
                raw.name,
                gpu_memory_target_in_gb,
                preprocessor_name,
                plans_name,
                None if target is None else [float(mm) for mm in target],
                suppress_transpose,
            )
        except AssertionError as error:  # nnU-Net compares splits without a word
            raise ValueError(
                f"splits_final.json in {raw.folder} and in {folder} differ; remove one of them."
            ) from error
        self._stock_state = dict(vars(self))
        self.wishes, self.raw_dataset, self.folder = wishes, raw, folder
        self.UNet_class = JointUNet
        self.lowres_creation_threshold = 0  # there is no cascade
        self.max_dataset_covered = MAX_DATASET_COVERED
        self.dataset_json["numTraining"] = len(raw.cases)
        self.modality = modality_of(self.dataset_json["channel_names"].values())
        self.memory = MemoryModel(raw.num_channels, raw.num_classes, gpu_memory_target_in_gb)
        self.grids = plan_grids(
            deepcopy(self.dataset_fingerprint),
            wishes,
            target_spacing=self._target_spacing,
            fits=self._fits_as_a_whole,
            suppress_transpose=suppress_transpose,
        )
        self._reader_writer = reader_writer_class(raw)
        self._scale: Sequence[int] = ()  # of the configuration that is being planned
        self._hr_width = HR_WIDTHS[0]

    def _target_spacing(self, cases: Cases) -> tuple[float, ...]:
        """Return nnU-Net's target spacing for the cases' HR grids, reader order."""
        self.dataset_fingerprint["spacings"] = cases.spacings.tolist()
        self.dataset_fingerprint["shapes_after_crop"] = cases.shapes.tolist()
        return tuple(float(mm) for mm in super().determine_fullres_target_spacing())

    def _fits_as_a_whole(
        self, lr_spacing: Sequence[float], lr_shape: Sequence[int], scale: Scale
    ) -> bool:
        """Return whether an LR volume can be trained on in one piece (all in reader order)."""
        used = [axis for axis in range(3) if lr_shape[axis] > 1]
        architecture, padded = whole_volume_architecture(
            *([values[axis] for axis in used] for values in (lr_spacing, lr_shape, scale))
        )
        return self.memory.largest_batch(architecture, padded) >= 1

    def determine_reader_writer(self) -> type[BaseReaderWriter]:
        """Return the reader that the fingerprint was made with."""
        return self._reader_writer

    def determine_fullres_target_spacing(self) -> np.ndarray:
        """Return the HR spacing in mm, reader order."""
        return np.array(self.grids.hr_spacing)

    def determine_transpose(self) -> tuple[list[int], list[int]]:
        """Return the axis orders from reader to plan and back."""
        forward = list(self.grids.transpose)
        return forward, [forward.index(axis) for axis in range(3)]

    def static_estimate_VRAM_usage(  # noqa: N802 (nnU-Net's name)
        self,
        patch_size: Sequence[int],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: dict[str, Any],
        arch_kwargs_req_import: Sequence[str],
    ) -> int:
        """Return the elements of one sample, HR stage and losses included."""
        if min(patch_size) < _SMALLEST_EDGE:
            raise ValueError(
                f"not even a patch of {_SMALLEST_EDGE} LR voxels fits into "
                f"{self.UNet_vram_target_GB:g} GB with the scale {self.grids.choice.scale}; "
                "raise -gpu_memory_target."
            )
        stock = {"arch_kwargs": arch_kwargs, "_kw_requires_import": arch_kwargs_req_import}
        architecture = joint_architecture(stock, self._scale, self._hr_width)
        return self.memory.elements(architecture, patch_size)

    def get_plans_for_configuration(
        self,
        spacing: Sequence[float],
        median_shape: Sequence[int],
        data_identifier: str,
        approximate_n_voxels_dataset: float,
        _cache: dict[str, int],
    ) -> dict[str, Any]:
        """Return the configuration for an HR grid of `spacing`, planned on the LR grid.

        nnU-Net asks for a 2d configuration of any dataset; where slices themselves would have to
        be refined it gets an empty one, which `save_plans` leaves out.
        """
        num_axes = len(spacing)
        if num_axes == 2 and self.grids.planned_scale[0] != 1:
            return {}
        self._scale = self.grids.planned_scale[-num_axes:]
        lr_median = self.grids.planned_lr_median[-num_axes:]
        lr_voxels = float(prod(self.grids.planned_lr_median)) * len(self.raw_dataset.cases)
        for self._hr_width in HR_WIDTHS:
            plan = super().get_plans_for_configuration(
                np.multiply(spacing, self._scale), lr_median, data_identifier, lr_voxels, {}
            )
            architecture = joint_architecture(plan["architecture"], self._scale, self._hr_width)
            width_fraction = self.memory.width_fraction(architecture, plan["patch_size"])
            is_cut = any(np.less(plan["patch_size"], lr_median))
            if not is_cut or width_fraction <= _WIDTH_DOMINATES:
                break
        degradation = self._degradation(flat=num_axes == 2)
        plan |= {f"resampling_fn_{key}": name for key, name in _RESAMPLING.items()}
        plan |= {f"resampling_fn_{key}_kwargs": {} for key in _RESAMPLING}
        by_cases = round(MAX_DATASET_COVERED * lr_voxels / prod(plan["patch_size"]))
        if num_axes == 3 and self.grids.native_axes:
            plan["native_axes"] = self.grids.planned_native_axes
        return plan | {
            "architecture": architecture,
            "scale": self._scale,
            "hr_spacing": list(spacing),
            "degradation": degradation.to_json(),
            "patch_free": False,
            "rationale": {
                "scale": self.grids.choice.reason,
                "spacing": rationale.spacing(
                    self.grids, self.wishes, self.dataset_fingerprint["srseg"]
                ),
                "patch_size": rationale.patch_size(
                    plan["patch_size"], lr_median, self.memory.gpu_memory_gb
                ),
                "batch_size": rationale.batch_size(
                    plan["batch_size"],
                    self.memory.largest_batch(architecture, plan["patch_size"]),
                    by_cases,
                    smallest=self.UNet_min_batch_size,
                ),
                "hr_width": rationale.hr_width(
                    self._hr_width, self.memory.hr_fraction(architecture, plan["patch_size"])
                ),
                "degradation": rationale.degradation(
                    degradation, self.grids.transpose, self.modality
                ),
                "patch_free": "2-D slices, one by one." if num_axes == 2 else "",
            },
        }

    def _degradation(self, *, flat: bool) -> DegradationSpec:
        """Return how LR images come about, three axes in plan order."""
        if self.dataset_fingerprint["srseg"]["paired"]:
            return paired_spec()
        hr_spacing = [self.grids.hr_spacing[axis] for axis in self.grids.transpose]
        multislice = not flat and is_multislice(self.grids.planned_lr_spacing)
        return default_degradation(
            self.modality, hr_spacing, self.grids.planned_scale, multislice=multislice
        )

    def plan_experiment(self) -> dict[str, Any]:
        """Return the plans after writing them, and the oracle's beside them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        printed = io.StringIO()
        with redirect_stdout(printed):
            super().plan_experiment()
            OraclePlanner(
                self._stock_state,
                self.grids,
                plans_name=self.plans_identifier,
                configurations=list(self.plans["configurations"]),
                reader_writer=self._reader_writer,
            ).plan_experiment()
        for line in filter(None, map(str.strip, printed.getvalue().splitlines())):
            logger.debug("nnU-Net: %s", line)
        return self.plans

    def save_plans(self, plans: dict[str, Any]) -> None:
        """Write the plans with our entries; a user's own configurations in the file stay."""
        planned = {c: p for c, p in plans["configurations"].items() if "patch_size" in p}
        if "3d_fullres" in planned:
            fullres = planned["3d_fullres"]
            patch_free, reason = patch_free_configuration(
                fullres, self.grids.planned_lr_shapes, self.memory
            )
            fullres["rationale"]["patch_free"] = (
                reason if patch_free is None else "patches; 3d_patchfree reads whole volumes."
            )
            if patch_free is not None:
                planned["3d_patchfree"] = patch_free
        file = self.folder / f"{self.plans_identifier}.json"
        known = {c: planned[c] for c in CONFIGURATIONS if c in planned}
        statistics = plans["foreground_intensity_properties_per_channel"]
        for entry in known.values():
            if "architecture" in entry:  # not inherited
                _add_input_clip(entry, statistics)
        plans |= {
            "srseg_version": srseg.__version__,
            "plans_version": PLANS_VERSION,
            "modality": self.modality,
            "gpu_memory_target_gb": self.UNet_vram_target_GB,
            "configurations": known | _own_configurations(file),
        }
        write_json(plans, file)
        self.plans = json.loads(file.read_text(encoding="utf-8"))


def read_fingerprint(file: Path) -> dict[str, Any]:
    """Return a dataset's fingerprint.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if nnU-Net or another version of srseg made it.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no fingerprint {file}; run srseg_extract_fingerprint.")
    fingerprint = json.loads(file.read_text(encoding="utf-8"))
    version = fingerprint.get("srseg", {}).get("version")
    if version != BLOCK_VERSION:
        made = "nnU-Net's own" if version is None else f"of version {version}"
        raise ValueError(
            f"the fingerprint {file} is {made}, this srseg needs version {BLOCK_VERSION}; run "
            "srseg_extract_fingerprint."
        )
    return fingerprint


def _add_input_clip(configuration: dict[str, Any], statistics: dict[str, Any]) -> None:
    """Write the bounds of what the trunk reads into the architecture, if a channel has any."""
    bounds = clip_bounds(configuration["normalization_schemes"], statistics)
    if any(bounds):
        configuration["architecture"]["arch_kwargs"]["input_clip"] = bounds


def _own_configurations(file: Path) -> dict[str, Any]:
    """Return what a user added to an existing plans file."""
    if not file.is_file():
        return {}
    old = json.loads(file.read_text(encoding="utf-8"))["configurations"]
    return {name: entry for name, entry in old.items() if name not in CONFIGURATIONS}
