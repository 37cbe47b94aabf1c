"""Interpolated rows: where voxels lie, what the truth's labels become, and real pairs."""

from __future__ import annotations

import numpy as np
import pytest
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from srseg.evaluation.case import CaseEvaluation, CaseFiles
from srseg.evaluation.compare.cases import CompareCase
from srseg.evaluation.compare.images import hr_inputs, with_lr_images
from srseg.evaluation.compare.interpolation import (
    INTERPOLATIONS,
    Interpolate,
    interpolated,
    labels_through_lr,
)
from srseg.evaluation.context import find_context
from srseg.geometry.grid import Grid
from srseg.images.checks import read_images, read_segmentation
from srseg.images.properties import grid_of
from srseg.metrics.segmentation import dice
from tests.evaluation.pair_folders import GRID, ball, part_pair
from tests.evaluation.prediction_folders import ENDING, SHAPES, Folders, write_folders

SCALE = (1, 2, 3)


def cases_of(folders: Folders, names=tuple(SHAPES)) -> list[CompareCase]:
    return [
        CompareCase(
            name,
            folders.labels / f"{name}{ENDING}",
            (folders.hr_images / f"{name}_0000{ENDING}",),
            (folders.lr_images / f"{name}_0000{ENDING}",),
        )
        for name in names
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Folders:
    return write_folders(tmp_path_factory.mktemp("interpolation"))


@pytest.fixture(scope="module")
def context(folders):
    return find_context(folders.out, folders.labels)


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_voxels_stay_where_they_are(name):
    """The world ramp: away from the border, a volume of its own coordinates keeps them."""
    grid = Grid((9, 10, 11), (3.0, 1.5, 2.4), (1.0, -2.0, 3.0))
    ramp = grid.world_coordinates().astype(np.float32)
    fine = grid.refined(SCALE).world_coordinates()
    found = INTERPOLATIONS[name](ramp, SCALE)
    assert found.shape == fine.shape
    inside = (slice(None), slice(3, -3), slice(8, -8), slice(12, -12))
    off = np.abs(found - fine)[inside]
    if name == "interpolate_nearest":
        assert 0 < off.max() <= 0.5 * 2.4  # half an LR voxel
        np.testing.assert_allclose(found[:, :, ::2, ::3], ramp)
    else:
        assert off.max() < 0.02  # the B-spline feels the border for a while


def test_labels_by_hand():
    """Two LR voxels of four: 3 of 4 are label 2, then 1 of 4."""
    labels = np.array([[[2, 2, 0, 2], [2, 0, 0, 0]]])
    assert labels.shape == (1, 2, 4)
    repeated = labels_through_lr(labels, (1, 2, 2), nearest=True)
    np.testing.assert_array_equal(repeated, [[[2, 2, 0, 0], [2, 2, 0, 0]]])
    linear = labels_through_lr(labels, (1, 2, 2), nearest=False)
    np.testing.assert_array_equal(linear, repeated)  # 3/4 against 1/4 on either side


def test_halves_go_to_neither_side():
    """A bar whose two ends each cut an LR voxel into halves: one is won, one is lost."""
    labels = np.zeros((1, 1, 16), int)
    labels[..., 9:13] = 1  # right of the middle
    found = labels_through_lr(labels, (1, 1, 2), nearest=True)
    np.testing.assert_array_equal(np.flatnonzero(found), [8, 9, 10, 11])
    flipped = labels_through_lr(labels[..., ::-1].copy(), (1, 1, 2), nearest=True)
    assert flipped.sum() == labels.sum()


@pytest.mark.parametrize("nearest", [True, False])
def test_volumes_stay(nearest):
    at = np.indices((24, 40, 44)) - np.reshape([11.5, 19.0, 20.5], (3, 1, 1, 1))
    labels = ((at**2).sum(0) < 9.3**2).astype(int)
    found = labels_through_lr(labels, (2, 2, 2), nearest=nearest)
    assert found.sum() == pytest.approx(labels.sum(), rel=0.05)


def test_linear_labels_round_a_corner_that_repeated_ones_keep():
    """Three labels meet; where the own LR voxel has 9/16 it still wins, so use scale 4."""
    labels = np.zeros((1, 8, 8), int)
    labels[:, :4, :4] = 1
    scale = (1, 4, 4)
    nearest = labels_through_lr(labels, scale, nearest=True)
    linear = labels_through_lr(labels, scale, nearest=False)
    np.testing.assert_array_equal(nearest, labels)
    # next to the common corner: (5/8)^2 = 0.39 of its own label
    assert linear[0, 3, 3] == 0
    assert linear[0, 0, 0] == linear[0, 2, 2] == 1


def test_what_nobody_annotated_never_wins():
    labels = np.array([[[3, 3, 3, 1], [3, 3, 0, 1]]])
    found = labels_through_lr(labels, (1, 2, 2), nearest=True, ignore=3)
    np.testing.assert_array_equal(found, [[[0, 0, 1, 1], [0, 0, 1, 1]]])
    only = labels_through_lr(np.full((1, 2, 2), 3), (1, 2, 2), nearest=True, ignore=3)
    np.testing.assert_array_equal(only, 0)


def test_files_are_predictions_like_others(folders, context, tmp_path):
    out = tmp_path / "interpolate_bspline"
    seconds = interpolated("interpolate_bspline", cases_of(folders), context, out, 1)
    assert seconds > 0
    for case in cases_of(folders):
        result = CaseEvaluation(context)(
            CaseFiles(
                case.name,
                case.label,
                out / f"{case.name}{ENDING}",
                (out / "sr" / f"{case.name}_0000{ENDING}",),
                case.hr_images,
                case.lr_images,
            )
        )
        assert result["segmentation"]["metrics"][1]["Dice"] > 0.85
        assert result["sr"]["psnr_body_gain_over_cubic_db"] == pytest.approx(0, abs=1e-4)
    written = (out / "case_a.nii.gz").stat().st_mtime_ns
    assert interpolated("interpolate_bspline", cases_of(folders), context, out, 1) == seconds
    assert (out / "case_a.nii.gz").stat().st_mtime_ns == written


def test_lr_images_are_made_once_and_again_when_hr_changes(folders, context, tmp_path):
    cases = [CompareCase(c.name, c.label, c.hr_images) for c in cases_of(folders)]
    first = with_lr_images(cases, context, tmp_path / "lr", 1)
    for made, given in zip(first, cases_of(folders), strict=True):
        np.testing.assert_array_equal(
            *(read_images(SimpleITKIO(), c.lr_images)[0] for c in (made, given))
        )
    times = [case.lr_images[0].stat().st_mtime_ns for case in first]
    first[1].lr_images[0].unlink()  # an interrupted run
    second = with_lr_images(cases, context, tmp_path / "lr", 1)
    assert second[0].lr_images[0].stat().st_mtime_ns == times[0]
    assert second[1].lr_images[0].is_file()
    copy = tmp_path / "changed_0000.nii.gz"
    copy.write_bytes(cases[0].hr_images[0].read_bytes())
    changed = CompareCase("changed", cases[0].label, (copy,))
    third = with_lr_images([changed, cases[1]], context, tmp_path / "lr", 1)
    assert {file.name for file in (tmp_path / "lr").glob("*.nii.gz")} == {
        "changed_0000.nii.gz",
        "case_b_0000.nii.gz",
    }
    assert with_lr_images(third, context, tmp_path / "unused", 1) == third
    assert not (tmp_path / "unused").exists()


def test_a_pairs_truth_comes_onto_the_predicted_grid(tmp_path):
    folders = part_pair(tmp_path)
    context = find_context(folders.out, folders.labels)
    (case,) = cases_of(folders, ["a"])
    Interpolate("interpolate_linear", context, tmp_path / "lin")(case)
    labels, properties = read_segmentation(SimpleITKIO(), tmp_path / "lin" / f"a{ENDING}")
    assert labels.shape[1:] == GRID.shape
    assert grid_of(properties, labels.shape).origin_xyz == pytest.approx(GRID.origin_xyz)
    reference = ball(GRID)
    inside = (slice(2, 11), slice(4, 20), slice(6, 28))  # of the HR scan, in whole LR voxels
    assert dice(labels[0][inside] == 1, reference[inside] == 1) > 0.9


def test_a_pairs_hr_image_is_read_on_the_predicted_grid(tmp_path):
    folders = part_pair(tmp_path)
    context = find_context(folders.out, folders.labels)
    cases = cases_of(folders, ["a"])
    files = hr_inputs(cases, context, tmp_path / "hr_inputs", 1)
    image, properties = read_images(SimpleITKIO(), files["a"])
    assert grid_of(properties, image.shape).shape == GRID.shape
    truth = read_images(SimpleITKIO(), cases[0].hr_images)[0]
    np.testing.assert_allclose(image[:, 2:11, 3:20, 5:28], truth, rtol=1e-4)
    no_pair = [CompareCase("a", cases[0].label, cases[0].hr_images)]
    with pytest.raises(ValueError, match="case a of a dataset of real pairs has no LR image"):
        with_lr_images(no_pair, context, tmp_path / "lr", 1)


def test_hr_images_are_read_as_they_are_where_lr_is_simulated(folders, context, tmp_path):
    cases = cases_of(folders)
    files = hr_inputs(cases, context, tmp_path / "unused", 1)
    assert files == {case.name: case.hr_images for case in cases}
    assert not (tmp_path / "unused").exists()
