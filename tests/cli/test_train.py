"""srseg_train's `-encoder`: a checkpoint, or somebody's module, from flags to files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from srseg.cli import compare, predict, train
from srseg.inference.model_folder import load_checkpoint
from tests.tiny_dataset import TINY_ID, TINY_NAME
from tests.user_modules import write_user_module

SHORT = "-device cpu -num_epochs 1 -iterations_per_epoch 2 -num_workers 0 -seed 7"


@pytest.fixture
def results(trained_folders, tmp_path, monkeypatch):
    """A results folder of this test's own, for the planned tiny dataset."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    return tmp_path / "results" / TINY_NAME / "SRSegTrainer__srsegPlans__3d_fullres"


def run(*flags: str) -> int:
    return train.main([TINY_ID, "3d_fullres", "0", *SHORT.split(), *flags])


def encoder_of(checkpoint_file: Path) -> dict[str, torch.Tensor]:
    weights = load_checkpoint(checkpoint_file)["network_weights"]
    return {name: tensor for name, tensor in weights.items() if name.startswith("encoder.")}


def test_an_encoder_is_taken_from_a_checkpoint(trained_folders, results):
    source = trained_folders / "nnUNet_results" / results.parent.name / results.name
    source = source / "fold_0" / "checkpoint_final.pth"
    assert run("-encoder", str(source)) == 0
    final = results / "fold_0" / "checkpoint_final.pth"
    expected, found = encoder_of(source), encoder_of(final)
    assert found
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    record = load_checkpoint(final)["srseg"]["encoder"]
    assert record["source"] == str(source)
    assert (results / "fold_0" / "validation" / "summary.json").is_file()


def test_a_missing_encoder_is_one_line(results, capsys):
    assert run("-encoder", "nothing.pth") == 1
    assert capsys.readouterr().err == "error: no checkpoint at nothing.pth (-encoder).\n"


def test_a_users_module_is_trained_around_and_predicts_with_trust_alone(
    results, trained_folders, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    module = write_user_module(tmp_path, ((1, 1, 1), (2, 2, 2), (1, 2, 2)))
    assert run("-encoder", module.path()) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: -encoder has the encoder {module.path()}, which is no part")
    assert "would run code of somebody" in error
    assert error.count("\n") == 1
    assert not module.was_imported
    assert not results.exists()

    assert run("-encoder", module.path(), "--trust") == 0
    summary = json.loads((results / "fold_0" / "validation" / "summary.json").read_text())
    assert summary["metric_per_case"]

    for name in (module.name, module.name.partition(".")[0]):
        del sys.modules[name]
    module.marker.unlink()
    images = trained_folders / "nnUNet_raw" / TINY_NAME / "imagesTs"
    argv = ["-i", str(images), "-o", str(tmp_path / "out"), "-m", str(results), "-device", "cpu"]
    capsys.readouterr()
    comparing = ["-d", TINY_ID, "-device", "cpu", "-models", "SRSegTrainer"]
    for command, flags in ((predict.main, argv), (compare.main, comparing)):
        assert command(flags) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {results} has the encoder {module.path()}, which is no")
        assert "would run code of somebody" in error
        assert error.count("\n") == 1
        assert not module.was_imported
    assert not (tmp_path / "out" / "tiny_5.nii.gz").exists()

    assert predict.main([*argv, "--trust", "--disable_tta"]) == 0
    assert module.was_imported
    assert (tmp_path / "out" / "tiny_5.nii.gz").is_file()
