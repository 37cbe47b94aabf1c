"""A training request is checked before anything is computed."""

import json
from pathlib import Path

import pytest
import torch

from srseg.training.run import (
    TrainingRequest,
    build_trainer,
    checked_fold,
    checked_profile,
    checkpoint_to_load,
    run_training,
)
from tests.tiny_dataset import TINY_ID

CPU = torch.device("cpu")


def request(**changes) -> TrainingRequest:
    return TrainingRequest(
        **{"dataset": TINY_ID, "configuration": "3d_fullres", "fold": 0, "device": "cpu", **changes}
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_epochs": 0}, "-num_epochs is 0"),
        ({"iterations_per_epoch": -1}, "-iterations_per_epoch is -1"),
        ({"num_workers": -1}, "-num_workers is -1"),
        ({"time_budget_minutes": 0.0}, "-time_budget is 0.0"),
        ({"num_epochs": 5, "time_budget_minutes": 2.0}, "of 5 epochs has no -time_budget"),
        ({"precision": "fp8"}, "unknown precision 'fp8'; known: fp32, bf16, fp16"),
        ({"precision": "fp16"}, "needs a CUDA device"),
    ],
)
def test_numbers_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        checked_profile(request(**changes), CPU, 2)


def test_the_users_numbers_win_and_validation_keeps_its_share():
    profile = checked_profile(
        request(iterations_per_epoch=30, batch_size=5, num_workers=0, precision="fp32"), CPU, 9
    )
    assert (profile.iterations_per_epoch, profile.val_iterations_per_epoch) == (30, 3)
    assert (profile.batch_size, profile.num_workers, profile.precision) == (5, 0, "fp32")


def test_folds(tmp_path):
    splits = tmp_path / "splits_final.json"
    assert checked_fold("all", splits) == "all"
    assert checked_fold("4", splits) == 4
    splits.write_text(json.dumps([{}, {}]), encoding="utf-8")
    with pytest.raises(ValueError, match="unknown fold '2'; known: 0, 1, all"):
        checked_fold(2, splits)
    with pytest.raises(ValueError, match="unknown fold 'first'"):
        checked_fold("first", splits)


def test_contradictions_are_named():
    with pytest.raises(ValueError, match="give one"):
        run_training(request(continue_training=True, pretrained_weights="a.pth"))
    with pytest.raises(ValueError, match="--val_best needs checkpoints"):
        run_training(request(validate_best=True, disable_checkpointing=True))
    with pytest.raises(ValueError, match="this machine has 0"):
        run_training(request(num_gpus=2))


def test_missing_checkpoints_list_what_is_there(tmp_path):
    assert checkpoint_to_load(request(), tmp_path) is None
    (tmp_path / "checkpoint_best.pth").touch()
    with pytest.raises(FileNotFoundError, match=r"checkpoint_final.pth .*present: checkpoint_best"):
        checkpoint_to_load(request(only_validate=True), tmp_path)
    found = checkpoint_to_load(request(continue_training=True), tmp_path)
    assert found == tmp_path / "checkpoint_best.pth"


def test_a_method_that_asks_for_unlabelled_cases_is_refused_without_them(
    trained_folders, tmp_path, monkeypatch
):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))  # it leaves a model folder
    semi = {"method": "SRSegTrainer_semi"}
    with pytest.raises(ValueError, match="asks for cases without labels and .* holds none"):
        build_trainer(request(**semi), CPU)
    build_trainer(request(**semi, only_validate=True), CPU)  # needs none


def test_unprocessed_dataset_says_what_to_run(trained_folders, tmp_path, monkeypatch):
    preprocessed = Path(tmp_path / "preprocessed")
    source = next((trained_folders / "nnUNet_preprocessed").iterdir())
    target = preprocessed / source.name
    target.mkdir(parents=True)
    for file in ("srsegPlans.json", "dataset.json"):
        (target / file).write_bytes((source / file).read_bytes())
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed))
    with pytest.raises(FileNotFoundError, match="run srseg_preprocess"):
        build_trainer(request(), CPU)
