"""The demo's dataset: subjects made from the MNI152 templates inside nilearn's wheel.

Each subject is the template under its own smooth deformation, contrast, bias field and noise, read
out on an axial slab at `SPACING_MM` (averages over 152 heads hold no detail that this would alias).
Arrays here are in NIfTI's (X, Y, Z) order, lengths in mm.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from tqdm import tqdm

DATASET_NAME = "Dataset999_Demo"
SPACING_MM = 2.0
SLAB_SHAPE = (78, 98, 24)  # at least: the brain's whole width and length, 48 mm of height
SLAB_CENTRE_MM = (0.0, -18.0, 10.0)  # MNI: basal ganglia, ventricles and insula lie in the slab
LABELS = {"background": 0, "grey_matter": 1, "white_matter": 2}
WARP_KNOTS_MM = 24.0
WARP_SD_MM = 2.5
NOISE_SD = 0.01  # of the white matter's intensity
SPLINE_SD = (151 / 315) ** 1.5  # of a 3-D cubic B-spline with unit white noise at its knots


@dataclass(frozen=True)
class Templates:
    """T1 intensity and the two tissue probabilities on one grid of 1 mm, each (X, Y, Z)."""

    t1: np.ndarray
    grey: np.ndarray
    white: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class Subject:
    """One made subject: `image` int16 and `labels` uint8, both (X, Y, Z), and their affine."""

    image: np.ndarray
    labels: np.ndarray
    affine: np.ndarray


def build_demo_dataset(
    raw_folder: Path, *, num_training: int, num_test: int, seed: int = 0, show_progress: bool = True
) -> Path:
    """Return the folder of the written raw dataset, with held-out cases in imagesTs and labelsTs.

    Subject i depends on (`seed`, i) only. dataset.json is written last, so a folder that has it is
    complete.

    Raises:
        ValueError: if nilearn is not installed, or fewer than 5 training subjects (nnU-Net makes
            five folds of them) or no test subject are asked for.
    """
    if num_training < 5 or num_test < 1:
        raise ValueError(
            f"the demo needs at least 5 training subjects and 1 test subject, got {num_training} "
            f"and {num_test}."
        )
    dataset_folder = raw_folder / DATASET_NAME
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (dataset_folder / name).mkdir(parents=True, exist_ok=True)
    templates = load_templates()
    cases = list(_cases(num_training, num_test))
    for number, (case, part) in enumerate(
        tqdm(cases, desc="making subjects", disable=None if show_progress else True)
    ):
        subject = make_subject(templates, np.random.default_rng((seed, number)))
        _save(
            subject.image, subject.affine, dataset_folder / f"images{part}" / f"{case}_0000.nii.gz"
        )
        _save(subject.labels, subject.affine, dataset_folder / f"labels{part}" / f"{case}.nii.gz")
    description = {
        "name": "Demo",
        "description": "Deformed MNI152 T1 templates with grey and white matter",
        "reference": "MNI ICBM 152 non-linear symmetric 2009a, as shipped with nilearn",
        "channel_names": {"0": "MRI"},
        "labels": LABELS,
        "numTraining": num_training,
        "file_ending": ".nii.gz",
    }
    (dataset_folder / "dataset.json").write_text(
        json.dumps(description, indent=2), encoding="utf-8"
    )
    return dataset_folder


def load_templates() -> Templates:
    """Return the MNI152 templates of 1 mm from nilearn's wheel; nothing is downloaded.

    Raises:
        ValueError: if nilearn is not installed.
    """
    try:
        from nilearn import datasets
    except ModuleNotFoundError as error:
        raise ValueError(
            "the demo takes its templates from nilearn, which is not installed; install it with "
            "pip install 'srseg[demo]'."
        ) from error
    t1 = datasets.load_mni152_template(resolution=1)
    tissues = (datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    grey, white = (np.asarray(load(resolution=1).dataobj, np.float32) for load in tissues)
    return Templates(np.asarray(t1.dataobj, np.float32), grey, white, np.asarray(t1.affine))


def make_subject(templates: Templates, generator: np.random.Generator) -> Subject:
    """Return one subject: the templates deformed, with contrast, bias field and noise of its own.

    Voxels outside the head are exactly 0, as in skull-stripped scans.
    """
    shape = tuple(int(n) for n in SLAB_SHAPE + generator.integers(0, 4, 3))  # odd sizes too
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    affine[:3, 3] = SLAB_CENTRE_MM - SPACING_MM * (np.array(shape) - 1) / 2
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(np.float32)
    points_mm = _apply(affine, index)
    points_mm = (
        _head_pose(points_mm, generator)
        + smooth_noise(shape, 3, WARP_KNOTS_MM / SPACING_MM, generator) * WARP_SD_MM
    )
    at = _apply(np.linalg.inv(templates.affine), points_mm)
    t1, grey, white = (
        ndimage.map_coordinates(array, at, order=1, mode="constant")
        for array in (templates.t1, templates.grey, templates.white)
    )
    head = t1 > 0.05
    labels = np.zeros(shape, np.uint8)
    labels[head & (grey > 0.5)] = LABELS["grey_matter"]
    labels[head & (white > 0.5)] = LABELS["white_matter"]

    contrast = np.clip(t1, 0, 1) ** generator.uniform(0.85, 1.15)
    bias = np.exp(0.1 * smooth_noise(shape, 1, 60.0 / SPACING_MM, generator)[0])
    noisy = contrast * bias + NOISE_SD * generator.standard_normal(shape)
    units = generator.uniform(600, 1400)  # scanners have no common unit
    image = np.where(head, np.maximum(np.rint(units * noisy), 1), 0).astype(np.int16)
    return Subject(image, labels, affine)


def smooth_noise(
    shape: tuple[int, ...], channels: int, knots: float, generator: np.random.Generator
) -> np.ndarray:
    """Return (channels, *shape) spline noise of unit variance with a knot every `knots` voxels."""
    counts = [int(np.ceil(n / knots)) + 4 for n in shape]
    control = generator.standard_normal((channels, *counts)) / SPLINE_SD
    shift = generator.uniform(1, 2, 3)
    axes = [np.arange(n) / knots + offset for n, offset in zip(shape, shift, strict=True)]
    at = np.stack(np.meshgrid(*axes, indexing="ij"))
    return np.stack([ndimage.map_coordinates(c, at, order=3, prefilter=False) for c in control])


def _head_pose(points_mm: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return points (3, X, Y, Z) under a small rotation, scaling and shift about the slab."""
    angles = np.deg2rad(generator.uniform(-6, 6, 3))
    matrix = np.diag(generator.uniform(0.94, 1.06, 3))
    for axis, angle in enumerate(angles):
        first, second = (other for other in range(3) if other != axis)
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    centre = np.array(SLAB_CENTRE_MM)
    pose = np.eye(4)
    pose[:3, :3] = matrix
    pose[:3, 3] = centre - matrix @ centre + generator.uniform(-4, 4, 3)
    return _apply(pose, points_mm)


def _apply(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return points (3, ...) mapped by a 4 x 4 affine."""
    moved = np.tensordot(affine[:3, :3], points, axes=1)
    return moved + affine[:3, 3].reshape(3, *[1] * (points.ndim - 1))


def _cases(num_training: int, num_test: int) -> Iterator[tuple[str, str]]:
    """Yield (case, "Tr" or "Ts")."""
    for number in range(num_training + num_test):
        yield f"demo_{number:03d}", "Tr" if number < num_training else "Ts"


def _save(array: np.ndarray, affine: np.ndarray, file: Path) -> None:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=4)  # 4: MNI152 coordinates
    image.set_sform(affine, code=4)
    nib.save(image, file)
