"""Folders of a real pair: an HR scan with its own grid that shows a part of what is predicted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from scipy import ndimage

from srseg.geometry.grid import IDENTITY_DIRECTION_XYZ, Grid
from srseg.images.properties import grid_of, refine_properties
from srseg.images.write import write_image, write_segmentation
from tests.evaluation.prediction_folders import (
    DATASET_JSON,
    ENDING,
    SCALE,
    SPACING,
    Folders,
    plans_of,
    write_json,
)
from tests.preprocessing.hand_plans import itk_properties, spec_json

SHAPE = (13, 22, 30)  # of the predicted grid
PROPERTIES = refine_properties(itk_properties([3.0, 1.5, 1.6]), SCALE)
GRID = grid_of(PROPERTIES, SHAPE)
BOX = (slice(2, 11), slice(3, 20), slice(5, 28))  # what the HR scan shows of it
OTHER_SHAPE, OTHER_SPACING = (33, 37, 35), (0.7, 0.6, 0.5)
BALL_MM = 9.0
CENTRE_XYZ = np.reshape(GRID.world_xyz([(n - 1) / 2 for n in SHAPE]), (3, 1, 1, 1))


def ball(grid: Grid, *, offset_mm: float = 0.0) -> np.ndarray:
    """Return labels (Z, Y, X): 1 and 2, the halves of a ball in the world, whatever the grid."""
    from_centre = grid.world_coordinates() - CENTRE_XYZ - offset_mm
    return np.where((from_centre**2).sum(0) < BALL_MM**2, 1 + (from_centre[0] > 0), 0)


def hr_texture() -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(1, *SHAPE))
    smooth = ndimage.gaussian_filter(noise, (0, 1, 2, 2))
    return (500 + 100 * smooth / smooth.std()).astype(np.float32)


def lr_texture() -> np.ndarray:
    return hr_texture().reshape(1, 13, 11, 2, 15, 2).mean((3, 5))


def write_pair(
    root: Path,
    truth: tuple[np.ndarray, np.ndarray, dict],
    predicted: tuple[np.ndarray, np.ndarray],
    *,
    lr_image: np.ndarray | None = None,
    plans: dict | None = None,
) -> Folders:
    """Write one case.

    Args:
        root: where to.
        truth: labels (Z, Y, X), HR image (1, Z, Y, X), properties of both.
        predicted: segmentation and SR image on the predicted grid.
        lr_image: (1, z, y, x).
        plans: of a paired dataset by default.
    """
    folders = Folders(root)
    labels, hr_image, properties = truth
    writer = {"reader_writer": SimpleITKIO(), "file_ending": ENDING}
    lr_properties = itk_properties([3.0, 1.5, 1.6])
    for array, file, where in (
        (labels, folders.labels / f"a{ENDING}", properties),
        (predicted[0], folders.out / f"a{ENDING}", PROPERTIES),
    ):
        write_segmentation(array.astype(np.uint8), file, where, reader_writer=SimpleITKIO)
    write_image(hr_image, folders.hr_images / "a", properties, **writer)
    write_image(predicted[1], folders.out / "sr" / "a", PROPERTIES, **writer)
    if lr_image is not None:
        write_image(lr_image, folders.lr_images / "a", lr_properties, **writer)
    write_json(DATASET_JSON, folders.out / "dataset.json")
    write_json(plans or plans_of(degradation=spec_json("paired")), folders.out / "plans.json")
    return folders


def part_pair(root: Path, *, reader: str = "SimpleITKIO", degradation: str = "paired") -> Folders:
    """Write an HR scan that is a part of the predicted grid, voxel on voxel."""
    labels, hr_image = ball(GRID), hr_texture()
    start = [part.start for part in BOX]
    truth = (
        labels[BOX],
        hr_image[:, BOX[0], BOX[1], BOX[2]],
        itk_properties(SPACING, GRID.world_xyz(start)),
    )
    plans = plans_of(degradation=spec_json(degradation), reader=reader)
    return write_pair(root, truth, part_prediction(), lr_image=lr_texture(), plans=plans)


def part_prediction() -> tuple[np.ndarray, np.ndarray]:
    """Return a segmentation with mistakes in the HR scan and outside it, and a noisy SR image."""
    segmentation = ball(GRID)
    segmentation[5:8, 9:12, 14:17] = 0
    sr_image = hr_texture() + np.random.default_rng(1).normal(0, 5, (1, *SHAPE))
    outside = np.ones(SHAPE, bool)
    outside[BOX] = False
    segmentation[outside] = 2
    sr_image[:, outside] = 1e4
    return segmentation, sr_image.astype(np.float32)


def other_grid() -> tuple[Grid, dict]:
    """Return the grid of a scan with axes of its own round the same centre, and properties."""
    half_mm = [(n - 1) / 2 * mm for n, mm in zip(OTHER_SHAPE, OTHER_SPACING, strict=True)]
    origin_xyz = CENTRE_XYZ.ravel() - half_mm[::-1]
    properties = itk_properties(OTHER_SPACING, tuple(origin_xyz), IDENTITY_DIRECTION_XYZ)
    return grid_of(properties, OTHER_SHAPE), properties
