"""The loop: exact resumption, a fall of the losses, a stop at what is not finite."""

from __future__ import annotations

import json

import pytest
import torch

from srseg.inference.model_folder import load_checkpoint
from srseg.training.adaptation import vama
from srseg.training.adaptation.appearance import changed_appearance
from srseg.training.adaptation.method import AdaptationMethod
from srseg.training.adaptation.methods import TRAINED_METHODS
from srseg.training.adaptation.trainer import LATEST_CHECKPOINT
from tests.training.adaptation.domains import trainer

FALLING = {
    "vama": ("restore_source",),
    "cyclegan": ("cycle_source", "cycle_target"),
    "munit": ("recover_source", "recover_target"),
    "bicyclegan": ("pixel",),
    "unit": ("recover_source", "recover_target"),
}


def same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


@pytest.mark.parametrize("name", TRAINED_METHODS)
def test_stopped_and_resumed_gives_the_same_weights_as_uninterrupted(name, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert trainer(name, tmp_path / "a").run()
    stopped = trainer(name, tmp_path / "b")
    for _ in range(2):
        stopped._log.add(stopped.train_step())
        stopped.step += 1
    stopped.save(tmp_path / "b" / LATEST_CHECKPOINT)
    torch.manual_seed(99)  # nothing may depend on the process's own state
    resumed = trainer(name, tmp_path / "b")
    resumed.restore(load_checkpoint(tmp_path / "b" / LATEST_CHECKPOINT))
    assert resumed.step == 2
    assert resumed.run()
    first, second = (load_checkpoint(tmp_path / d / "checkpoint_final.pth") for d in "ab")
    for key in ("network_weights", "networks", "optimizers", "method_state"):
        assert same(first[key], second[key]), key
    lines = [json.loads((tmp_path / d / "training_log.jsonl").read_text()) for d in "ab"]
    assert lines[0]["terms"] == lines[1]["terms"]
    assert lines[0]["step"] == 4
    assert (tmp_path / "a" / "progress.png").is_file()
    assert not (tmp_path / "b" / LATEST_CHECKPOINT).exists()


@pytest.mark.parametrize("name", TRAINED_METHODS)
def test_it_overfits_one_pair_of_images(name, tmp_path, monkeypatch):
    def the_same(image, _):
        return changed_appearance(image, torch.Generator().manual_seed(5))

    monkeypatch.setattr(vama, "changed_appearance", the_same)  # one appearance to undo
    # CycleGAN's cycle begins near 0, at the identity; only the game drives it up
    weights = {"fool_source": 0.0, "fool_target": 0.0} if name == "cyclegan" else None
    made_by = trainer(
        name, tmp_path, num_steps=40, num_volumes=1, learning_rate=3e-3, weights=weights
    )
    terms = []
    while made_by.step < 40:
        terms.append(made_by.train_step())
        made_by.step += 1
    for term in FALLING[name]:
        early = sum(t[term] for t in terms[:10])
        late = sum(t[term] for t in terms[-10:])
        assert late < 0.75 * early, (term, early, late)


def test_a_signal_stops_after_the_step_and_keeps_it(tmp_path, monkeypatch):
    import os
    import signal

    made_by = trainer("cyclegan", tmp_path, num_steps=50)
    step = made_by.train_step

    def interrupted():
        if made_by.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step()

    monkeypatch.setattr(made_by, "train_step", interrupted)
    assert not made_by.run()
    assert load_checkpoint(tmp_path / LATEST_CHECKPOINT)["step"] == 3
    assert not (tmp_path / "checkpoint_final.pth").exists()


def test_a_loss_that_is_not_finite_names_term_and_step_and_leaves_the_checkpoint(
    tmp_path, monkeypatch
):
    made_by = trainer("cyclegan", tmp_path)
    made_by.train_step()
    made_by.step = 1
    made_by.save(tmp_path / LATEST_CHECKPOINT)
    before = (tmp_path / LATEST_CHECKPOINT).read_bytes()
    fooling = AdaptationMethod.fooling

    def broken(self, discriminator, fake):
        loss = fooling(self, discriminator, fake)
        return loss * float("nan") if discriminator == "target_discriminator" else loss

    monkeypatch.setattr(AdaptationMethod, "fooling", broken)
    weights = {n: p.detach().clone() for n, p in made_by.method.networks.named_parameters()}
    with pytest.raises(RuntimeError, match=r"fool_target of method cyclegan .* in step 1;"):
        made_by.run()
    assert all(torch.equal(p, weights[n]) for n, p in made_by.method.networks.named_parameters())
    assert (tmp_path / LATEST_CHECKPOINT).read_bytes() == before


def test_the_learning_rate_is_constant_then_falls_to_zero(tmp_path):
    made_by = trainer("vama", tmp_path, num_steps=100)
    rates = []
    for made_by.step in (0, 50, 75, 99):
        rates.append(made_by.learning_rate())
    assert rates == pytest.approx([2e-4, 2e-4, 1e-4, 4e-6])


def test_records_after_the_checkpoint_are_dropped(tmp_path):
    made_by = trainer("vama", tmp_path)
    lines = [json.dumps({"step": s, "terms": {"kl_source": 1.0}}) + "\n" for s in (25, 50)]
    (tmp_path / "training_log.jsonl").write_text("".join(lines))
    made_by._log.begin(30)
    assert [record["step"] for record in made_by._log.records()] == [25]
