"""srseg_predict: flags to files, and each mistake one line."""

from __future__ import annotations

import gzip
import json
import re

import numpy as np
import pytest
import SimpleITK as sitk

from srseg.cli.predict import build_parser, main
from tests.inference.known_networks import random_case
from tests.inference.model_folders import write_model


@pytest.fixture
def results(nnunet_folders):
    return nnunet_folders / "nnUNet_results"


@pytest.fixture
def scans(tmp_path):
    for name in "ab":
        random_case(tmp_path / "in", name, (5, 9, 7))
    return tmp_path / "in"


def run(scans, *more):
    return main(["-i", str(scans), "-o", str(scans.parent / "out"), "-device", "cpu", *more])


def test_the_one_model_there_is_needs_no_naming(results, scans):
    write_model(results)
    assert run(scans) == 0
    out = scans.parent / "out"
    for name in "ab":
        segmentation = sitk.ReadImage(str(out / f"{name}.nii.gz"))
        sr_image = sitk.ReadImage(str(out / f"sr/{name}_0000.nii.gz"))
        assert segmentation.GetSize() == sr_image.GetSize() == (14, 18, 5)
        assert sr_image.GetSpacing() == pytest.approx((0.25, 0.375, 4.0))


@pytest.mark.parametrize(
    "flags",
    [
        ("-d", "901", "-c", "3d_fullres", "-p", "srsegPlans", "-tr", "SRSegTrainer"),
        ("-d", "Dataset901_Tiny", "-f", "0", "1"),
        ("-f", "1", "-chk", "checkpoint_final.pth", "-step_size", "0.75", "--disable_tta"),
        ("--one_pass", "--not_on_device", "--no_pbar", "-npp", "0", "-nps", "0", "--verbose"),
    ],
)
def test_nnunet_flags_are_taken(results, scans, flags):
    write_model(results, folds=(0, 1))
    assert run(scans, *flags) == 0
    assert (scans.parent / "out/b.nii.gz").is_file()


def test_flags_reach_the_predictor(results, scans):
    folder = write_model(results, folds=(0, 1))
    assert run(scans, "-m", str(folder), "-f", "1", "-step_size", "0.75", "--disable_tta") == 0
    record = json.loads((scans.parent / "out/predict_from_raw_data_args.json").read_text())
    assert record["folds"] == [1]
    assert record["settings"] == {
        "device": "cpu",
        "step_size": 0.75,
        "use_mirroring": False,
        "one_pass": False,
        "autocast": None,
        "results_on_device": True,
    }


def test_compression_reaches_both_files(results, scans):
    """Stored deflate blocks: level 0 is larger than what the image holds."""
    write_model(results)
    assert run(scans, "-compression", "0") == 0
    out = scans.parent / "out"
    for file in (out / "a.nii.gz", out / "sr/a_0000.nii.gz"):
        assert file.stat().st_size > len(gzip.decompress(file.read_bytes()))
    assert json.loads((out / "predict_from_raw_data_args.json").read_text())["compression"] == 0


def test_one_pass_is_not_tiled(results, scans):
    """Tiles see less context, so a network with random weights answers otherwise."""
    write_model(results)
    random_case(scans, "a", (9, 12, 14))
    images = []
    for flags in ((), ("--one_pass",)):
        assert run(scans, "--disable_tta", *flags) == 0
        file = scans.parent / "out/sr/a_0000.nii.gz"
        images.append(sitk.GetArrayFromImage(sitk.ReadImage(str(file))))
    assert images[0].shape == images[1].shape == (9, 24, 28)
    assert not np.array_equal(*images)


def test_continue_and_parts(results, scans):
    write_model(results)
    out = scans.parent / "out"
    assert run(scans, "-num_parts", "2", "-part_id", "1", "--save_probabilities") == 0
    assert not (out / "a.nii.gz").exists()
    assert {f"b.{ending}" for ending in ("npz", "pkl", "nii.gz")} <= {f.name for f in out.iterdir()}
    before = (out / "b.nii.gz").stat().st_mtime_ns
    assert run(scans, "--continue_prediction") == 0
    assert (out / "a.nii.gz").is_file()
    assert (out / "b.nii.gz").stat().st_mtime_ns == before


def test_a_method_file_names_its_method(results, scans, tmp_path):
    write_model(results, name="Mine__srsegPlans__3d_fullres")
    write_model(results)
    (tmp_path / "file.json").write_text(json.dumps({"name": "Mine"}))
    assert run(scans, "-tr", str(tmp_path / "file.json")) == 0


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_file_that_is_no_method_is_named(results, scans, tmp_path, capsys, content):
    write_model(results)
    (tmp_path / "file.json").write_text(content)
    assert run(scans, "-tr", str(tmp_path / "file.json")) == 1
    assert "file.json is no method file: it must be JSON with a name" in error_line(capsys)


def error_line(capsys):
    """Return the only line on stderr, a progress bar's aside."""
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("-compression", "10"), "whole number from 0 .none. to 9 .smallest., got 10"),
        (("-d", "5"), "unknown dataset '5'.*known: Dataset901_Tiny"),
        (("-c", "2d"), "no trained model for -c 2d.*SRSegTrainer__srsegPlans__3d_fullres"),
        (("-f", "3"), "no checkpoint_final.pth of fold 3; there is: fold_0/"),
        (("-chk", "other.pth"), "no other.pth of fold"),
        (("-m", "nowhere"), "nowhere is not a folder"),
        (("-m", "nowhere", "-d", "5"), "-m names the model already; leave out -d"),
        (("-tr", "absent.json"), "there is no method file absent.json"),
        (("-step_size", "2"), "step_size must be above 0 and at most 1, got 2.0"),
        (("-device", "tpu"), "unknown device 'tpu'; known: auto"),
        (("-part_id", "4"), "part_id must be from 0"),
    ],
)
def test_mistakes_are_one_line(results, scans, capsys, flags, message):
    write_model(results)
    assert run(scans, *flags) == 1
    line = error_line(capsys)
    assert re.search(message, line), line
    assert not (scans.parent / "out").exists()


def test_no_model_and_several_models(results, scans, capsys):
    assert run(scans) == 1
    assert "no trained model in" in error_line(capsys)
    write_model(results)
    write_model(results, name="Mine__srsegPlans__3d_fullres")
    assert run(scans) == 1
    assert "2 trained models fit without -d, so say which" in error_line(capsys)


def test_results_folder_not_set(scans, capsys, monkeypatch):
    monkeypatch.delenv("nnUNet_results")
    assert run(scans) == 1
    assert "nnUNet_results is not set" in error_line(capsys)


def test_a_bad_case_is_named(results, scans, capsys):
    write_model(results)
    (scans / "a_0000.nii.gz").write_bytes(b"no image")
    assert run(scans) == 1
    assert error_line(capsys).startswith("error: case a:")
    assert not (scans.parent / "out").exists()


@pytest.mark.parametrize("flag", ["--disable_ttta", "-stepsize=1", "--one-pass"])
def test_a_misspelt_flag_is_a_usage_error(flag):
    with pytest.raises(SystemExit) as stop:
        main(["-i", "a", "-o", "b", flag])
    assert stop.value.code == 2


def test_input_and_output_are_required():
    for arguments in ([], ["-i", "a"], ["-o", "b"]):
        with pytest.raises(SystemExit):
            build_parser().parse_args(arguments)
