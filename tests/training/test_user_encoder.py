"""`-encoder package.module:Class --trust`: tried, recorded in plans, trained around, resumed."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from srseg.inference.predictor import Predictor
from srseg.training.run import TrainingRequest, run_training
from tests.training.resumption import gone_on, stopped_at
from tests.training.test_frozen_encoder import checkpoint_of, make_method, trained_some
from tests.training.test_trainer import SHORT, planned, trained_weights, trainer_for
from tests.user_modules import write_user_module

__all__ = ["checkpoint_of", "make_method", "planned"]  # fixtures

STRIDES = ((1, 1, 1), (2, 2, 2), (1, 2, 2))  # of the tiny dataset's plans


@pytest.fixture
def user_module(planned, tmp_path, monkeypatch):
    """The user's package in the current folder, which is no part of Python's path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return write_user_module(tmp_path, STRIDES)


def frozen_state(network):
    return {name: t.clone() for name, t in network.encoder.module.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def test_nothing_of_it_changes_and_the_rest_learns(user_module):
    trainer = trainer_for(encoder=user_module.path(), trust=True)
    architecture = trainer.configuration_manager.configuration["architecture"]
    record = {"import_path": user_module.path(), "channels": list(user_module.widths)}
    assert architecture["arch_kwargs"]["user_encoder"] == record
    trainer.initialize()
    network = trainer.unwrapped_network()
    frozen = frozen_state(network)
    assert any("running_mean" in name for name in frozen)
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    trained_some(trainer)
    assert same(frozen_state(network), frozen)
    assert network.decoder.training
    still = {n for n, p in network.named_parameters() if torch.equal(p, before[n])}
    own = {n for n in before if n.startswith("encoder.module.")}
    assert still - own == {n for n in still if "seg_layers" in n}  # as in any training
    assert own <= still
    known = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not known & {id(p) for p in network.encoder.module.parameters()}
    assert {id(p) for p in network.encoder.projections.parameters()} <= known


def test_without_trust_nothing_is_imported(user_module):
    with pytest.raises(ValueError, match=f"-encoder has the encoder {user_module.path()}, .*would"):
        trainer_for(encoder=user_module.path())
    with pytest.raises(ValueError, match="nnUNetTrainer takes no -encoder"):
        run_training(TrainingRequest(**SHORT, encoder=user_module.path(), method="nnUNetTrainer"))
    assert not user_module.was_imported


def test_a_method_that_names_one_needs_trust_too(user_module, make_method, checkpoint_of):
    record = {"import_path": user_module.path(), "channels": list(user_module.widths)}
    method = make_method("Own", user_encoder=record)
    for encoder in (None, str(checkpoint_of())):
        trainer = trainer_for(method=method, encoder=encoder)
        with pytest.raises(ValueError, match="would run code of somebody"):
            trainer.initialize()
    assert not user_module.was_imported
    trainer_for(method=method, trust=True).initialize()
    assert user_module.was_imported


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("Backwards", "image of 1x1x8x20x16 needed are 1xFx8x20x16, 1xFx4x10x8, 1xFx4x5x4, got"),
        ("Few", "got 1x3x8x20x16, 1x4x4x10x8"),
        ("Failing", r"fails on an image of \(1, 1, 8, 20, 16\) \(LookupError: an image of another"),
        ("number", "gave a int"),
    ],
)
def test_it_is_tried_on_the_planned_patch(user_module, member, message):
    with pytest.raises(ValueError, match=f"{user_module.path(member)} .*{message}"):
        trainer_for(encoder=user_module.path(member), trust=True)


def test_a_serial_networks_is_tried_on_the_hr_grid(planned, tmp_path, monkeypatch, make_method):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    options = {"sr_network": {"name": "edsr", "width": 4, "num_blocks": 1}, "features_per_stage": 4}
    method = make_method("Serial", "JOANet", **options)
    module = write_user_module(tmp_path, ((1, 1, 1), (1, 2, 2), *STRIDES[1:]))
    with pytest.raises(ValueError, match="1x1x8x40x32 needed .* got 1x3x8x40x32, 1x4x8x20x16"):
        trainer_for(method=method, encoder=module.path(), trust=True)  # three stages, not four


def test_one_that_reads_hr_images_is_tried_on_those(planned, tmp_path, monkeypatch):
    # their patch of 8x12x16 LR voxels is smaller than the planned one: it takes more memory
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    module = write_user_module(tmp_path, STRIDES)
    with pytest.raises(ValueError, match="image of 1x1x8x24x32 needed are 1xFx8x24x32, "):
        trainer_for(method="oracle", encoder=module.path(), trust=True)


def test_it_goes_on_with_the_same_and_predicts_with_its_own_weights(
    user_module, checkpoint_of, tmp_path, monkeypatch
):
    own = {"encoder": user_module.path(), "trust": True}
    whole = trainer_for(**own)
    whole.run_training()
    expected = trained_weights(Path(whole.output_folder))

    monkeypatch.setenv("nnUNet_results", str(tmp_path / "resumed"))
    stopped = trainer_for(**own)
    folder = stopped_at(stopped, 1, 0)
    latest = str(folder / "checkpoint_latest.pth")

    began = f"began with the encoder {user_module.path()} and cannot go on"
    give = f"give -encoder {user_module.path()} --trust"
    other = user_module.path("make_one")  # the very same module under another name
    for changes, goes_on in (
        ({}, "without it"),
        ({"encoder": str(checkpoint_of())}, "without it"),
        ({"encoder": other, "trust": True}, f"with {other}"),
    ):
        with pytest.raises(ValueError, match=f"{began} {goes_on}; {give}"):
            trainer_for(**changes).load_checkpoint(latest)

    resumed = gone_on(folder, **SHORT, **own)
    actual = trained_weights(folder)
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=0, atol=0, msg=name)

    torch.manual_seed(99)  # what calling the class gives now is something else
    predictor = Predictor.from_model_folder(folder.parent, device="cpu", trust=True)
    network = predictor._forward.network
    weights = {n: t for n, t in expected.items() if n.startswith("encoder.module.")}
    found = {f"encoder.module.{n}": t for n, t in frozen_state(network).items()}
    assert same(found, weights)
    patch = resumed.configuration_manager.patch_size
    image = np.random.default_rng(1).normal(size=(1, *patch)).astype(np.float32)
    trained = resumed.unwrapped_network().eval()
    with torch.no_grad():
        logits = trained(torch.from_numpy(image)[None]).seg[0]
        torch.testing.assert_close(network(torch.from_numpy(image)[None]).seg[0], logits)
    with pytest.raises(ValueError, match=f"{folder.parent} has the encoder .*would run code of so"):
        Predictor.from_model_folder(folder.parent, device="cpu")


def test_a_training_that_began_without_takes_none(user_module):
    begun = trainer_for(num_epochs=1, iterations_per_epoch=1)
    begun.run_training()
    final = Path(begun.output_folder) / "checkpoint_final.pth"
    trainer = trainer_for(encoder=user_module.path(), trust=True)
    with pytest.raises(
        ValueError, match=r"without a user's .* with somebody\S+; leave -encoder out"
    ):
        trainer.load_checkpoint(str(final))
