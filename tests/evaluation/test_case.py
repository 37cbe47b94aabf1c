"""A real pair's references: another grid than the predicted one, and not the whole of it."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from skimage import io

from srseg.evaluation.folder import RESAMPLED, Evaluation, evaluate_folder
from srseg.evaluation.tables import text_table, write_evaluation
from srseg.images.write import write_image
from srseg.metrics.baselines import upsample_cubic
from srseg.metrics.summary import segmentation_metrics, sr_metrics
from tests.evaluation.pair_folders import (
    BOX,
    CENTRE_XYZ,
    GRID,
    OTHER_SHAPE,
    OTHER_SPACING,
    PROPERTIES,
    SHAPE,
    ball,
    hr_texture,
    lr_texture,
    other_grid,
    part_pair,
    part_prediction,
    write_pair,
)
from tests.evaluation.prediction_folders import ENDING, SCALE, SPACING, write_json
from tests.preprocessing.hand_plans import hand_plans, itk_properties, spec_json

TOLERANCES = {"hr_voxel": 0.75, "lr_voxel": 1.5}


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO"])
def test_an_hr_scan_of_a_part_scores_that_part(tmp_path, reader):
    folders = part_pair(tmp_path, reader=reader)
    evaluation = evaluate_folder(
        folders.labels,
        folders.out,
        hr_images=folders.hr_images,
        lr_images=folders.lr_images,
        resample_references=True,
    )
    (case,) = evaluation.segmentation["metric_per_case"]
    segmentation, sr_image = part_prediction()
    expected = segmentation_metrics(
        segmentation[BOX], ball(GRID)[BOX], [1, 2, 3], spacing=SPACING, tolerances_mm=TOLERANCES
    )
    assert 0.5 < expected[1]["Dice"] < 1
    for label, metrics in expected.items():
        assert case["metrics"][label] == pytest.approx(metrics, rel=1e-5, nan_ok=True)
    assert case["spacing_mm"] == pytest.approx(SPACING)
    assert case["reference_coverage"] == pytest.approx(9 * 17 * 23 / (13 * 22 * 30))

    (row,) = evaluation.sr["metric_per_case"]
    box = (slice(None), *BOX)
    hr_image = hr_texture()[box]
    for prefix, image in (("", sr_image), ("cubic_", upsample_cubic(lr_texture(), SCALE))):
        for key, value in sr_metrics(image[box], hr_image).items():
            assert row[f"{prefix}{key}"] == pytest.approx(value, rel=1e-3), key
    assert row["lr_images"] == str(folders.lr_images)


def test_a_scan_with_axes_of_its_own_meets_the_prediction_in_the_world(tmp_path):
    """A ball and a ramp that both grids sample; the smaller, straight scan cuts neither's sense."""
    grid, properties = other_grid()
    hr_ramp = grid.world_coordinates()[:1].astype(np.float32)
    sr_ramp = GRID.world_coordinates()[:1].astype(np.float32)
    inside = np.ones(SHAPE, bool)
    world = GRID.world_coordinates() - CENTRE_XYZ
    half_mm = [n * mm / 2 for n, mm in zip(OTHER_SHAPE[::-1], OTHER_SPACING[::-1], strict=True)]
    for line, half in zip(world, half_mm, strict=True):
        inside &= np.abs(line) <= half
    assert 0.2 < inside.mean() < 0.8
    dice = []
    for number, offset_mm in enumerate((0.0, 1.0)):
        segmentation = np.where(inside, ball(GRID, offset_mm=offset_mm), 1)
        folders = write_pair(
            tmp_path / str(number),
            (ball(grid), hr_ramp, properties),
            (segmentation, np.where(inside, sr_ramp, -1e4)),
        )
        evaluation = evaluate_folder(
            folders.labels, folders.out, hr_images=folders.hr_images, resample_references=True
        )
        (case,) = evaluation.segmentation["metric_per_case"]
        assert case["reference_coverage"] == pytest.approx(inside.mean(), abs=0.002)
        assert case["metrics"][1]["TN"] < inside.sum()
        dice.append(evaluation.segmentation["foreground_mean"]["Dice"])
        assert evaluation.sr["mean"]["mae_input_units"] < 0.05  # mm
        assert "cubic_psnr_body_db" not in evaluation.sr["mean"]
    assert dice[0] > 0.95  # the truth, sampled twice
    assert dice[1] < dice[0] - 0.05  # the truth, moved by 1 mm along each axis


def test_a_resampled_reference_never_stands_for_the_lr_image(tmp_path):
    """Simulating LR from another scan than the input would compare with an input nobody had."""
    folders = part_pair(tmp_path, degradation="area")
    options = {"hr_images": folders.hr_images, "resample_references": True}
    (row,) = evaluate_folder(folders.labels, folders.out, **options).sr["metric_per_case"]
    assert row["lr_images"] == "none"
    assert not any("cubic" in key or "consistency" in key for key in row)
    options["lr_images"] = folders.lr_images
    (row,) = evaluate_folder(folders.labels, folders.out, **options).sr["metric_per_case"]
    assert row["cubic_lr_consistency_psnr_db"] > 30


def test_the_report_says_what_was_left_out(tmp_path):
    folders = part_pair(tmp_path)
    arguments = (folders.labels, folders.out)
    evaluation = evaluate_folder(*arguments, hr_images=folders.hr_images, resample_references=True)
    assert evaluation.segmentation["references"] == evaluation.sr["references"] == RESAMPLED
    table = text_table(evaluation)
    assert "(references on the predicted grid: 41% to 41% of its voxels lie in their field" in table
    files = write_evaluation(evaluation, folders.out)
    with files[1].open(encoding="utf-8", newline="") as stream:
        row = next(csv.DictReader(stream))
    assert float(row["reference_coverage"]) == pytest.approx(0.41, abs=0.005)


def test_references_on_the_predicted_voxels_are_left_as_they_are(tmp_path):
    """The switch moves only what must be moved: padding is cut off, as without it."""
    segmentation, sr_image = part_prediction()
    truth = (ball(GRID)[:, :21, :29], hr_texture()[:, :, :21, :29], PROPERTIES)
    folders = write_pair(tmp_path, truth, (segmentation, sr_image))
    both: list[Evaluation] = [
        evaluate_folder(
            folders.labels, folders.out, hr_images=folders.hr_images, resample_references=switch
        )
        for switch in (False, True)
    ]
    without, given = (result.segmentation["metric_per_case"][0] for result in both)
    assert given.pop("reference_coverage") == pytest.approx(21 * 29 / (22 * 30))
    np.testing.assert_equal(given, without)
    assert both[0].sr["mean"] == both[1].sr["mean"]
    assert "references" not in both[0].segmentation
    assert "references on" not in text_table(both[0])


def test_without_the_switch_the_error_names_it(tmp_path):
    folders = part_pair(tmp_path)
    with pytest.raises(
        RuntimeError,
        match=r"case a: the prediction is not on its reference's grid: .*; --resample_references "
        r"brings references of another scan onto the predicted grid\.",
    ):
        evaluate_folder(folders.labels, folders.out)


def test_scans_that_do_not_meet_are_refused(tmp_path):
    grid, properties = other_grid()
    properties["sitk_stuff"]["origin"] = (500.0, 0.0, 0.0)
    truth = (ball(grid), np.zeros((1, *grid.shape), np.float32), properties)
    folders = write_pair(tmp_path, truth, part_prediction())
    with pytest.raises(RuntimeError, match="case a: the reference and the prediction have no vox"):
        evaluate_folder(folders.labels, folders.out, resample_references=True)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("hr", "case a: the HR image is not on its reference's grid"),
        ("out/sr", "case a: the SR image is not on its prediction's grid: .*; the prediction has"),
    ],
)
def test_images_must_lie_where_their_label_maps_do(tmp_path, folder, message):
    folders = part_pair(tmp_path)
    moved = itk_properties(SPACING, (10.0, -20.0, 40.0))
    image = hr_texture()
    write_image(
        image if folder == "out/sr" else image[:, BOX[0], BOX[1], BOX[2]],
        folders.root / folder / "a",
        moved,
        reader_writer=SimpleITKIO(),
        file_ending=ENDING,
    )
    with pytest.raises(RuntimeError, match=message):
        evaluate_folder(
            folders.labels, folders.out, hr_images=folders.hr_images, resample_references=True
        )


def test_formats_without_geometry_cannot_be_resampled(tmp_path):
    description = {
        "channel_names": {"0": "grey"},
        "labels": {"background": 0, "road": 1},
        "file_ending": ".png",
    }
    plans = hand_plans(
        (1.0, 1.0), (2, 2), degradation=spec_json("paired"), reader="NaturalImage2DIO"
    )
    write_json(plans, tmp_path / "out" / "plans.json")
    write_json(description, tmp_path / "out" / "dataset.json")
    for folder, width in (("labels", 31), ("out", 20)):
        (tmp_path / folder).mkdir(exist_ok=True)
        picture = np.zeros((20, width), np.uint8)
        io.imsave(tmp_path / folder / "photo.png", picture, check_contrast=False)
    message = r"case photo: the reference, in a format without geometry, .*, got \(1, 20, 31\)"
    with pytest.raises(RuntimeError, match=message):
        evaluate_folder(tmp_path / "labels", tmp_path / "out", resample_references=True)
    with pytest.raises(RuntimeError, match="not on its reference's grid") as error:
        evaluate_folder(tmp_path / "labels", tmp_path / "out")
    assert "--resample_references" not in str(error.value)  # it would not help
