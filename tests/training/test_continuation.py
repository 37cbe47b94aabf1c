"""A training goes on from its last moment, with the batches it began with, or not at all."""

import json
import shutil
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch

from srseg.inference.model_folder import load_checkpoint, open_model
from srseg.training import run
from srseg.training.continuation import check_same_batches, check_same_plans, newest_checkpoint
from srseg.training.method import load_method
from srseg.training.run import TrainingRequest, checkpoint_to_load, run_training
from tests.preprocessing.hand_plans import hand_plans
from tests.tiny_dataset import TINY_ID

SHORT = {
    "dataset": TINY_ID,
    "configuration": "3d_fullres",
    "fold": 0,
    "device": "cpu",
    "num_epochs": 1,
    "iterations_per_epoch": 2,
    "batch_size": 1,
    "num_workers": 0,
    "precision": "fp32",
    "seed": 3,
}
NAMES = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
DATASET_JSON = {"labels": {"background": 0, "a": 1}, "channel_names": {"0": "MR"}}


def write_checkpoint(folder, name, begun, ended, epoch=1):
    log = {"epoch_start_timestamps": begun, "epoch_end_timestamps": ended, "train_losses": []}
    content = {"network_weights": {}, "logging": log, "current_epoch": epoch}
    torch.save(content, folder / name)
    return folder / name


class TestNewest:
    def test_a_killed_retraining_is_newer_than_the_finished_one(self, tmp_path, caplog):
        final = write_checkpoint(tmp_path, NAMES[0], [1.0, 2.0], [2.0, 3.0], epoch=2)
        latest = write_checkpoint(tmp_path, NAMES[1], [7.0], [], epoch=0)
        assert newest_checkpoint([final, latest]) == latest
        (record,) = caplog.records
        assert "checkpoint_latest.pth is of a later moment of training" in record.getMessage()

    def test_a_retraining_killed_before_its_first_latest_goes_on_from_its_best(self, tmp_path):
        final = write_checkpoint(tmp_path, NAMES[0], [1.0, 2.0], [2.0, 3.0])
        best = write_checkpoint(tmp_path, NAMES[2], [7.0], [8.0])
        assert newest_checkpoint([final, best]) == best

    def test_the_times_of_the_files_do_not_count(self, tmp_path):
        latest = write_checkpoint(tmp_path, NAMES[1], [1.0, None], [2.0, None])
        final = write_checkpoint(tmp_path, NAMES[0], [1.0, 2.0], [2.0, 3.0])
        latest.touch()
        assert newest_checkpoint([final, latest]) == final

    def test_of_equals_the_first_is_taken(self, tmp_path, caplog):
        files = [write_checkpoint(tmp_path, name, [1.0], [2.0]) for name in NAMES]
        assert newest_checkpoint(files) == files[0]
        assert newest_checkpoint(files[1:]) == files[1]
        empty = [write_checkpoint(tmp_path, name, [], []) for name in NAMES]
        assert newest_checkpoint(empty) == empty[0]
        assert not caplog.records

    def test_one_of_several_that_is_damaged_is_named(self, tmp_path):
        final = write_checkpoint(tmp_path, NAMES[0], [1.0], [2.0])
        damaged = tmp_path / NAMES[1]
        damaged.touch()
        with pytest.raises(ValueError, match=r"checkpoint_latest\.pth is damaged"):
            newest_checkpoint([final, damaged])
        assert newest_checkpoint([damaged]) == damaged

    def test_validation_takes_the_final_one(self, tmp_path):
        write_checkpoint(tmp_path, NAMES[0], [1.0], [2.0])
        write_checkpoint(tmp_path, NAMES[1], [3.0], [4.0])
        for switch, name in (("only_validate", NAMES[0]), ("continue_training", NAMES[1])):
            request = TrainingRequest(**SHORT, **{switch: True})
            assert checkpoint_to_load(request, tmp_path).name == name


def trainer_and_checkpoint():
    """A trainer's settings, and a checkpoint that it may have written."""
    method, plans = load_method("SRSegTrainer"), hand_plans((4.0, 0.7, 0.25), (1, 2, 4))
    trainer = SimpleNamespace(
        seed=3,
        batch_size=2,
        fold=0,
        method=method,
        plans_manager=SimpleNamespace(plans=plans),
        dataset_json=DATASET_JSON,
    )
    checkpoint = {
        "init_args": {"plans": deepcopy(plans), "fold": 0, "dataset_json": DATASET_JSON},
        "srseg": {"seed": 3, "batch_size": 2, "method": deepcopy(method.to_json())},
    }
    return trainer, checkpoint


def test_the_same_training_may_go_on():
    trainer, checkpoint = trainer_and_checkpoint()
    checkpoint["init_args"]["plans"]["configurations"]["3d_fullres"]["batch_size"] = 7
    check_same_batches(trainer, checkpoint)
    check_same_plans(trainer, checkpoint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 4}, "trained with -seed 3, this run has -seed 4; give -seed 3 to continue"),
        ({"batch_size": 5}, "give -batch_size 2 to continue it, or train anew without --c"),
        (
            {"seed": 4, "batch_size": 5},
            "with -seed 3 -batch_size 2, this run has -seed 4 -batch_size 5; give -seed 3 -batch_s",
        ),
        ({"fold": "all"}, "of fold 0 and cannot be continued as fold all"),
        (
            {"method": SimpleNamespace(name="Mine", augmentation={"flip_probability": 0.25})},
            r"another augmentation than method 'Mine' has now \(.*flip_probability.* differ\)",
        ),
        (
            {"method": load_method("SRSegTrainer_semi")},
            r"another share of unlabelled cases than method .*semi' has now \(fraction differ\)",
        ),
    ],
)
def test_other_batches_are_refused(changes, message):
    trainer, checkpoint = trainer_and_checkpoint()
    vars(trainer).update(changes)
    with pytest.raises(ValueError, match=message):
        check_same_batches(trainer, checkpoint)


@pytest.mark.parametrize(
    ("part", "key", "name"),
    [("plans", "transpose_forward", "plans.trans"), ("dataset_json", "labels", "dataset.labels")],
)
def test_other_plans_and_labels_are_refused(part, key, name):
    trainer, checkpoint = trainer_and_checkpoint()
    checkpoint["init_args"][part] = {**checkpoint["init_args"][part], key: "other"}
    with pytest.raises(ValueError, match=rf"other plans or labels .*\({name}\w* differ\)"):
        check_same_plans(trainer, checkpoint)


@pytest.fixture
def results(trained_folders, tmp_path, monkeypatch):
    """A results folder of this test's own beside the planned tiny dataset; nothing is predicted."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.setattr(run.SRSegTrainer, "perform_actual_validation", lambda *_: None)
    return tmp_path / "results"


def fold_folder(results):
    return next(results.glob("*/SRSegTrainer__srsegPlans__3d_fullres/fold_0"))


def train(**changes):
    run_training(TrainingRequest(**{**SHORT, **changes}))


def killed(monkeypatch, **changes):
    """Train until the second step of the first epoch and stop there."""
    with monkeypatch.context() as patch:
        step = run.SRSegTrainer.train_step

        def last_step(trainer, batch):
            trainer.stop_request.made = True
            return step(trainer, batch)

        patch.setattr(run.SRSegTrainer, "train_step", last_step)
        with pytest.raises(KeyboardInterrupt):
            train(**changes)


def test_a_killed_retraining_goes_on_and_not_the_old_one(results, monkeypatch):
    train(seed=7)
    expected = load_checkpoint(fold_folder(results) / NAMES[0])["network_weights"]
    shutil.rmtree(results)

    train(num_epochs=2)
    folder = fold_folder(results)
    killed(monkeypatch, seed=7)
    assert {file.name for file in folder.glob("*.pth")} == set(NAMES)
    with pytest.raises(ValueError, match="give -seed 7 to continue"):
        train(continue_training=True)
    train(seed=7, continue_training=True)
    actual = load_checkpoint(folder / NAMES[0])
    assert (actual["current_epoch"], actual["srseg"]["seed"]) == (1, 7)
    assert not (folder / NAMES[1]).exists()
    for name, tensor in expected.items():
        torch.testing.assert_close(actual["network_weights"][name], tensor, rtol=0, atol=0)


def test_a_finished_training_goes_on_for_more_epochs(results, caplog):
    train()
    train(num_epochs=2, continue_training=True)
    checkpoint = load_checkpoint(fold_folder(results) / NAMES[0])
    assert checkpoint["current_epoch"] == 2
    assert len(checkpoint["logging"]["train_losses"]) == 2
    model = open_model(fold_folder(results).parent)
    assert model.plans_manager.plans == json.loads((model.folder / "plans.json").read_text("utf-8"))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("switch", ["continue_training", "only_validate"])
def test_other_plans_end_a_continuation_and_a_validation(
    results, trained_root, tmp_path, monkeypatch, switch
):
    train()
    preprocessed = tmp_path / "preprocessed"
    shutil.copytree(trained_root / "nnUNet_preprocessed", preprocessed)
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed))
    train(**{switch: True})
    file = next(preprocessed.glob("*/srsegPlans.json"))
    plans = json.loads(file.read_text(encoding="utf-8"))
    plans["configurations"]["3d_fullres"]["spacing"][1] *= 1.5
    file.write_text(json.dumps(plans), encoding="utf-8")
    message = r"other plans or labels .*\(plans\.configurations\.3d_fullres\.spacing differ\)"
    with pytest.raises(ValueError, match=message):
        train(**{switch: True})


def test_a_validation_needs_no_seed(results):
    train()
    train(seed=4, batch_size=2, only_validate=True)
