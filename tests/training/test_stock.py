"""nnU-Net's own trainer: what it is given, what it refuses, and that it goes on where it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from srseg.inference.model_folder import load_checkpoint
from srseg.training.profile import profile_for
from srseg.training.request import TrainingRequest
from srseg.training.run import run_training
from srseg.training.stock import build_stock_trainer, check_stock_request
from tests.conftest import FOLDER_VARIABLES
from tests.tiny_dataset import NUM_TRAINING, TINY_ID, TINY_NAME

CPU = torch.device("cpu")
FOLDER = "nnUNetTrainer__srsegOraclePlans__3d_fullres"


def request_for(**changes) -> TrainingRequest:
    known = {"dataset": TINY_ID, "configuration": "3d_fullres", "fold": 0, "device": "cpu"}
    known |= {"method": "nnUNetTrainer", "num_workers": 0, "iterations_per_epoch": 3}
    return TrainingRequest(**{**known, **changes})


@pytest.fixture
def folders(stock_root, tmp_path, monkeypatch) -> Path:
    """`stock_root` with a results folder of this test's own; no whole-case validation."""
    for variable in FOLDER_VARIABLES[:2]:
        monkeypatch.setenv(variable, str(stock_root / variable))
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", lambda self, npz: None)
    return tmp_path


@pytest.fixture
def fold_folder(folders, stock_root) -> Path:
    """The trained fold, copied into this test's results folder."""
    source = stock_root / "nnUNet_results" / TINY_NAME / FOLDER
    shutil.copytree(source, folders / TINY_NAME / FOLDER)
    return folders / TINY_NAME / FOLDER / "fold_0"


def test_what_a_training_leaves(stock_root):
    """The command ran in a process that never imported torchvision, see the fixture."""
    folder = stock_root / "nnUNet_results" / TINY_NAME / FOLDER
    checkpoint = load_checkpoint(folder / "fold_0" / "checkpoint_final.pth")
    assert (checkpoint["trainer_name"], checkpoint["current_epoch"]) == ("nnUNetTrainer", 1)
    record = checkpoint["init_args"]["srseg"]
    assert (record["batch_size"], record["iterations_per_epoch"]) == (2, 3)
    own = json.loads((folder / "srseg_plans.json").read_text(encoding="utf-8"))
    assert own == record["plans"]
    assert own["configurations"]["3d_fullres"]["scale"] == [1, 2, 2]
    assert own["configurations"]["3d_fullres"]["input"] == "hr"
    summary = json.loads((folder / "fold_0/validation/summary.json").read_text(encoding="utf-8"))
    assert len(summary["metric_per_case"]) == NUM_TRAINING // 5
    log = next((folder / "fold_0").glob("training_log*.txt")).read_text(encoding="utf-8")
    assert "srseg: batches of 2" in log
    assert "epochs of 3 + 1 iterations" in log


def test_steps_have_the_size_of_our_own(folders):
    trainer = build_stock_trainer(request_for(iterations_per_epoch=None), CPU)
    profile = profile_for(CPU, 99)
    assert trainer.configuration_manager.batch_size == profile.batch_size
    assert trainer.num_iterations_per_epoch == profile.iterations_per_epoch
    assert trainer.num_val_iterations_per_epoch == profile.val_iterations_per_epoch
    assert type(trainer) is nnUNetTrainer
    assert trainer.num_epochs == 1000
    assert build_stock_trainer(request_for(batch_size=5), CPU).configuration_manager.batch_size == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_budget_minutes": 1.0}, "not a time: give -num_epochs instead of -time_budget"),
        ({"num_gpus": 2}, "trains on one device, got -num_gpus 2"),
        ({"precision": "bf16"}, "computes in fp32 on cpu, got -precision bf16"),
        ({"plans_name": "srsegOraclePlans"}, "give -p srsegPlans or the like"),
    ],
)
def test_what_it_cannot_do_is_refused(nnunet_folders, changes, message):
    with pytest.raises(ValueError, match=message):
        run_training(request_for(**changes))
    assert not any((nnunet_folders / "nnUNet_results").iterdir())


def test_precision_on_a_gpu_is_nnunets():
    check_stock_request(request_for(precision="fp16"), torch.device("cuda"))
    with pytest.raises(ValueError, match="computes in fp16 on cuda, got -precision bf16"):
        check_stock_request(request_for(precision="bf16"), torch.device("cuda"))


def test_a_configuration_that_stock_does_not_know(folders):
    with pytest.raises(ValueError, match=r"no configuration '3d_patchfree'.*trains .*3d_fullres"):
        build_stock_trainer(request_for(configuration="3d_patchfree"), CPU)
    assert not any(folders.iterdir())


def test_missing_plans_list_what_is_there(folders, stock_root, tmp_path, monkeypatch):
    preprocessed = tmp_path / "other" / TINY_NAME
    preprocessed.mkdir(parents=True)
    source = stock_root / "nnUNet_preprocessed" / TINY_NAME
    shutil.copy(source / "srsegPlans.json", preprocessed)
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed.parent))
    with pytest.raises(FileNotFoundError, match="no plans 'srsegOraclePlans' .*known: srsegPlans"):
        build_stock_trainer(request_for(), CPU)


def test_it_goes_on_where_it_was(fold_folder):
    (fold_folder / "checkpoint_final.pth").rename(fold_folder / "checkpoint_latest.pth")
    begun = load_checkpoint(fold_folder / "checkpoint_latest.pth")
    run_training(request_for(num_epochs=2, continue_training=True))
    checkpoint = load_checkpoint(fold_folder / "checkpoint_final.pth")
    assert checkpoint["current_epoch"] == 2
    losses = checkpoint["logging"]["train_losses"]
    assert losses[:1] == begun["logging"]["train_losses"]
    assert len(losses) == 2
    assert checkpoint["init_args"]["srseg"] == begun["init_args"]["srseg"]
    assert not (fold_folder / "checkpoint_latest.pth").exists()


def test_another_length_of_epochs_is_not_continued(fold_folder):
    with pytest.raises(ValueError, match="trained with -iterations_per_epoch 3, this run has 4"):
        run_training(request_for(iterations_per_epoch=4, continue_training=True))
    with pytest.raises(ValueError, match="trained with -batch_size 2, this run has 1"):
        run_training(request_for(batch_size=1, continue_training=True))


def test_other_plans_are_not_validated(fold_folder):
    file = fold_folder / "checkpoint_final.pth"
    checkpoint = load_checkpoint(file)
    checkpoint["init_args"]["plans"]["configurations"]["3d_fullres"]["spacing"] = [3.0, 1.0, 1.0]
    torch.save(checkpoint, file)
    with pytest.raises(ValueError, match="trained with other plans or labels .*spacing differ"):
        run_training(request_for(only_validate=True))


def test_weights_follow_the_seed_or_a_checkpoint(fold_folder, monkeypatch):
    seen: list[torch.Tensor] = []

    def only_look(self):
        seen.append(next(self.network.parameters()).detach().clone())

    monkeypatch.setattr(nnUNetTrainer, "run_training", only_look)
    for seed in (1, 1, 2):
        run_training(request_for(seed=seed))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    file = fold_folder / "checkpoint_final.pth"
    run_training(request_for(pretrained_weights=str(file)))
    weights = load_checkpoint(file)["network_weights"]
    assert torch.equal(seen[3], next(iter(weights.values())))
