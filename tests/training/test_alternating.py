"""Parts trained in turn: one learns, the others stay, and a stopped round goes on."""

import json
from pathlib import Path

import pytest
import torch

from srseg.training.method import load_method
from tests.training.resumption import gone_on, stopped_at
from tests.training.test_trainer import SHORT, planned, trained_weights, trainer_for

__all__ = ["planned"]  # a fixture


@pytest.fixture
def method_file(tmp_path):
    """A light alternating method with two rounds of two phases."""
    content = load_method("two_stage").to_json()
    sr = {"name": "edsr", "width": 4, "num_blocks": 1}
    content["network"]["arch_kwargs"]["sr_network"] = sr
    content["phases"]["rounds"] = 2
    file = tmp_path / "turns.json"
    file.write_text(json.dumps({**content, "name": "Turns"}), encoding="utf-8")
    return str(file)


def moved(trainer, before):
    parts = {name.split(".")[0] for name, p in trainer.network.named_parameters()
             if not torch.equal(p, before[name])}  # fmt: skip
    return parts


def test_only_the_phase_s_part_learns(planned, method_file):
    trainer = trainer_for(method=method_file, num_epochs=4, iterations_per_epoch=5)
    trainer.on_train_start()
    trainer.network.train()
    batch = next(trainer.dataloader_train)
    for epoch, iteration, part, terms in (
        (0, 0, "sr_network", {"sr_l1"}),
        (1, 0, "segmenter", {"dice_ce"}),
        (2, 0, "sr_network", {"sr_l1"}),
        (3, 4, "segmenter", {"dice_ce"}),
    ):
        trainer.current_epoch, trainer.iteration = epoch, iteration
        before = {n: p.detach().clone() for n, p in trainer.network.named_parameters()}
        assert set(trainer.train_step(batch)["terms"]) == terms
        assert moved(trainer, before) == {part}


def test_the_frozen_segmenter_s_loss_reaches_the_sr_network(planned, tmp_path, method_file):
    content = json.loads(Path(method_file).read_text(encoding="utf-8"))
    content["phases"]["order"][0]["losses"] = {"dice_ce": {"weight": {"per_round": 1.0}}}
    file = tmp_path / "semantic.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    trainer = trainer_for(method=str(file), num_epochs=4, iterations_per_epoch=5)
    trainer.on_train_start()
    trainer.network.train()
    batch = next(trainer.dataloader_train)
    norms = []
    for trainer.current_epoch in (0, 2):  # the weight grows by round: 0, then 1
        trainer.train_step(batch)
        gradients = [p.grad for p in trainer.network.sr_network.parameters() if p.grad is not None]
        norms.append(float(torch.stack([g.norm() for g in gradients]).sum()))
        assert all(p.grad is None for p in trainer.network.segmenter.parameters())
    assert norms[0] == 0
    assert norms[1] > 0


def test_a_stopped_round_goes_on(planned, method_file, tmp_path, monkeypatch):
    whole = trainer_for(method=method_file, num_epochs=2)
    whole.run_training()
    expected = trained_weights(Path(whole.output_folder))

    monkeypatch.setenv("nnUNet_results", str(tmp_path / "resumed"))
    stopped = trainer_for(method=method_file, num_epochs=2)
    folder = stopped_at(stopped, 1, 1)
    gone_on(folder, **{**SHORT, "method": method_file, "num_epochs": 2})
    actual = trained_weights(folder)
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phases": {}}, "has no phases, which .* needs"),
        ({"network": {}}, r"trains the parts \['sr_network', 'segmenter'\], which its network"),
    ],
)
def test_a_method_that_cannot_alternate(planned, tmp_path, change, message):
    content = {**load_method("two_stage").to_json(), "name": "Wrong", **change}
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        trainer_for(method=str(file)).initialize()
