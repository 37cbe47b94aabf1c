"""Validation of real pairs: what the HR scan does not show is neither right nor wrong."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from srseg.preprocessing.dataset import SRSegDataset
from srseg.preprocessing.preprocessor import SRSegPreprocessor
from srseg.training.validation import ValidationRequest, validate
from tests.inference.known_networks import NearestNetwork, dataset_json, repeated
from tests.preprocessing.hand_plans import hand_plans, managers, spec_json, write_plans
from tests.tiny_dataset import SPACING, read_volume, save_volume, tiny_affine

SCALE = (1, 2, 2)
LR_SHAPE = (7, 17, 15)
COVERED = (slice(0, 5), slice(1, 32), slice(0, 30))  # of the refined LR grid (7, 34, 30)
IGNORED = (slice(2, 4), slice(8, 12), slice(6, 10))  # of the refined LR grid: inside the organ


def write_pairs(folder: Path, description: dict) -> Path:
    """Return a raw dataset of two pairs: an organ through the whole LR scan, a short HR scan."""
    for name in ("imagesTr", "labelsTr", "imagesLrTr"):
        (folder / name).mkdir(parents=True)
    coarser = np.diag([2.0, 2.0, 1.0, 1.0])
    coarser[:2, 3] = 0.5
    shifted = np.eye(4)
    shifted[:3, 3] = [part.start for part in COVERED[::-1]]
    for case in ("a", "b"):
        lr_organ = np.zeros(LR_SHAPE, bool)
        lr_organ[:, 4:12, 3:10] = True
        labels = repeated(lr_organ.astype(np.uint8), SCALE)
        image = np.where(labels, 100, 10).astype(np.float32)
        if "ignore" in description["labels"]:
            labels[IGNORED] = description["labels"]["ignore"]
        lr_image = np.where(lr_organ, 100, 10).astype(np.float32)
        hr_affine = tiny_affine() @ shifted
        save_volume(lr_image, folder / f"imagesLrTr/{case}_0000.nii.gz", tiny_affine() @ coarser)
        save_volume(image[COVERED], folder / f"imagesTr/{case}_0000.nii.gz", hr_affine)
        save_volume(labels[COVERED], folder / f"labelsTr/{case}.nii.gz", hr_affine)
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def expected_reference(ignore_label: int, *, has_own: bool) -> np.ndarray:
    organ = np.zeros(LR_SHAPE, np.uint8)
    organ[:, 4:12, 3:10] = 1
    labels = repeated(organ, SCALE)
    expected = np.full(labels.shape, ignore_label, np.uint8)
    expected[COVERED] = labels[COVERED]
    if has_own:
        expected[IGNORED] = ignore_label
    return expected


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("labels", [{}, {"ignore": 2}], ids=["plain", "ignore"])
def test_foreground_outside_the_hr_scan_costs_no_dice(nnunet_folders, tmp_path, transpose, labels):
    description = dataset_json()
    description["labels"] |= labels
    raw = write_pairs(nnunet_folders / "nnUNet_raw/Dataset901_Tiny", description)
    plans = hand_plans(
        [SPACING[i] for i in transpose],
        [SCALE[i] for i in transpose],
        degradation=spec_json("paired"),
        transpose=transpose,
    )
    folder = write_plans(plans, raw, nnunet_folders / "nnUNet_preprocessed")
    preprocessor = SRSegPreprocessor()
    preprocessor.show_progress_bar = False
    preprocessor.run(raw.name, "3d_fullres", "srsegPlans", 1)
    plans_manager, configuration_manager = managers(plans)
    request = ValidationRequest(
        network=NearestNetwork(configuration_manager.scale_3d),
        plans_manager=plans_manager,
        configuration_manager=configuration_manager,
        dataset_json=description,
        dataset=SRSegDataset(str(folder / "srsegPlans_3d_fullres")),
        mirroring_axes=None,
        device="cpu",
        folder=tmp_path / "validation",
        raw_labels=raw / "labelsTr",
        references=tmp_path / "references",
    )
    lines = validate(request, lambda part: [part])

    prediction, affine = read_volume(tmp_path / "validation/a.nii.gz")
    np.testing.assert_array_equal(prediction[6], prediction[0])  # foreground outside the HR scan
    assert prediction[6].any()
    reference, reference_affine = read_volume(tmp_path / "references/a.nii.gz")
    np.testing.assert_allclose(affine, reference_affine)
    expected = expected_reference(2, has_own="ignore" in labels)
    np.testing.assert_array_equal(reference, expected)
    assert lines[0] == "Mean Validation Dice: 1.0000"
    summary = json.loads((tmp_path / "validation/summary.json").read_text(encoding="utf-8"))
    counted = summary["metric_per_case"][0]["metrics"]["1"]
    assert counted["FP"] + counted["TP"] + counted["FN"] + counted["TN"] == (expected != 2).sum()
    declared = json.loads((tmp_path / "references/dataset.json").read_text(encoding="utf-8"))
    assert declared == {**description, "labels": {**description["labels"], "ignore": 2}}
    assert nibabel.load(tmp_path / "references/a.nii.gz").get_data_dtype() == np.uint8
