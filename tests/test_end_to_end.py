"""The main job by the real commands on the tiny data: files, grids, stock tools on the output."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from srseg.cli import evaluate, predict, simulate
from srseg.plans.managers import load_plans
from tests.tiny_dataset import NUM_TRAINING, SPACING, TINY_ID, TINY_NAME, read_volume

SCALE = (1, 2, 2)
CASES = [f"tiny_{number}" for number in range(NUM_TRAINING)]
HELD_OUT = "tiny_5"


@pytest.fixture(scope="module")
def outputs(trained_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with LR images, padded references, predictions and the evaluation."""
    raw_folder = trained_root / "nnUNet_raw" / TINY_NAME
    root = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            patch.setenv(variable, str(trained_root / variable))
        argv = ["-i", str(raw_folder / "imagesTs"), "-o", str(root / "lr"), "-d", TINY_ID]
        argv += ["-labels", str(raw_folder / "labelsTs"), "-labels_out", str(root / "labels")]
        assert simulate.main(argv) == 0
        argv = ["-i", str(root / "lr"), "-o", str(root / "out"), "-d", TINY_ID, "-c", "3d_fullres"]
        argv += ["-f", "0", "-device", "cpu", "--save_probabilities"]
        assert predict.main(argv) == 0
        argv = ["-gt", str(raw_folder / "labelsTs"), "-pred", str(root / "out")]
        argv += ["-hr_images", str(raw_folder / "imagesTs")]
        assert evaluate.main(argv) == 0
    return root


def test_plans_follow_the_data(trained_root: Path):
    folder = trained_root / "nnUNet_preprocessed" / TINY_NAME
    plans_manager = load_plans(folder / "srsegPlans.json")
    configuration = plans_manager.get_configuration("3d_fullres")
    assert plans_manager.native(configuration.scale_3d) == SCALE
    assert plans_manager.native(configuration.hr_spacing) == pytest.approx(SPACING, rel=1e-4)
    spacing = np.multiply(configuration.hr_spacing, configuration.scale)
    np.testing.assert_allclose(configuration.spacing, spacing)
    assert configuration.rationale
    assert (folder / "srsegOraclePlans.json").is_file()
    assert "srseg" in json.loads((folder / "dataset_fingerprint.json").read_text(encoding="utf-8"))


def test_preprocessed_folder_is_a_stock_dataset_with_lr_beside(trained_root: Path):
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    from srseg.preprocessing.dataset import SRSegDataset

    folder = trained_root / "nnUNet_preprocessed" / TINY_NAME / "srsegPlans_3d_fullres"
    stock = infer_dataset_class(str(folder))
    assert sorted(stock.get_identifiers(str(folder))) == CASES
    dataset = SRSegDataset(str(folder))
    for case in CASES:
        hr_image, hr_seg, _, properties = dataset.load_case(case)
        lr_image = dataset.load_lr(case)
        scale = properties["srseg"]["scale"]
        assert (
            hr_image.shape[1:] == hr_seg.shape[1:] == tuple(np.multiply(scale, lr_image.shape[1:]))
        )


def test_model_folder_is_complete_and_loads_without_running_code(trained_root: Path):
    name = "SRSegTrainer__srsegPlans__3d_fullres"
    folder = trained_root / "nnUNet_results" / TINY_NAME / name
    for file in ("plans.json", "dataset.json", "method.json"):
        json.loads((folder / file).read_text(encoding="utf-8"))
    fold = folder / "fold_0"
    torch.load(fold / "checkpoint_final.pth", weights_only=True)
    assert (fold / "progress.png").stat().st_size > 0
    summary = json.loads((fold / "validation" / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["mean"]) == {"1", "2"}
    assert (fold / "validation" / "sr" / "summary_sr.json").is_file()


def test_simulated_lr_covers_the_hr_voxels(trained_root: Path, outputs: Path):
    hr_image, hr_affine = read_volume(_raw_image(trained_root))
    lr_image, lr_affine = read_volume(outputs / "lr" / f"{HELD_OUT}_0000.nii.gz")
    assert lr_image.shape == tuple(-(-n // s) for n, s in zip(hr_image.shape, SCALE, strict=True))
    low_face_xyz = np.array((-0.5, -0.5, -0.5, 1.0))
    np.testing.assert_allclose(lr_affine @ low_face_xyz, hr_affine @ low_face_xyz, atol=1e-3)
    one_lr_voxel_xyz = hr_affine[:3, :3] * np.array(SCALE[::-1])
    np.testing.assert_allclose(lr_affine[:3, :3], one_lr_voxel_xyz, atol=1e-4)


def test_predictions_lie_on_the_refined_grid(trained_root: Path, outputs: Path):
    hr_image, hr_affine = read_volume(_raw_image(trained_root))
    lr_image, _ = read_volume(outputs / "lr" / f"{HELD_OUT}_0000.nii.gz")
    segmentation, seg_affine = read_volume(outputs / "out" / f"{HELD_OUT}.nii.gz")
    sr_image, sr_affine = read_volume(outputs / "out" / "sr" / f"{HELD_OUT}_0000.nii.gz")
    assert segmentation.shape == sr_image.shape == tuple(np.multiply(SCALE, lr_image.shape))
    np.testing.assert_allclose(seg_affine, hr_affine, atol=1e-3)
    np.testing.assert_allclose(sr_affine, hr_affine, atol=1e-3)
    assert set(np.unique(segmentation)) <= {0, 1, 2}
    overlap = sr_image[tuple(slice(n) for n in hr_image.shape)]
    assert np.corrcoef(overlap.ravel(), hr_image.ravel())[0, 1] > 0.9  # input units, right place


def test_nothing_unexpected_is_left(outputs: Path):
    names = {
        file.name for file in (outputs / "out").iterdir() if file.suffix not in {".json", ".csv"}
    }
    assert names == {f"{HELD_OUT}.nii.gz", f"{HELD_OUT}.npz", f"{HELD_OUT}.pkl", "sr"}


def test_evaluation_is_written_as_json_and_csv(outputs: Path):
    tables = list((outputs / "out").rglob("*.csv"))
    assert tables
    for file in tables:
        with file.open(encoding="utf-8", newline="") as opened:
            assert list(csv.DictReader(opened))
    assert [file for file in (outputs / "out").rglob("*.json") if "summary" in file.name]


def test_stock_ensemble_and_evaluation_take_the_output(
    outputs: Path, trained_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from nnunetv2.ensembling.ensemble import entry_point_ensemble_folders
    from nnunetv2.evaluation.evaluate_predictions import evaluate_folder_entry_point

    out, ensembled = str(outputs / "out"), str(tmp_path / "ensembled")
    stock = f"nnUNetv2_ensemble -i {out} {out} -o {ensembled} -np 1"
    monkeypatch.setattr(sys, "argv", stock.split())
    entry_point_ensemble_folders()
    merged, merged_affine = read_volume(tmp_path / "ensembled" / f"{HELD_OUT}.nii.gz")
    segmentation, affine = read_volume(outputs / "out" / f"{HELD_OUT}.nii.gz")
    np.testing.assert_array_equal(merged, segmentation)
    np.testing.assert_allclose(merged_affine, affine, atol=1e-4)

    files = f"-djfile {out}/dataset.json -pfile {out}/plans.json -o {tmp_path}/stock.json -np 1"
    stock = f"nnUNetv2_evaluate_folder {outputs / 'labels'} {ensembled} {files}"
    monkeypatch.setattr(sys, "argv", stock.split())
    evaluate_folder_entry_point()
    summary = json.loads((tmp_path / "stock.json").read_text(encoding="utf-8"))
    assert len(summary["metric_per_case"]) == 1
    ours = json.loads((outputs / "out" / "summary.json").read_text(encoding="utf-8"))
    # The stock tool compares padded references, ours crops the prediction: almost the same Dice.
    for label in ("1", "2"):
        assert summary["mean"][label]["Dice"] == pytest.approx(
            ours["mean"][label]["Dice"], abs=0.02
        )


def _raw_image(trained_root: Path) -> Path:
    return trained_root / "nnUNet_raw" / TINY_NAME / "imagesTs" / f"{HELD_OUT}_0000.nii.gz"
