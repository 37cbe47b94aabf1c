"""Plans written by hand, raw cases in memory: what the preprocessing tests work on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from srseg.degradation.spec import AxisDegradation, DegradationSpec
from srseg.geometry.grid import Grid
from srseg.images.properties import grid_of
from srseg.plans.managers import SRSegPlansManager
from srseg.preprocessing.raw_cases import RawCase

RESAMPLING = "srseg.preprocessing.resampling."
TRANSPOSES = ((0, 1, 2), (1, 0, 2), (2, 0, 1), (2, 1, 0))
OBLIQUE = (0.8, -0.48, 0.36, 0.6, 0.64, -0.48, 0.0, 0.6, 0.8)
STATISTICS = {"mean": 40.0, "std": 20.0, "percentile_00_5": -10.0, "percentile_99_5": 90.0}


def spec_json(*operators: str) -> dict:
    """Return the JSON of a degradation with one operator per axis (one name: for all)."""
    names = operators * 3 if len(operators) == 1 else operators
    options = {"kspace_crop": {"window": "none"}}
    axes = tuple(AxisDegradation(name, options.get(name, {})) for name in names)
    return DegradationSpec(axes).to_json()


def hand_plans(
    hr_spacing: Sequence[float],
    scale: Sequence[int],
    *,
    degradation: dict | None = None,
    transpose: Sequence[int] = (0, 1, 2),
    normalization: Sequence[str] = ("ZScoreNormalization",),
    use_mask: Sequence[bool] | None = None,
    patch_size: Sequence[int] | None = None,
    reader: str = "SimpleITKIO",
) -> dict:
    """Return plans with one configuration, "3d_fullres" or "2d"; all in plan order."""
    name = "3d_fullres" if len(scale) == 3 else "2d"
    configuration = {
        "data_identifier": f"srsegPlans_{name}",
        "preprocessor_name": "SRSegPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch_size or (8, 6, 7)[-len(scale) :]),
        "median_image_size_in_voxels": [9, 8, 7],
        "spacing": [mm * s for mm, s in zip(hr_spacing, scale, strict=True)],
        "hr_spacing": list(hr_spacing),
        "scale": list(scale),
        "degradation": degradation or spec_json("area"),
        "normalization_schemes": list(normalization),
        "use_mask_for_norm": list(use_mask or [False] * len(normalization)),
        "resampling_fn_data": f"{RESAMPLING}resample_image",
        "resampling_fn_data_kwargs": {},
        "resampling_fn_seg": f"{RESAMPLING}resample_segmentation",
        "resampling_fn_seg_kwargs": {},
        "resampling_fn_probabilities": f"{RESAMPLING}resample_image",
        "resampling_fn_probabilities_kwargs": {},
        "architecture": {},
        "batch_dice": False,
        "patch_free": False,
    }
    return {
        "plans_name": "srsegPlans",
        "dataset_name": "Dataset901_Tiny",
        "image_reader_writer": reader,
        "transpose_forward": list(transpose),
        "transpose_backward": [int(i) for i in np.argsort(transpose)],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(channel): STATISTICS for channel in range(len(normalization))
        },
        "configurations": {name: configuration},
    }


def managers(plans: dict) -> tuple:
    """Return plans manager and configuration manager of hand-written plans."""
    plans_manager = SRSegPlansManager(plans)
    return plans_manager, plans_manager.get_configuration(next(iter(plans["configurations"])))


def itk_properties(
    spacing: Sequence[float],
    origin_xyz: Sequence[float] = (10.0, -20.0, 30.5),
    direction_xyz: Sequence[float] = OBLIQUE,
) -> dict:
    """Return what nnU-Net's SimpleITK reader would, for a spacing (Z, Y, X)."""
    itk = {
        "spacing": tuple(spacing[::-1]),
        "origin": tuple(origin_xyz),
        "direction": tuple(direction_xyz),
    }
    return {"sitk_stuff": itk, "spacing": list(spacing)}


def world_ramp(shape: Sequence[int], spacing: Sequence[float], border: int = 0) -> RawCase:
    """Return a case whose three channels are the world x, y, z of each voxel, 0 in the border."""
    properties = itk_properties(spacing)
    image = grid_of(properties, shape).world_coordinates().astype(np.float32)
    labels = half_space(image)
    if border:
        kept = np.zeros(shape, dtype=bool)
        kept[(slice(border, -border),) * 3] = True
        image[:, ~kept] = 0
        labels[:, ~kept] = 0
    return RawCase(image, labels, properties, ["float32"] * 3)


def half_space(world_xyz: np.ndarray) -> np.ndarray:
    """Return (1, Z, Y, X) labels: 1 on one side of a skew plane through the middle, else 0."""
    distance = np.tensordot([0.5, 0.7, -0.4], world_xyz, axes=1)
    return (distance > np.median(distance)).astype(np.int16)[None]


def world_at(grid: Grid, index: np.ndarray) -> np.ndarray:
    """Return the world points (3, ...) of continuous (Z, Y, X) indices (3, ...)."""
    offset_xyz = (index * np.reshape(grid.spacing, (3, 1, 1, 1)))[::-1]
    rotated = np.tensordot(grid.rotation_xyz, offset_xyz, axes=1)
    return rotated + np.reshape(grid.origin_xyz, (3, 1, 1, 1))


def write_plans(plans: dict, raw_folder: Path, preprocessed_root: Path) -> Path:
    """Return the dataset's preprocessed folder after writing plans and dataset.json there."""
    folder = preprocessed_root / raw_folder.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{plans['plans_name']}.json").write_text(json.dumps(plans), encoding="utf-8")
    description = (raw_folder / "dataset.json").read_text(encoding="utf-8")
    (folder / "dataset.json").write_text(description, encoding="utf-8")
    return folder
