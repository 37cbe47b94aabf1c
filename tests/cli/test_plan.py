"""The planning and preprocessing commands, by their `main(argv)`, on the tiny dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from srseg.cli import extract_fingerprint, plan, plan_and_preprocess, preprocess
from tests.tiny_dataset import read_volume, save_volume

QUIET = ["--no_pbar"]


@pytest.fixture
def preprocessed(tiny_copy: Path, nnunet_folders: Path) -> Path:
    return nnunet_folders / "nnUNet_preprocessed/Dataset901_Tiny"


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a failed command writes."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_everything_in_one_command(preprocessed: Path, capsys: pytest.CaptureFixture[str]):
    argv = ["-d", "901", "-c", "3d_fullres", "-np", "1", "-npfp", "1", *QUIET]
    assert plan_and_preprocess.main([*argv, "--verify_dataset_integrity"]) == 0
    assert sorted(path.name for path in preprocessed.iterdir()) == [
        "dataset.json",
        "dataset_fingerprint.json",
        "gt_segmentations",
        "srsegOraclePlans.json",
        "srsegPlans.json",
        "srsegPlans_3d_fullres",
    ]
    assert len(list((preprocessed / "srsegPlans_3d_fullres").glob("*.pkl"))) == 5
    assert "scale 1 x 2 x 2" in capsys.readouterr().out


def test_three_stages_give_the_same_plans(preprocessed: Path):
    wishes = ["-scale", "1", "2", "3", "-gpu_memory_target", "4.5", "-p", "myPlans"]
    assert plan_and_preprocess.main(["-d", "901", "--no_pp", *wishes, *QUIET]) == 0
    plans_file = preprocessed / "myPlans.json"
    at_once = plans_file.read_text()
    plans_file.unlink()
    (preprocessed / "dataset_fingerprint.json").unlink()
    assert extract_fingerprint.main(["-d", "Dataset901_Tiny", "-np", "1", *QUIET]) == 0
    assert plan.main(["-d", "901", *wishes]) == 0
    assert plans_file.read_text() == at_once
    assert json.loads(at_once)["configurations"]["3d_fullres"]["scale"] == [1, 2, 3]
    argv = ["-d", "901", "-plans_name", "myPlans", "-c", "2d", "-np", "1", *QUIET]
    assert preprocess.main(argv) == 0
    assert len(list((preprocessed / "myPlans_2d").glob("*.pkl"))) == 5


@pytest.mark.parametrize("flag", ["-p", "-plans_name", "-overwrite_plans_name"])
def test_spellings_of_the_plans_name(preprocessed: Path, flag: str):
    assert plan_and_preprocess.main(["-d", "901", "--no_pp", flag, "abc", *QUIET]) == 0
    assert (preprocessed / "abc.json").is_file()


def test_lr_and_target_spacing(preprocessed: Path):
    argv = ["-d", "901", "--no_pp", *QUIET]
    assert plan_and_preprocess.main([*argv, "-lr_spacing", "6", "0.9", "0.8"]) == 0
    plans = json.loads((preprocessed / "srsegPlans.json").read_text())
    assert plans["configurations"]["3d_fullres"]["scale"] == [2, 1, 1]
    assert plan.main(["-d", "901", "-overwrite_target_spacing", "3", "1.1", "1"]) == 0
    plans = json.loads((preprocessed / "srsegPlans.json").read_text())
    assert plans["configurations"]["3d_fullres"]["hr_spacing"] == [3, 1.1, 1]


def test_all_datasets_are_checked_before_the_first_starts(
    preprocessed: Path, capsys: pytest.CaptureFixture[str]
):
    assert plan_and_preprocess.main(["-d", "901", "7", "--no_pp"]) == 1
    assert "unknown dataset '7'" in error_line(capsys)
    assert not preprocessed.exists()


@pytest.mark.parametrize("command", [extract_fingerprint, plan, preprocess, plan_and_preprocess])
@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_folder_not_set(command, variable: str, tiny_copy, capsys, monkeypatch):
    monkeypatch.delenv(variable)
    assert command.main(["-d", "901"]) == 1
    assert f"{variable} is not set" in error_line(capsys)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-c", "3d_lowres"], "unknown configuration '3d_lowres'; known: 3d_fullres, 3d_patchfree"),
        (["-p", "a__b"], "'a__b' cannot be the name of plans"),
        (["-plans_naem=x"], "'lans_naem=x' cannot be the name of plans"),
    ],
)
def test_wrong_names(preprocessed: Path, capsys, argv, message):
    assert plan_and_preprocess.main(["-d", "901", "--no_pp", *argv]) == 1
    assert message in error_line(capsys)
    assert not preprocessed.exists()  # said before the fingerprint


def test_scale_that_an_image_does_not_hold(preprocessed: Path, capsys):
    assert plan_and_preprocess.main(["-d", "901", "--no_pp", "-scale", "50", "1", "1"]) == 1
    assert "smaller than the scale 50x1x1" in error_line(capsys)
    assert not (preprocessed / "srsegPlans.json").exists()


def test_plans_without_a_fingerprint(preprocessed: Path, capsys: pytest.CaptureFixture[str]):
    assert plan.main(["-d", "901"]) == 1
    assert "run srseg_extract_fingerprint" in error_line(capsys)


def test_preprocessing_without_plans(preprocessed: Path, capsys: pytest.CaptureFixture[str]):
    assert preprocess.main(["-d", "901"]) == 1
    assert "no plans 'srsegPlans'" in error_line(capsys)


def test_bad_case_is_one_line_and_leaves_nothing(
    preprocessed: Path, tiny_copy: Path, capsys: pytest.CaptureFixture[str]
):
    file = tiny_copy / "labelsTr/tiny_3.nii.gz"
    labels, affine = read_volume(file)
    save_volume(labels + 5, file, affine)
    assert plan_and_preprocess.main(["-d", "901", "-npfp", "2", *QUIET]) == 1
    assert error_line(capsys).startswith("error: case tiny_3: the label map holds")
    assert not preprocessed.exists()


def test_verbose_shows_the_traceback(preprocessed: Path, capsys: pytest.CaptureFixture[str]):
    assert plan.main(["-d", "901", "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["-d"],
        ["-d", "901", "-scale", "2", "2"],
        ["-d", "901", "-scale", "2", "2", "0"],
        ["-d", "901", "-scale", "2", "2", "1.5"],
        ["-d", "901", "-scale", "2", "2", "2", "-lr_spacing", "2", "2", "2"],
        ["-d", "901", "-lr_spacing", "2", "2", "inf"],
        ["-d", "901", "-gpu_memory_target", "-8"],
        ["-d", "901", "-np", "0"],
        ["-d", "901", "--cleen"],
        ["-d", "901", "-scael", "2", "2", "2"],
    ],
)
def test_usage_errors(argv, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        plan_and_preprocess.main(argv)
    assert end.value.code == 2
    assert "error: " in capsys.readouterr().err
