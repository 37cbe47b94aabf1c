"""The demo runs real commands with flags they know, in its own folder, and says what came out."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import pytest

from srseg.cli import demo
from srseg.cli.demo_report import result_table

ARGS = argparse.Namespace(minutes=1.5, device="cpu")


@pytest.mark.parametrize("number", range(5))
def test_flags_are_the_commands_own(number: int, tmp_path: Path):
    _, command = demo._commands(ARGS, tmp_path, tmp_path / "raw")[number]
    module = importlib.import_module(f"srseg.cli.{command[0].removeprefix('srseg_')}")
    module.build_parser().parse_args(command[1:])  # exits for a flag it does not know


def test_training_gets_the_minutes_and_the_device(tmp_path: Path):
    commands = [command for _, command in demo._commands(ARGS, tmp_path, tmp_path)]
    train = next(command for command in commands if command[0] == "srseg_train")
    assert train[train.index("-time_budget") + 1] == "1.5"
    assert train[train.index("-device") + 1] == "cpu"


def test_folder_with_other_things_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "thesis.txt").write_text("precious", encoding="utf-8")
    assert demo.main(["-o", str(tmp_path)]) == 1
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: -o names")
    assert "neither new nor empty nor an earlier demo" in line
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_earlier_demo_is_replaced(tmp_path: Path):
    demo._make_room(tmp_path / "demo")
    stale = tmp_path / "demo" / "nnUNet_raw" / "stale"
    stale.mkdir()
    kept = tmp_path / "demo" / "notes.txt"
    kept.write_text("mine", encoding="utf-8")
    demo._make_room(tmp_path / "demo")
    assert not stale.exists()
    assert kept.exists()
    assert (tmp_path / "demo" / "nnUNet_results").is_dir()


@pytest.mark.parametrize("minutes", ["0", "-3", "nan"])
def test_minutes_must_be_positive(minutes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert demo.main(["-o", str(tmp_path / "demo"), "-minutes", minutes]) == 1
    assert f"-minutes is {float(minutes):g}; it must be positive" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_failing_command_ends_the_demo(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    with pytest.raises(RuntimeError, match="srseg_simulate failed with exit status 1; its message"):
        demo._run(["srseg_simulate", "-i", str(tmp_path / "no"), "-o", "x", "-d", "999"], tmp_path)
    printed = capfd.readouterr()
    assert printed.out.startswith("$ srseg_simulate -i ")
    assert printed.err.startswith("error: ")


def test_child_sees_the_demos_folders(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    demo._make_room(tmp_path / "demo")
    demo._run(["srseg_doctor"], tmp_path / "demo")
    printed = capfd.readouterr().out
    assert str(tmp_path / "demo" / "nnUNet_results") in printed
    assert "no problem found" in printed


def test_table_shows_cubic_ours_and_gain():
    means = {"psnr_body_db": 31.256, "psnr_whole_db": 32.0, "ssim_body": 0.95, "ssim_whole": 0.96}
    cubic = {"psnr_body_db": 29.25, "psnr_whole_db": 30.5, "ssim_body": 0.9, "ssim_whole": 0.97}
    sr_summary = {
        "mean": {**means, **{f"cubic_{key}": value for key, value in cubic.items()}},
        "num_cases": 3,
    }
    summary = {"mean": {"1": {"Dice": 0.87654}}}
    lines = result_table(summary, sr_summary, {1: "grey_matter"})
    words = [line.split() for line in lines]
    assert ["PSNR,", "body", "(dB)", "29.25", "31.26", "+2.01"] in words
    assert ["SSIM,", "whole", "0.9700", "0.9600", "-0.0100"] in words
    assert ["Dice,", "grey", "matter", "-", "0.8765"] in words
    assert lines[-1] == "means over 3 held-out subjects"
