"""`-encoder`: taken over whole, from ours and from stock, and never changed again."""

import copy
import inspect
import json
from pathlib import Path

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from srseg.inference.model_folder import load_checkpoint
from srseg.inference.predictor import Predictor
from srseg.networks.build import resolve_module_class
from srseg.networks.freezing import encoder_place
from srseg.training.checkpoint import save_atomically
from srseg.training.frozen_encoder import fill_encoder, read_encoder
from srseg.training.method import load_method
from srseg.training.run import TrainingRequest, run_training
from tests.training.resumption import gone_on, stopped_at
from tests.training.test_trainer import SHORT, planned, trained_weights, trainer_for

__all__ = ["planned"]  # a fixture


def encoder_state(network):
    encoder = network.get_submodule(encoder_place(network))
    return {name: tensor.clone() for name, tensor in encoder.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


@pytest.fixture
def make_method(tmp_path):
    """A function that writes a method with other network arguments and returns its file."""

    def make(name, base="SRSegTrainer", **arch_kwargs):
        content = copy.deepcopy(load_method(base).to_json())
        content["network"].setdefault("arch_kwargs", {}).update(arch_kwargs)
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({**content, "name": name}), encoding="utf-8")
        return str(file)

    return make


@pytest.fixture
def checkpoint_of(planned, tmp_path):
    """A function that returns a checkpoint of an untrained network of a method."""

    def make(method="SRSegTrainer", seed=77):
        trainer = trainer_for(method=method, seed=seed)
        trainer.initialize()
        network = trainer.unwrapped_network()
        for tensor in network.state_dict().values():  # statistics of nobody's data
            if tensor.is_floating_point():
                tensor.add_(0.05 * torch.rand(tensor.shape, generator=torch.Generator()))
        file = tmp_path / f"source{seed}.pth"
        save_atomically({"network_weights": network.state_dict()}, file)
        return file

    return make


def trained_some(trainer, steps=2):
    trainer.on_train_start()
    trainer.network.train()
    for trainer.iteration in range(steps):
        trainer.train_step(next(trainer.dataloader_train))
    with torch.no_grad():
        trainer.validation_step(next(trainer.dataloader_val))


@pytest.mark.parametrize("norm", ["torch.nn.InstanceNorm3d", "torch.nn.BatchNorm3d"])
def test_nothing_of_it_changes_and_the_rest_learns(make_method, checkpoint_of, norm):
    method = make_method("Norms", norm_op=norm)
    source = checkpoint_of(method)
    trainer = trainer_for(method=method, encoder=str(source))
    trainer.initialize()
    network = trainer.unwrapped_network()
    expected = read_encoder(source).weights
    assert same(encoder_state(network), expected)
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    trained_some(trainer)
    assert same(encoder_state(network), expected)  # buffers, hence BatchNorm's statistics, too
    assert ("running_mean" in str(list(expected))) == ("Batch" in norm)
    encoder = network.encoder
    assert not any(module.training for module in encoder.modules())
    assert network.decoder.training
    moved = {
        n.split(".")[0] for n, p in network.named_parameters() if not torch.equal(p, before[n])
    }
    assert moved == {"decoder", "hr_stage"}
    known = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not known & {id(p) for p in encoder.parameters()}
    assert all(p.grad is None for p in encoder.parameters())


def stock_network(trainer, **changes):
    architecture = trainer.configuration_manager.configuration["architecture"]
    options = dict(architecture["arch_kwargs"])
    for name in architecture["_kw_requires_import"]:
        options[name] = options[name] and resolve_module_class(options[name])
    known = inspect.signature(PlainConvUNet).parameters
    options = {name: value for name, value in options.items() if name in known}
    return PlainConvUNet(1, **{**options, "num_classes": 5, **changes})


def test_a_stock_checkpoint_fits(planned, tmp_path):
    stock = stock_network(trainer_for())
    save_atomically({"network_weights": stock.state_dict()}, tmp_path / "stock.pth")
    trainer = trainer_for(encoder=str(tmp_path / "stock.pth"))
    trainer.initialize()
    network = trainer.unwrapped_network().eval()
    assert encoder_state(network).keys() < stock.encoder.state_dict().keys()  # theirs has aliases
    image = torch.rand(1, 1, *trainer.configuration_manager.patch_size)
    with torch.no_grad():
        for ours, theirs in zip(network.encoder(image), stock.encoder(image), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_conv_per_stage": 1}, r"is missing there and 32x32x\S+ here.* and \d+ more; choose"),
        ({"n_conv_per_stage": 3}, r"convs.2\S+ is 32x32x\S+ there and missing here"),
        ({"conv_bias": False}, r"stages.0\S+bias is missing there and 32 here"),
    ],
)
def test_another_encoder_is_refused(planned, tmp_path, changes, message):
    stock = stock_network(trainer_for(), **changes)
    save_atomically({"network_weights": stock.state_dict()}, tmp_path / "stock.pth")
    trainer = trainer_for(encoder=str(tmp_path / "stock.pth"))
    with pytest.raises(ValueError, match=f"encoder of .*stock.pth is not the one .*{message}"):
        trainer.initialize()


def test_another_width_names_both_shapes():
    wide, narrow = nn.Linear(3, 5), nn.Linear(3, 4)
    with pytest.raises(ValueError, match="weight is 5x3 there and 4x3 here; bias is 5 there and 4"):
        fill_encoder(narrow, wide.state_dict(), "wide.pth")


def test_a_segmenter_s_encoder_passes_gradients_to_the_sr_network(make_method, checkpoint_of):
    options = {"sr_network": {"name": "edsr", "width": 4, "num_blocks": 1}, "features_per_stage": 4}
    method = make_method("Serial", "BiLevel", **options)
    source = checkpoint_of(method)
    trainer = trainer_for(method=method, encoder=str(source))
    trained_some(trainer)
    network = trainer.unwrapped_network()
    assert same(encoder_state(network), read_encoder(source).weights)
    frozen = {id(p) for p in network.segmenter.encoder.parameters()}
    assert not frozen & {id(p) for p in trainer.bilevel.theta}
    assert trainer.bilevel.theta
    network.zero_grad()
    image = torch.rand(1, 1, *trainer.configuration_manager.patch_size)
    network(image).seg[0].sum().backward()
    assert float(network.sr_network.head.weight.grad.norm()) > 0


def test_it_goes_on_with_the_same_and_predicts_alone(checkpoint_of, tmp_path, monkeypatch, caplog):
    source = checkpoint_of()
    whole = trainer_for(encoder=str(source))
    whole.run_training()
    expected = trained_weights(Path(whole.output_folder))

    monkeypatch.setenv("nnUNet_results", str(tmp_path / "resumed"))
    stopped = trainer_for(encoder=str(source))
    folder = stopped_at(stopped, 1, 0)
    digest = read_encoder(source).digest
    record = load_checkpoint(folder / "checkpoint_latest.pth")["srseg"]["encoder"]
    assert record == {"source": str(source), "digest": digest}

    other = checkpoint_of(seed=78)
    wrong = trainer_for(encoder=str(other))
    with pytest.raises(ValueError, match=f"began with {source} and cannot go on with .*{other}"):
        wrong.load_checkpoint(str(folder / "checkpoint_latest.pth"))
    trainer_for(encoder=str(source)).load_checkpoint(str(folder / "checkpoint_latest.pth"))

    weights = read_encoder(source).weights
    source.unlink()  # the training has its own copy
    resumed = gone_on(folder, **SHORT)
    actual = trained_weights(folder)
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=0, atol=0, msg=name)
    predictor = Predictor.from_model_folder(resumed.output_folder_base, device="cpu")
    network = predictor._forward.network
    assert same(encoder_state(network), weights)


def test_a_training_that_began_without_takes_none(checkpoint_of, planned):
    begun = trainer_for(num_epochs=1, iterations_per_epoch=1)
    begun.run_training()
    final = Path(begun.output_folder) / "checkpoint_final.pth"
    trainer = trainer_for(encoder=str(checkpoint_of()))
    with pytest.raises(ValueError, match="began without a frozen encoder and cannot go on"):
        trainer.load_checkpoint(str(final))


class Nobody:
    """What a checkpoint may not carry."""

    def __reduce__(self):
        return print, ("code of a checkpoint was run",)


def test_what_is_no_encoder_is_refused(tmp_path, planned, make_method):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nothing.pth \(-encoder\)"):
        read_encoder(tmp_path / "nothing.pth")
    save_atomically({"network_weights": {"head.weight": torch.zeros(2)}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a.pth has no encoder .* its 1 tensors is named encoder"):
        read_encoder(tmp_path / "a.pth")
    torch.save({"network_weights": {}, "other": Nobody()}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="could run code"):
        read_encoder(tmp_path / "code.pth")
    run = {"dataset": "1", "configuration": "3d_fullres", "fold": 0, "encoder": "e.pth"}
    with pytest.raises(ValueError, match="-pretrained_weights would fill it; give one"):
        run_training(TrainingRequest(**run, pretrained_weights="p.pth"))
    with pytest.raises(ValueError, match="nnUNetTrainer takes no -encoder"):
        run_training(TrainingRequest(**run, method="nnUNetTrainer"))
