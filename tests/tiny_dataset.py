"""A tiny nnU-Net raw dataset: five cases, anisotropic, odd sizes, oblique, two labels."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

TINY_NAME = "Dataset901_Tiny"
TINY_ID = "901"
NUM_TRAINING = 5
SPACING = (3.0, 0.9, 0.8)  # (Z, Y, X) mm: through-plane over twice the finest, so scale (1, 2, 2)
SHAPES = ((7, 33, 30), (8, 35, 29), (7, 34, 31), (9, 33, 28), (8, 36, 33), (7, 35, 30))
OBLIQUE = np.array(((0.8, -0.6, 0.0), (0.6, 0.8, 0.0), (0.0, 0.0, 1.0)))


def tiny_affine() -> np.ndarray:
    """Return the NIfTI affine (x, y, z) that all cases share."""
    affine = np.eye(4)
    affine[:3, :3] = OBLIQUE @ np.diag(SPACING[::-1])
    affine[:3, 3] = (10.0, -20.0, 30.0)
    return affine


def tiny_case(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (image float32, labels uint8) of one case (Z, Y, X): two balls in a noisy head."""
    generator = np.random.default_rng(number)
    shape = SHAPES[number]
    at = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(float)
    at_mm = (at - (np.array(shape) - 1).reshape(3, 1, 1, 1) / 2) * np.reshape(SPACING, (3, 1, 1, 1))
    head = np.sqrt((at_mm[1] / 15) ** 2 + (at_mm[2] / 13) ** 2) < 1
    labels = np.zeros(shape, np.uint8)
    for label, side in ((1, -1), (2, 1)):
        centre_mm = np.array((0, 0, 5.0 * side)) + generator.uniform(-1.5, 1.5, 3)
        distance_mm = np.sqrt(((at_mm - centre_mm.reshape(3, 1, 1, 1)) ** 2).sum(axis=0))
        labels[distance_mm < 6.5 - 0.5 * label] = label
    labels[~head] = 0
    texture = ndimage.gaussian_filter(generator.standard_normal(shape), (0.3, 0.8, 0.8))
    image = np.choose(labels, (300.0, 700.0, 1000.0)) + 60 * texture
    return np.where(head, image, 0).astype(np.float32), labels


def write_tiny_dataset(folder: Path) -> Path:
    """Return `folder` after writing the dataset; one held-out case lies in imagesTs, labelsTs."""
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / name).mkdir(parents=True)
    for number in range(len(SHAPES)):
        part = "Tr" if number < NUM_TRAINING else "Ts"
        image, labels = tiny_case(number)
        save_volume(image, folder / f"images{part}" / f"tiny_{number}_0000.nii.gz")
        save_volume(labels, folder / f"labels{part}" / f"tiny_{number}.nii.gz")
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "left": 1, "right": 2},
        "numTraining": NUM_TRAINING,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def write_unlabelled(folder: Path, *numbers: int) -> list[str]:
    """Return the names of cases put into `imagesUnTr`: images of the tiny cases, brighter."""
    (folder / "imagesUnTr").mkdir(exist_ok=True)
    for number in numbers:
        image = 1.5 * tiny_case(number)[0]
        save_volume(image, folder / "imagesUnTr" / f"more_{number}_0000.nii.gz")
    return [f"more_{number}" for number in sorted(numbers)]


def save_volume(array: np.ndarray, file: Path, affine: np.ndarray | None = None) -> None:
    """Write an array (Z, Y, X) as NIfTI."""
    nibabel.save(nibabel.Nifti1Image(array.T, tiny_affine() if affine is None else affine), file)


def read_volume(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return an array (Z, Y, X) and its NIfTI affine."""
    image = nibabel.load(file)
    return np.asarray(image.dataobj).T, image.affine
