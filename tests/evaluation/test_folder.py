"""Folders: the numbers are those of the arrays, whatever the grid's order; and what is refused."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from skimage import io

from srseg.evaluation.case import SIMULATED
from srseg.evaluation.context import find_context
from srseg.evaluation.folder import evaluate_folder
from srseg.images.write import write_image, write_segmentation
from srseg.metrics.summary import segmentation_metrics, sr_metrics
from tests.evaluation.prediction_folders import (
    DATASET_JSON,
    ENDING,
    SHAPES,
    SPACING,
    Folders,
    plans_of,
    reference_of,
    segmentation_of,
    sr_of,
    write_folders,
    write_json,
)
from tests.preprocessing.hand_plans import TRANSPOSES, hand_plans, itk_properties, spec_json

TOLERANCES = {"hr_voxel": 0.75, "lr_voxel": 1.5}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Folders:
    return write_folders(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture
def spoilt(folders, tmp_path) -> Folders:
    """A copy that a test may spoil."""
    shutil.copytree(folders.root, tmp_path / "copy")
    return Folders(tmp_path / "copy")


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO"])
def test_segmentation_numbers_are_those_of_the_arrays(spoilt, reader):
    """Predictions reach one voxel further along odd axes; that is left out."""
    write_json(plans_of(reader=reader), spoilt.out / "plans.json")
    evaluation = evaluate_folder(spoilt.labels, spoilt.out)
    cases = evaluation.segmentation["metric_per_case"]
    assert [case["case"] for case in cases] == list(SHAPES)
    for case in cases:
        labels = reference_of(case["case"])[1]
        assert segmentation_of(labels).shape != labels.shape
        cropped = segmentation_of(labels)[tuple(slice(n) for n in labels.shape)]
        expected = segmentation_metrics(
            cropped, labels, [1, 2, 3], spacing=SPACING, tolerances_mm=TOLERANCES
        )
        for label in (1, 2, 3):
            assert case["metrics"][label] == pytest.approx(expected[label], rel=1e-5, nan_ok=True)
        assert case["spacing_mm"] == pytest.approx(SPACING, rel=1e-6)
        assert case["tolerances_mm"] == pytest.approx(TOLERANCES, rel=1e-6)
    assert 0 < cases[0]["metrics"][1]["nsd_hr_voxel"] <= 1
    assert evaluation.sr is None


def test_means_count_the_cases_they_are_over(folders):
    summary = evaluate_folder(folders.labels, folders.out).segmentation
    cases = summary["metric_per_case"]
    dice = [case["metrics"][1]["Dice"] for case in cases]
    assert 0.5 < dice[0] < 1
    assert summary["mean"][1]["Dice"] == pytest.approx(np.mean(dice))
    assert summary["n_valid"][1]["Dice"] == summary["num_cases"] == 2
    assert math.isnan(summary["mean"][3]["Dice"])  # in no reference and no prediction
    assert summary["n_valid"][3]["Dice"] == 0
    mean = (summary["mean"][1]["Dice"] + summary["mean"][2]["Dice"]) / 2
    assert summary["foreground_mean"]["Dice"] == pytest.approx(mean)


def test_sr_numbers_are_those_of_the_arrays(folders):
    summary = evaluate_folder(folders.labels, folders.out, hr_images=folders.hr_images).sr
    context = find_context(folders.out, folders.labels)
    for row in summary["metric_per_case"]:
        hr_image, _ = reference_of(row["case"])
        expected = sr_metrics(
            sr_of(hr_image),
            hr_image,
            context.degrade(hr_image, SPACING),
            scale=(1, 2, 2),
            degrade=lambda image: context.degrade(image, SPACING),
        )
        assert row["lr_images"] == SIMULATED
        numbers = {key: row[key] for key in expected}
        assert numbers == pytest.approx(expected, rel=1e-3)
    assert summary["mean"]["psnr_body_db"] > 40
    assert summary["mean"]["cubic_psnr_body_db"] > 30  # smooth texture: a shift would cost much
    assert summary["n_valid"]["psnr_body_db"] == summary["num_cases"] == 2


@pytest.mark.parametrize("transpose", TRANSPOSES)
def test_plan_order_is_turned_into_the_readers(tmp_path, transpose):
    """A perfect SR image degrades to its LR image whichever way the plans turn the axes."""
    spec = spec_json("identity", "kspace_crop", "area")
    plan = hand_plans(
        [SPACING[i] for i in transpose],
        [(1, 2, 2)[i] for i in transpose],
        degradation={**spec, "axes": [spec["axes"][i] for i in transpose]},
        transpose=transpose,
    )
    folders = write_folders(tmp_path, plans=plan)
    context = find_context(folders.out, folders.labels)
    assert context.scale == (1, 2, 2)
    for case in SHAPES:
        hr_image, _ = reference_of(case)
        files = write_image(
            hr_image,
            folders.out / "sr" / case,
            itk_properties(SPACING),
            reader_writer=SimpleITKIO,
            file_ending=ENDING,
        )
        assert len(files) == 1
    evaluation = evaluate_folder(
        folders.labels, folders.out, hr_images=folders.hr_images, lr_images=folders.lr_images
    )
    for row in evaluation.sr["metric_per_case"]:
        assert row["lr_consistency_psnr_db"] > 90
        assert row["cubic_lr_consistency_psnr_db"] < 80
        assert row["psnr_body_db"] == math.inf
    assert evaluation.segmentation["metric_per_case"][0]["tolerances_mm"] == pytest.approx(
        TOLERANCES
    )


def test_lr_images_named_recorded_or_simulated_are_the_same(spoilt):
    named = evaluate_folder(
        spoilt.labels, spoilt.out, hr_images=spoilt.hr_images, lr_images=spoilt.lr_images
    ).sr
    simulated = evaluate_folder(spoilt.labels, spoilt.out, hr_images=spoilt.hr_images).sr
    write_json({"inputs": str(spoilt.lr_images)}, spoilt.out / "predict_from_raw_data_args.json")
    recorded = evaluate_folder(spoilt.labels, spoilt.out, hr_images=spoilt.hr_images).sr
    assert named["metric_per_case"] == recorded["metric_per_case"]
    assert named["metric_per_case"][0]["lr_images"] == str(spoilt.lr_images)
    assert simulated["mean"] == pytest.approx(named["mean"], rel=1e-4)
    shutil.rmtree(spoilt.lr_images)  # gone since
    again = evaluate_folder(spoilt.labels, spoilt.out, hr_images=spoilt.hr_images).sr
    assert again == simulated


def test_without_hr_images_the_lr_image_is_all_there_is(folders):
    evaluation = evaluate_folder(folders.labels, folders.out, lr_images=folders.lr_images)
    (row, _) = evaluation.sr["metric_per_case"]
    assert set(row) == {"case", "lr_consistency_psnr_db", "lr_images"}
    assert row["lr_consistency_psnr_db"] > 40


def test_real_pairs_cannot_be_degraded(spoilt):
    plans = plans_of(degradation=spec_json("paired"))
    write_json(plans, spoilt.out / "plans.json")
    row = evaluate_folder(
        spoilt.labels, spoilt.out, hr_images=spoilt.hr_images, lr_images=spoilt.lr_images
    ).sr["metric_per_case"][0]
    assert "lr_consistency_psnr_db" not in row
    assert row["psnr_body_gain_over_cubic_db"] == pytest.approx(
        row["psnr_body_db"] - row["cubic_psnr_body_db"]
    )
    row = evaluate_folder(spoilt.labels, spoilt.out, hr_images=spoilt.hr_images).sr
    assert "cubic_psnr_body_db" not in row["mean"]
    assert row["metric_per_case"][0]["lr_images"] == "none"
    assert evaluate_folder(spoilt.labels, spoilt.out, lr_images=spoilt.lr_images).sr is None


def test_processes_do_not_change_the_numbers(folders):
    results = [
        evaluate_folder(folders.labels, folders.out, hr_images=folders.hr_images, num_processes=n)
        for n in (1, 2)
    ]
    for part in ("segmentation", "sr"):
        np.testing.assert_equal(*(getattr(result, part) for result in results))


def test_without_srseg_plans_the_scale_is_unknown(spoilt):
    """Stock predictions: what needs the scale is left out; LR images tell it again."""
    stock = plans_of()
    for key in ("scale", "hr_spacing", "degradation"):
        del stock["configurations"]["3d_fullres"][key]
    for case in SHAPES:  # stock predictions have no padding
        write_segmentation(
            reference_of(case)[1],
            spoilt.out / f"{case}{ENDING}",
            itk_properties(SPACING),
            reader_writer=SimpleITKIO,
        )
    for plans in (stock, None):
        (spoilt.out / "plans.json").unlink(missing_ok=True)
        if plans:
            write_json(plans, spoilt.out / "plans.json")
        evaluation = evaluate_folder(
            spoilt.labels, spoilt.out, hr_images=spoilt.hr_images, lr_images=spoilt.lr_images
        )
        metrics = evaluation.segmentation["mean"][1]
        assert metrics["nsd_hr_voxel"] == metrics["Dice"] == 1
        assert "nsd_lr_voxel" not in metrics
        assert evaluation.sr["mean"]["psnr_body_gain_over_cubic_db"] > 0
        assert "lr_consistency_psnr_db" not in evaluation.sr["mean"]


def test_regions_and_ignore(spoilt):
    description = {
        **DATASET_JSON,
        "labels": {"background": 0, "whole": [1, 2], "far": [2], "ignore": 3},
        "regions_class_order": [1, 2],
    }
    write_json(description, spoilt.out / "dataset.json")
    labels = reference_of("case_a")[1]
    labels[:, :12] = 3
    write_segmentation(
        labels,
        spoilt.labels / f"case_a{ENDING}",
        itk_properties(SPACING),
        reader_writer=SimpleITKIO,
    )
    evaluation = evaluate_folder(spoilt.labels, spoilt.out)
    assert evaluation.label_names == {(1, 2): "whole", (2,): "far"}
    metrics = evaluation.segmentation["metric_per_case"][0]["metrics"]
    assert metrics[(2,)]["Dice"] == 1
    assert metrics[(1, 2)]["n_ref"] == np.isin(labels, (1, 2)).sum()
    assert metrics[(1, 2)]["FP"] == 0  # the prediction goes on where nobody annotated


def test_colour_pictures(tmp_path):
    """PNG has no geometry: predictions are simply `scale` times the input, three channels."""
    generator = np.random.default_rng(0)
    description = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "road": 1},
        "file_ending": ".png",
    }
    plans = hand_plans(
        (1.0, 1.0),
        (2, 3),
        degradation=spec_json("identity", "area", "area"),
        normalization=("ZScoreNormalization",) * 3,
        reader="NaturalImage2DIO",
    )
    write_json(plans, tmp_path / "out" / "plans.json")
    write_json(description, tmp_path / "out" / "dataset.json")
    road = np.zeros((1, 25, 32), int)
    road[0, 5:15, 4:20] = 1
    hr_image = np.repeat(generator.integers(50, 200, (3, 1, 13, 16)), 2, 2)[:, :, :25]
    hr_image = np.repeat(hr_image, 2, 3).astype(np.float32)
    sr_image = np.pad(hr_image + 1, ((0, 0), (0, 0), (0, 1), (0, 1)), mode="edge")
    writer = {"reader_writer": NaturalImage2DIO, "file_ending": ".png"}
    write_image(hr_image, tmp_path / "hr" / "photo", {}, **writer)
    write_image(sr_image, tmp_path / "out" / "sr" / "photo", {}, **writer)
    for folder, array in (("labels", road), ("out", np.pad(road, ((0, 0), (0, 1), (0, 1))))):
        (tmp_path / folder).mkdir(exist_ok=True)
        io.imsave(tmp_path / folder / "photo.png", array[0].astype(np.uint8), check_contrast=False)
    evaluation = evaluate_folder(tmp_path / "labels", tmp_path / "out", hr_images=tmp_path / "hr")
    assert evaluation.segmentation["mean"][1]["Dice"] == 1
    (row,) = evaluation.sr["metric_per_case"]
    assert [channel["mae_input_units"] for channel in row["channels"]] == [1, 1, 1]
    assert row["psnr_body_db"] == pytest.approx(
        np.mean([channel["psnr_body_db"] for channel in row["channels"]])
    )
    # Three voxels further is more than the padding of a scale of 3 can be.
    too_wide = np.pad(road, ((0, 0), (0, 1), (0, 4)))[0].astype(np.uint8)
    io.imsave(tmp_path / "out" / "photo.png", too_wide, check_contrast=False)
    with pytest.raises(RuntimeError, match="case photo: the prediction is not on its reference's"):
        evaluate_folder(tmp_path / "labels", tmp_path / "out")


def test_stock_evaluation_runs_beside_sr_images(folders, tmp_path):
    """nnUNetv2_evaluate_folder takes every file of a folder for a mask, and `sr/` is none."""
    out = tmp_path / "out"
    shutil.copytree(folders.out, out)
    for case in SHAPES:  # stock wants equal shapes, as srseg_simulate -labels gives it
        write_segmentation(
            segmentation_of(reference_of(case)[1])[tuple(slice(n) for n in SHAPES[case])],
            out / f"{case}{ENDING}",
            itk_properties(SPACING),
            reader_writer=SimpleITKIO,
        )
    stock = compute_metrics_on_folder(
        str(folders.labels),
        str(out),
        str(out / "summary.json"),
        SimpleITKIO(),
        ENDING,
        [1, 2],
        num_processes=1,
    )
    ours = evaluate_folder(folders.labels, folders.out).segmentation
    for label in (1, 2):
        for metric in ("Dice", "IoU"):
            assert ours["mean"][label][metric] == pytest.approx(stock["mean"][label][metric])


def test_missing_cases(spoilt, caplog):
    (spoilt.out / f"case_b{ENDING}").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 of 2 references have no prediction .*: case_b;"
    ):
        evaluate_folder(spoilt.labels, spoilt.out)
    summary = evaluate_folder(spoilt.labels, spoilt.out, chill=True).segmentation
    assert summary["num_cases"] == 1
    shutil.copy(spoilt.out / f"case_a{ENDING}", spoilt.out / f"case_z{ENDING}")
    evaluate_folder(spoilt.labels, spoilt.out, chill=True)
    assert "predictions without a reference are left out: case_z" in caplog.text
    (spoilt.out / f"case_a{ENDING}").unlink()
    with pytest.raises(FileNotFoundError, match="no case has both a reference in"):
        evaluate_folder(spoilt.labels, spoilt.out, chill=True)


@pytest.mark.parametrize("which", ["labels", "out", "hr_images", "lr_images"])
def test_missing_folders(folders, tmp_path, which):
    named = {"labels": folders.labels, "out": folders.out, which: tmp_path / "nowhere"}
    images = {key: named[key] for key in ("hr_images", "lr_images") if key in named}
    with pytest.raises(FileNotFoundError, match="the folder .*nowhere does not exist"):
        evaluate_folder(named["labels"], named["out"], **images)


@pytest.mark.parametrize("folder", ["out/sr", "hr", "lr"])
def test_missing_images(spoilt, folder):
    (spoilt.root / folder / f"case_b_0000{ENDING}").unlink()
    with pytest.raises(FileNotFoundError, match=f"case case_b has no image .* in .*{folder}"):
        evaluate_folder(
            spoilt.labels, spoilt.out, hr_images=spoilt.hr_images, lr_images=spoilt.lr_images
        )


def test_hr_images_without_sr_images(spoilt):
    shutil.rmtree(spoilt.out / "sr")
    with pytest.raises(FileNotFoundError, match="has no folder 'sr' with SR images"):
        evaluate_folder(spoilt.labels, spoilt.out, hr_images=spoilt.hr_images)


MOVED = itk_properties(SPACING, origin_xyz=(10.4, -20.0, 30.5))
TURNED = itk_properties(SPACING, direction_xyz=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
LARGER = itk_properties((3.0, 0.75, 0.82))


@pytest.mark.parametrize("properties", [MOVED, TURNED, LARGER], ids=["moved", "turned", "larger"])
@pytest.mark.parametrize(
    ("folder", "what"),
    [("out", "the prediction"), ("out/sr", "the SR image"), ("hr", "the HR image")],
)
def test_other_grids_are_refused(spoilt, properties, folder, what):
    _rewrite(spoilt.root / folder, properties)
    message = f"case case_a: {what} is not on its reference's grid: .* mm, origin .*; the reference"
    with pytest.raises(RuntimeError, match=message):
        evaluate_folder(spoilt.labels, spoilt.out, hr_images=spoilt.hr_images)


def test_smaller_predictions_are_refused(spoilt):
    _rewrite(spoilt.out, itk_properties(SPACING), slice(0, -3))
    with pytest.raises(
        RuntimeError, match="not on its reference's grid: 12x26x25 voxels .*12x25x27"
    ):
        evaluate_folder(spoilt.labels, spoilt.out)


def test_lr_images_on_another_grid_are_refused(spoilt):
    moved = itk_properties((3.0, 1.5, 1.6), origin_xyz=MOVED["sitk_stuff"]["origin"])
    _rewrite(spoilt.lr_images, moved)
    with pytest.raises(RuntimeError, match="the SR image is not on the LR image's grid refined by"):
        evaluate_folder(spoilt.labels, spoilt.out, lr_images=spoilt.lr_images)


def _rewrite(folder: Path, properties: dict, columns: slice = slice(None)) -> None:
    """Write the first case of a folder again with other properties, or fewer columns."""
    file = next(iter(sorted(folder.glob(f"case_a*{ENDING}"))))
    array, _ = NibabelIO().read_images((str(file),))
    array = array[..., columns]
    if "_0000" in file.name:
        write_image(
            array,
            folder / "case_a",
            properties,
            reader_writer=SimpleITKIO,
            file_ending=ENDING,
        )
    else:
        write_segmentation(array, file, properties, reader_writer=SimpleITKIO)
