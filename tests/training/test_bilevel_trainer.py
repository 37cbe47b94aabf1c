"""The bi-level trainer: both levels learn, each on its cases, and a stopped training goes on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from srseg.geometry.separable import resample
from srseg.inference.predictor import Predictor
from srseg.training.method import load_method
from tests.training.resumption import gone_on, stopped_at
from tests.training.test_trainer import SHORT, planned, trained_weights, trainer_for

__all__ = ["planned"]  # a fixture


def method_with(folder, name, **changes):
    content = load_method("BiLevel").to_json()
    content["network"]["arch_kwargs"]["sr_network"] = {"name": "edsr", "width": 4, "num_blocks": 1}
    content["network"]["arch_kwargs"]["features_per_stage"] = 4
    for path, value in changes.items():
        place = content
        *outer, key = path.split("__")
        for part in outer:
            place = place[part]
        place[key] = value
    file = folder / f"{name}.json"
    file.write_text(json.dumps({**content, "name": name}), encoding="utf-8")
    return str(file)


@pytest.fixture
def method_file(tmp_path):
    """BiLevel with a network that costs nothing."""
    return method_with(tmp_path, "TwoLevels")


def started(method_file, **options):
    trainer = trainer_for(method=method_file, **options)
    trainer.on_train_start()
    trainer.network.train()
    return trainer


def test_both_levels_learn_and_are_logged(planned, method_file):
    trainer = started(method_file)
    before = {n: p.detach().clone() for n, p in trainer.network.named_parameters()}
    for trainer.iteration in range(2):  # the SR head starts at zero: what is behind it waits
        result = trainer.train_step(next(trainer.dataloader_train))
    still = [n for n, p in trainer.network.named_parameters() if torch.equal(p, before[n])]
    assert all("seg_layers" in name for name in still)  # the coarsest head's weight is 0
    assert set(result["terms"]) == {
        "lower/dice_ce", "upper/dice_ce", "upper/sr_l1", "ratio", "correction_norm",
    }  # fmt: skip
    assert result["terms"]["correction_norm"] > 1e-6
    assert result["loss"] == pytest.approx(
        result["terms"]["upper/dice_ce"] + 10 * result["terms"]["upper/sr_l1"], rel=1e-5
    )
    assert all(p.grad is None for p in trainer.network.parameters())


def test_the_correction_is_what_the_segmenter_would_answer(planned, method_file):
    """Against gradients taken here: the SR network's step is that of the corrected one."""
    trainer = started(method_file)
    batch = next(trainer.dataloader_train)
    trainer.train_step(batch)  # from here on the SR head lets gradients through
    network, levels = trainer.network, trainer.level_losses
    theta, omega = list(network.segmenter.parameters()), list(network.sr_network.parameters())
    kept = []
    trainer.upper_optimizer.step = lambda: kept.extend(p.grad.clone() for p in omega)
    trainer.train_step(batch)  # theta has moved, omega stays: theta is where the paper looks

    def gradients(level):
        output = network(batch[level]["data"])
        loss, _ = levels[level](output, batch[level], trainer._progress())
        found = torch.autograd.grad(
            loss, [*theta, *omega], materialize_grads=True, allow_unused=True
        )
        flat = [
            torch.cat([g.flatten() for g in part])
            for part in (found[: len(theta)], found[len(theta) :])
        ]
        return flat

    (theta_low, omega_low), (theta_up, omega_up) = gradients("lower"), gradients("upper")
    ratio = (theta_up @ theta_low) / (theta_low @ theta_low + 1e-8)
    expected = omega_up - ratio * omega_low
    expected = expected * min(1.0, 12 / float(expected.norm()))
    actual = torch.cat([g.flatten() for g in kept])
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5)
    assert float((ratio * omega_low).norm()) > 1e-3


def test_levels_see_cases_of_their_own_and_never_a_validation_case(planned, method_file):
    trainer = started(method_file, iterations_per_epoch=12)
    seen = {"lower": set(), "upper": set()}
    for _ in range(12):
        batch = next(trainer.dataloader_train)
        for level in seen:
            seen[level] |= set(batch[level]["keys"])
    training, validation = trainer.do_split()
    assert seen["lower"].isdisjoint(seen["upper"])
    assert seen["lower"] | seen["upper"] == set(training)
    assert not (seen["lower"] | seen["upper"]) & set(validation)


def test_a_batch_follows_from_its_number_alone(planned, method_file):
    first, second = started(method_file, seed=5), started(method_file, seed=5)
    batches = [next(first.dataloader_train) for _ in range(4)]
    second.current_epoch, second.iteration = 1, 0  # epochs of 3
    later = next(second.get_dataloaders()[0])
    for level in ("lower", "upper"):
        assert batches[3][level]["keys"] == later[level]["keys"]
        assert torch.equal(batches[3][level]["data"], later[level]["data"])


def test_a_stopped_training_goes_on_to_the_same_weights(
    planned, method_file, tmp_path, monkeypatch
):
    whole = trainer_for(method=method_file)
    whole.run_training()
    expected = trained_weights(Path(whole.output_folder))

    monkeypatch.setenv("nnUNet_results", str(tmp_path / "resumed"))
    stopped = trainer_for(method=method_file)
    folder = stopped_at(stopped, 1, 0)
    gone_on(folder, **{**SHORT, "method": method_file})
    actual = trained_weights(folder)
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=0, atol=0, msg=name)


def test_one_pair_of_batches_is_overfitted(planned, tmp_path):
    file = method_with(
        tmp_path,
        "Fast",
        optimizer__learning_rate=0.01,
        network__arch_kwargs__sr_network={"name": "edsr", "width": 8, "num_blocks": 1},
        network__arch_kwargs__features_per_stage=8,
    )
    trainer = started(file, num_epochs=1, iterations_per_epoch=30)
    batch = next(trainer.dataloader_train)
    # the tiny images are mostly noise that no network could know: here the LR image says it all
    batch["upper"]["hr"] = 1.5 * resample(
        batch["upper"]["data"], batch["upper"]["hr"].shape[2:], kind="cubic"
    )
    terms = []
    for trainer.iteration in range(30):
        terms.append(trainer.train_step(batch)["terms"])
    assert terms[-1]["lower/dice_ce"] < terms[0]["lower/dice_ce"] - 0.5
    assert terms[-1]["upper/dice_ce"] < terms[0]["upper/dice_ce"] - 0.5
    assert terms[-1]["upper/sr_l1"] < 0.4 * terms[0]["upper/sr_l1"]


def test_it_is_fp32_whatever_is_asked(planned, method_file, caplog):
    with caplog.at_level("INFO"):
        trainer = trainer_for(method=method_file, precision="bf16")
    assert trainer.profile.precision == "fp32"
    assert "a bi-level training is always fp32, not bf16" in caplog.text
    trainer.device = torch.device("cuda")  # where stock would compile
    assert trainer._do_i_compile() is False


def test_a_loss_that_is_not_finite_names_level_term_and_cases(planned, method_file):
    trainer = started(method_file)
    batch = next(trainer.dataloader_train)
    batch["upper"]["hr"] = batch["upper"]["hr"] * np.nan
    before = [p.detach().clone() for p in trainer.network.sr_network.parameters()]
    with pytest.raises(RuntimeError, match=r"the upper loss is not finite in epoch 0.*upper/sr_l1"):
        trainer.train_step(batch)
    after = trainer.network.sr_network.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": {}}, "JointUNet has no segmenter .* would always be 0; use SerialSRSeg"),
        ({"network__arch_kwargs__detach_sr": True}, "detach_sr must be false"),
        ({"network__arch_kwargs__sr_network": {"name": "cubic"}}, "SR network has no weights"),
        ({"bilevel": {}}, "has no block 'bilevel', which a bi-level trainer needs"),
        ({"unlabelled": {"fraction": 0.5}}, "leave out 'unlabelled'"),
        ({"bilevel__lower": {"losses": {"dise": {"weight": 1}}}}, "unknown loss terms .'dise'"),
        ({"trainer": "SRSegTrainer"}, "has the block 'bilevel', which its trainer SRSegTrainer"),
    ],
)
def test_what_has_no_two_levels_is_refused(planned, tmp_path, changes, message, monkeypatch):
    monkeypatch.setattr("srseg.training.run.unlabelled_dataset", lambda *_: None)
    file = method_with(tmp_path, "Wrong", **changes)
    with pytest.raises(ValueError, match=message):
        trainer_for(method=file).initialize()


def test_another_trainer_s_checkpoint_of_the_same_name_is_refused(planned, tmp_path):
    file = method_with(tmp_path, "Same", trainer="SRSegTrainer", bilevel={})
    trainer = trainer_for(method=file)
    trainer.initialize()
    trainer.save_checkpoint(str(tmp_path / "first.pth"))
    later = trainer_for(method=method_with(tmp_path, "Same"))
    with pytest.raises(ValueError, match="trained by SRSegTrainer, .* is SRSegTrainerBilevel now"):
        later.load_checkpoint(str(tmp_path / "first.pth"))


def test_ddp_is_refused(planned, method_file):
    trainer = trainer_for(method=method_file)
    trainer.is_ddp = True
    with pytest.raises(ValueError, match="DDP cannot keep apart; use one GPU"):
        trainer.initialize()


def test_a_fold_with_one_training_case_is_refused(planned, method_file):
    trainer = trainer_for(method=method_file)
    training, validation = trainer.do_split()
    trainer.do_split = lambda: (training[:1], validation)
    with pytest.raises(ValueError, match=r"fold 0 has 1 training case\(s\); at least 2"):
        trainer.on_train_start()


def test_its_model_predicts_alone(planned, method_file):
    trainer = trainer_for(method=method_file, num_epochs=1, iterations_per_epoch=1)
    trainer.run_training()
    predictor = Predictor.from_model_folder(
        trainer.output_folder_base, device="cpu", use_mirroring=False
    )
    read = trainer.configuration_manager.as_read()
    image = np.random.default_rng(0).normal(size=(1, *read.patch_size)).astype(np.float32)
    _, sr_image = predictor.predict_preprocessed(image)
    assert sr_image.shape[1:] == tuple(trainer.configuration_manager.hr_patch_size)


def test_the_joint_baseline_has_the_same_network_losses_and_optimizer():
    bilevel, joint = load_method("BiLevel"), load_method("BiLevel_joint")
    for name in ("network", "losses", "optimizer", "augmentation", "input"):
        assert getattr(bilevel, name) == getattr(joint, name)
    assert bilevel.bilevel["upper"]["losses"] == joint.losses
