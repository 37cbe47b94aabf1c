"""srseg_simulate by its main(argv)."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from srseg.cli.simulate import main
from tests.preprocessing.hand_plans import hand_plans, write_plans
from tests.tiny_dataset import SPACING, read_volume


@pytest.fixture
def planned(tiny_copy):
    """The tiny raw dataset, with plans in this test's own nnUNet_preprocessed."""
    root = tiny_copy.parent.parent
    write_plans(hand_plans(SPACING, (1, 2, 2)), tiny_copy, root / "nnUNet_preprocessed")
    return tiny_copy


def error_of(capsys):
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_from_a_dataset_with_labels(planned, tmp_path):
    arguments = ["-i", f"{planned}/imagesTs", "-o", f"{tmp_path}/lr", "-d", "901", "-np", "1"]
    assert main([*arguments, "-labels", f"{planned}/labelsTs"]) == 0
    lr_image, _ = read_volume(tmp_path / "lr" / "tiny_5_0000.nii.gz")
    labels, _ = read_volume(tmp_path / "lr" / "labels_hr" / "tiny_5.nii.gz")
    assert lr_image.shape == (7, 18, 15)
    assert labels.shape == (7, 36, 30)
    assert main([*arguments, "-labels", f"{planned}/labelsTs", "-labels_out", f"{tmp_path}/x"]) == 0
    assert (tmp_path / "x" / "tiny_5.nii.gz").is_file()


def test_from_a_model_folder(planned, tmp_path, nnunet_folders, capsys):
    model = tmp_path / "SRSegTrainer__srsegPlans__3d_fullres"
    model.mkdir()
    preprocessed = nnunet_folders / "nnUNet_preprocessed" / planned.name
    shutil.copy(preprocessed / "dataset.json", model)
    shutil.copy(preprocessed / "srsegPlans.json", model / "plans.json")
    arguments = ["-i", f"{planned}/imagesTs", "-o", f"{tmp_path}/lr", "-np", "1"]
    assert main([*arguments, "-m", str(model)]) == 0
    assert (tmp_path / "lr" / "tiny_5_0000.nii.gz").is_file()
    renamed = model.rename(tmp_path / "mine")
    assert main([*arguments, "-m", str(renamed)]) == 1
    assert "say the configuration by -c" in error_of(capsys)
    assert main([*arguments, "-m", str(renamed), "-c", "3d_fullres"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["-d", "7"], "unknown dataset '7'"),
        (["-d", "901", "-p", "noPlans"], "no plans 'noPlans' .* known: srsegPlans"),
        (["-d", "901", "-c", "2d"], "unknown configuration '2d' .* known: 3d_fullres"),
        (["-d", "901", "-i", "nowhere"], "the folder nowhere does not exist"),
        (["-d", "901", "-labels_out", "x"], "-labels_out was given without -labels"),
        (["-d", "901", "-np", "0"], "-np must be at least 1, got 0"),
        (["-m", "nowhere"], "nowhere is not named"),
        (["-m", "A__B__C"], "A__B__C has no dataset.json"),
        (["-m", "A__B__C", "-p", "x"], "-p chooses plans of a dataset"),
    ],
)
def test_bad_input_is_one_line(planned, tmp_path, capsys, change, message):
    arguments = ["-i", f"{planned}/imagesTs", "-o", f"{tmp_path}/lr", *change]
    assert main(arguments) == 1
    line = error_of(capsys)
    assert line.startswith("error: ")
    assert re.search(message, line)
    assert not (tmp_path / "lr").exists()


def test_a_truncated_file_is_named(planned, tmp_path, capsys):
    file = planned / "imagesTs" / "tiny_5_0000.nii.gz"
    file.write_bytes(file.read_bytes()[:2000])
    assert main(["-i", str(file.parent), "-o", f"{tmp_path}/lr", "-d", "901", "-np", "1"]) == 1
    assert "case tiny_5: cannot read" in error_of(capsys)
    assert not list((tmp_path / "lr").iterdir())


@pytest.mark.parametrize("extra", [["-dd", "901"], [], ["-d", "901", "-m", "x"], ["--labels", "x"]])
def test_usage_errors_exit_with_2(extra, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main(["-i", "a", "-o", str(tmp_path / "o"), *extra])
    assert stopped.value.code == 2


def test_plans_of_stock_nnunet_are_refused(planned, tmp_path, nnunet_folders, capsys):
    file = nnunet_folders / "nnUNet_preprocessed" / planned.name / "srsegPlans.json"
    plans = json.loads(file.read_text())
    del plans["configurations"]["3d_fullres"]["scale"]
    file.write_text(json.dumps(plans))
    assert main(["-i", f"{planned}/imagesTs", "-o", f"{tmp_path}/lr", "-d", "901"]) == 1
    assert "lacks scale" in error_of(capsys)
