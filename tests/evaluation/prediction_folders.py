"""Folders as `srseg_predict` leaves them, with references: two cases, odd sizes, oblique."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from scipy import ndimage

from srseg.geometry.grid import pad_to_multiple
from srseg.images.properties import coarsen_properties
from srseg.images.write import write_image, write_segmentation
from srseg.preprocessing.simulate import simulate_native
from tests.preprocessing.hand_plans import hand_plans, itk_properties, managers, spec_json

SPACING = (3.0, 0.75, 0.8)
SCALE = (1, 2, 2)
SHAPES = {"case_a": (12, 25, 27), "case_b": (13, 24, 29)}
ENDING = ".nii.gz"
DATASET_JSON = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "near": 1, "far": 2, "never": 3},
    "numTraining": 2,
    "file_ending": ENDING,
}


@dataclass(frozen=True)
class Folders:
    """Where everything lies."""

    root: Path

    @property
    def labels(self) -> Path:
        return self.root / "labels"

    @property
    def hr_images(self) -> Path:
        return self.root / "hr"

    @property
    def lr_images(self) -> Path:
        return self.root / "lr"

    @property
    def out(self) -> Path:
        return self.root / "out"


def reference_of(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (HR image (1, Z, Y, X), labels (Z, Y, X)) of smooth texture and two half-balls."""
    shape = SHAPES[case]
    generator = np.random.default_rng(len(case) + shape[0])
    texture = ndimage.gaussian_filter(generator.normal(size=shape), (1, 2, 2))
    image = (500 + 100 * texture / texture.std()).astype(np.float32)[None]
    at = np.indices(shape) - np.reshape(shape, (3, 1, 1, 1)) / 2
    ball = np.sum((at * np.reshape(SPACING, (3, 1, 1, 1))) ** 2, axis=0) < 8**2
    labels = np.where(ball, 1 + (at[2] > 0), 0)
    return image, labels


def segmentation_of(labels: np.ndarray) -> np.ndarray:
    """Return the prediction: one voxel of label 1 eroded along x, padded to the scale."""
    eroded = np.where((labels == 1) & (np.roll(labels, 1, axis=2) == 0), 0, labels)
    return pad_to_multiple(eroded, SCALE)


def sr_of(hr_image: np.ndarray) -> np.ndarray:
    """Return the SR image: the HR image with noise, padded to the scale."""
    noise = np.random.default_rng(1).normal(0, 2, hr_image.shape)
    return pad_to_multiple((hr_image + noise).astype(np.float32), SCALE)


def plans_of(**changes) -> dict:
    """Return plans of one configuration, 3d_fullres."""
    arguments = {"degradation": spec_json("identity", "kspace_crop", "kspace_crop"), **changes}
    return hand_plans(SPACING, SCALE, **arguments)


def write_folders(root: Path, *, plans: dict | None = None) -> Folders:
    """Write references, images and predictions, and return where."""
    folders = Folders(root)
    plans = plans or plans_of()
    plans_manager, configuration_manager = managers(plans)
    properties = itk_properties(SPACING)
    writer = {"reader_writer": SimpleITKIO(), "file_ending": ENDING}
    for case in SHAPES:
        hr_image, labels = reference_of(case)
        lr_image = simulate_native(hr_image, list(SPACING), plans_manager, configuration_manager)
        write_segmentation(
            labels, folders.labels / f"{case}{ENDING}", properties, reader_writer=SimpleITKIO
        )
        write_image(hr_image, folders.hr_images / case, properties, **writer)
        write_image(
            lr_image, folders.lr_images / case, coarsen_properties(properties, SCALE), **writer
        )
        write_segmentation(
            segmentation_of(labels),
            folders.out / f"{case}{ENDING}",
            properties,
            reader_writer=SimpleITKIO,
        )
        write_image(sr_of(hr_image), folders.out / "sr" / case, properties, **writer)
    write_json(DATASET_JSON, folders.out / "dataset.json")
    write_json(plans, folders.out / "plans.json")
    return folders


def write_json(content: dict, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
