"""srseg_compare by its main: one line for each mistake, before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from srseg.cli.compare import main
from tests.evaluation.compare.model_folders import write_model
from tests.tiny_dataset import TINY_ID, TINY_NAME


def refused(capsys, argv: list[object]) -> str:
    """Return the one line of a refused command."""
    assert main([str(argument) for argument in argv]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "-d is needed"),
        (["-d", 4, "-num_epochs", 3], "-num_epochs needs --train"),
        (["-d", 4, "-time_budget", 3, "-num_workers", 0], "-time_budget, -num_workers needs --tr"),
        (["-d", 4, "--train"], "--train needs -num_epochs or -time_budget"),
        (["-d", 4, "--train", "-num_epochs", 3, "-time_budget", 1], "one of the two"),
        (["-d", 4, "-np", 0], "-np must be at least 1"),
        (["-d", 4, "-i", "in"], "-i and -gt belong together"),
        (["-d", 4, "-hr_images", "in"], "-hr_images belongs to -i and -gt"),
        (["-d", 4, "-i", "in", "-gt", "labels"], "-o is needed with -i"),
        (["-results", "docs"], "-o is needed with -results"),
        (["-results", "docs", "-o", "out", "-i", "in", "--train"], "leave out -i, --train"),
        (["-results", "no_such_folder", "-o", "out"], "no file or folder no_such_folder"),
    ],
)
def test_flags_that_do_not_go_together(capsys, argv, message):
    assert message in refused(capsys, argv)


def test_unknown_names(trained_folders: Path, capsys, tmp_path):
    known = ["-device", "cpu", "-o", tmp_path / "out"]
    assert "unknown dataset '77'" in refused(capsys, ["-d", 77, *known])
    line = refused(capsys, ["-d", TINY_ID, "-models", "nobody", *known])
    assert "unknown model 'nobody'; trained: SRSegTrainer; built in: interpolate_cubic" in line
    train = ["--train", "-num_epochs", 1]
    line = refused(capsys, ["-d", TINY_ID, "-models", "nobody", *train, *known])
    assert "unknown method 'nobody'; known: " in line
    assert "--train needs -models" in refused(capsys, ["-d", TINY_ID, *train, *known])
    line = refused(capsys, ["-d", TINY_ID, "-reference", "interpolate_cubic", *known])
    assert "reads the true labels and cannot be the reference; possible: SRSegTrainer" in line
    assert "unknown device 'tpu'" in refused(capsys, ["-d", TINY_ID, "-device", "tpu"])
    line = refused(capsys, ["-d", TINY_ID, "-groups", tmp_path / "none.csv", *known])
    assert "none.csv' does not exist" in line
    assert not (tmp_path / "out").exists()


def test_no_trained_model(trained_folders: Path, capsys, tmp_path):
    for more in (["-f", 3], ["-p", "otherPlans"], ["-c", "2d"], ["-chk", "checkpoint_x.pth"]):
        line = refused(capsys, ["-d", TINY_ID, "-device", "cpu", *more])
        assert "no trained model" in line
        assert "SRSegTrainer__srsegPlans__3d_fullres/fold_0/checkpoint_final.pth" in line


def test_models_of_different_truths(trained_folders: Path, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "nnUNet_results"))
    (tmp_path / "nnUNet_preprocessed").symlink_to(trained_folders / "nnUNet_preprocessed")
    (tmp_path / "nnUNet_results" / TINY_NAME).mkdir(parents=True)
    write_model(tmp_path, "A")
    write_model(tmp_path, "B", plans={"hr_spacing": [3.0, 0.5, 0.5]})
    argv = ["-d", TINY_ID, "-device", "cpu", "-o", tmp_path / "out"]
    assert "A and B have different HR grids: scale 1x2x2 to 3x0.9x0.8" in refused(capsys, argv)
    labels = {"labels": {"background": 0, "both": 1}}
    write_model(tmp_path, "C", dataset_json=labels)
    assert "A and C have different labels" in refused(capsys, [*argv, "-models", "A", "C"])
    assert not (tmp_path / "out").exists()
