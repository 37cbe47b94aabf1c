"""The trainer on a tiny dataset: one step, an exact resume, an overfit, whole validation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from srseg.inference.model_folder import load_checkpoint
from srseg.training.checkpoint import trained_steps
from srseg.training.method import load_method
from srseg.training.run import TrainingRequest, build_trainer, run_training
from tests.tiny_dataset import TINY_ID
from tests.training.resumption import gone_on, stopped_at

CPU = torch.device("cpu")
SHORT = {
    "dataset": TINY_ID,
    "configuration": "3d_fullres",
    "fold": 0,
    "device": "cpu",
    "num_epochs": 2,
    "iterations_per_epoch": 3,
    "num_workers": 0,
    "precision": "fp32",
}


def trained_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoint_final.pth")["network_weights"]


def trainer_for(**changes):
    return build_trainer(TrainingRequest(**{**SHORT, **changes}), CPU)


@pytest.fixture
def planned(trained_folders, tmp_path, monkeypatch):
    """The planned tiny dataset with a results folder of this test's own."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    return trained_folders


def test_stopped_and_resumed_gives_the_same_weights(planned, tmp_path, monkeypatch):
    whole = trainer_for(seed=3)
    whole.run_training()
    expected = trained_weights(Path(whole.output_folder))

    monkeypatch.setenv("nnUNet_results", str(tmp_path / "resumed"))
    stopped = trainer_for(seed=3)
    folder = stopped_at(stopped, 1, 0)
    latest = load_checkpoint(folder / "checkpoint_latest.pth")
    assert (latest["current_epoch"], latest["srseg"]["iteration"]) == (1, 1)
    assert not (folder / "checkpoint_final.pth").exists()

    resumed = gone_on(folder, **SHORT, seed=3)
    actual = trained_weights(folder)
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=0, atol=0, msg=name)
    assert len(resumed.logger.get_value("train_losses", None)) == 2
    assert whole.logger.get_value("train_losses", None) == pytest.approx(
        resumed.logger.get_value("train_losses", None)
    )


def test_another_seed_gives_other_weights(planned):
    first, second = trainer_for(seed=1), trainer_for(seed=2)
    first.initialize()
    second.initialize()
    assert not torch.equal(next(first.network.parameters()), next(second.network.parameters()))


def test_every_parameter_learns(planned):
    trainer = trainer_for()
    trainer.on_train_start()
    trainer.network.train()
    trainer.clock.start()
    before = {n: p.detach().clone() for n, p in trainer.network.named_parameters()}
    for _ in range(2):  # the SR head starts at zero: features behind it move from step 2 on
        trainer.train_step(next(trainer.dataloader_train))
    still = [n for n, p in trainer.network.named_parameters() if torch.equal(p, before[n])]
    coarsest_head = [n for n in still if "seg_layers" in n]  # its weight is 0, as in nnU-Net
    assert still == coarsest_head


def test_one_batch_is_overfitted_in_both_tasks(planned):
    trainer = trainer_for(num_epochs=1, iterations_per_epoch=60)
    trainer.on_train_start()
    trainer.network.train()
    batch = next(trainer.dataloader_val)
    terms = []
    for trainer.iteration in range(60):
        terms.append(trainer.train_step(batch)["terms"])
    assert terms[-1]["dice_ce"] < terms[0]["dice_ce"] - 0.5
    assert terms[-1]["sr_l1"] < 0.7 * terms[0]["sr_l1"]


def test_a_loss_that_is_not_finite_names_step_term_and_case(planned):
    trainer = trainer_for()
    trainer.on_train_start()
    batch = next(trainer.dataloader_train)
    batch["hr"] = batch["hr"] * np.nan
    with pytest.raises(RuntimeError, match=r"not finite in epoch 0, step 0 .*sr_l1.*cases"):
        trainer.train_step(batch)


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(planned):
    trainer = trainer_for()
    trainer.on_train_start()
    weights = [w for w in trainer.network.parameters() if w.requires_grad]
    before = [w.detach().clone() for w in weights]
    usual = trainer.loss

    def with_a_root_at_zero(*args):
        loss, terms = usual(*args)
        return loss + (weights[0].sum() * 0).sqrt(), terms

    trainer.loss = with_a_root_at_zero
    with pytest.raises(RuntimeError, match=r"the gradient is not finite in epoch 0, step 0"):
        trainer.train_step(next(trainer.dataloader_train))
    assert all(torch.equal(a, b) for a, b in zip(weights, before, strict=True))


def test_the_model_folder_holds_what_inference_reads(trained_folders):
    folder = next(
        (trained_folders / "nnUNet_results").glob("*/SRSegTrainer__srsegPlans__3d_fullres")
    )
    names = {path.name for path in folder.iterdir()}
    assert {"plans.json", "dataset.json", "method.json", "fold_0"} <= names
    fold = {path.name for path in (folder / "fold_0").iterdir()}
    assert {"checkpoint_final.pth", "progress.png", "training_log.jsonl", "validation"} <= fold
    summary = json.loads((folder / "fold_0/validation/summary.json").read_text(encoding="utf-8"))
    assert set(summary["mean"]) == {"1", "2"}
    sr = json.loads((folder / "fold_0/validation/sr/summary_sr.json").read_text(encoding="utf-8"))
    assert sr["mean"]["psnr_body_db"] > 0
    assert len(sr["metric_per_case"]) == len(summary["metric_per_case"])
    checkpoint = torch.load(folder / "fold_0/checkpoint_final.pth", weights_only=True)
    assert checkpoint["trainer_name"] == "SRSegTrainer"
    assert checkpoint["srseg"]["method"]["name"] == "SRSegTrainer"


def test_a_users_method_file_names_the_model_folder(planned, tmp_path):
    content = load_method("SRSegTrainer").to_json()
    content |= {"name": "Slim", "network": {"arch_kwargs": {"hr_width": 4}}}
    file = tmp_path / "slim.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    trainer = trainer_for(method=str(file))
    trainer.initialize()
    assert Path(trainer.output_folder).parent.name == "Slim__srsegPlans__3d_fullres"
    assert trainer.network.hr_stage.width == 4
    saved = json.loads((Path(trainer.output_folder_base) / "method.json").read_text("utf-8"))
    assert saved == content


def test_a_method_without_flips_predicts_without_flips(planned, tmp_path):
    content = load_method("SRSegTrainer").to_json()
    content |= {"name": "Sided", "augmentation": {"flip_probability": 0.0}}
    file = tmp_path / "sided.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    for method, axes in ((str(file), None), ("SRSegTrainer", (0, 1, 2))):
        trainer = trainer_for(method=method)
        trainer.initialize()
        trainer.get_dataloaders()
        assert trainer.inference_allowed_mirroring_axes == axes


def test_segmentation_alone_trains_without_an_sr_head(planned, tmp_path):
    content = load_method("SRSegTrainer").to_json()
    content |= {
        "name": "SegOnly",
        "losses": {"dice_ce": {"weight": 1.0}},
        "network": {"arch_kwargs": {"sr_head": False}},
    }
    file = tmp_path / "seg.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    run_training(TrainingRequest(**{**SHORT, "num_epochs": 1}, method=str(file)))
    folder = next((tmp_path / "results").glob("*/SegOnly__*/fold_0/validation"))
    assert (folder / "summary.json").is_file()
    assert not (folder / "sr").exists()


@pytest.mark.parametrize(("seconds", "steps"), [(10.0, 6), (15.0, 4)])
def test_time_budget_ends_training_and_drives_the_learning_rate(planned, seconds, steps):
    trainer = trainer_for(num_epochs=None, time_budget_minutes=1.0)
    now = [0.0]
    trainer.clock.now = lambda: now[0]
    assert trainer.num_iterations_per_epoch == 3
    step = trainer.train_step

    def slow_step(batch):
        result = step(batch)
        now[0] += seconds
        return result

    trainer.train_step = slow_step
    trainer.run_training()
    assert trainer.current_epoch == 2
    final = load_checkpoint(Path(trainer.output_folder) / "checkpoint_final.pth")
    assert trained_steps(final) == steps  # also where the last epoch is cut short
    initial = trainer.method.optimizer["learning_rate"]
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(initial * (1 / steps) ** 0.9)


def test_another_methods_checkpoint_is_refused(planned, trained_root):
    checkpoint = next(trained_root.glob("nnUNet_results/*/SRSeg*/fold_0/checkpoint_final.pth"))
    trainer = trainer_for()
    content = load_checkpoint(checkpoint)
    content["srseg"]["method"]["name"] = "PFSeg"
    with pytest.raises(ValueError, match="trained by method 'PFSeg'"):
        trainer.load_checkpoint(content)
    del content["srseg"]
    with pytest.raises(ValueError, match="not written by srseg"):
        trainer.load_checkpoint(content)


def test_a_block_that_another_trainer_reads_is_refused(planned, tmp_path):
    content = {**load_method("JOANet").to_json(), "name": "Mine", "trainer": "SRSegTrainer"}
    file = tmp_path / "misplaced.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="has the block 'phases', which its trainer SRSegTrainer"):
        trainer_for(method=str(file))


def test_guidance_for_a_network_that_takes_none_is_refused(planned, tmp_path):
    content = {**load_method("SRSegTrainer").to_json(), "name": "Mine"}
    file = tmp_path / "guided.json"
    file.write_text(json.dumps({**content, "guidance": {"policy": "centre"}}), encoding="utf-8")
    trainer = trainer_for(method=str(file))
    with pytest.raises(ValueError, match="the block 'guidance', but its network JointUNet was"):
        trainer.initialize()
