from __future__ import annotations

import pickle

import pytest
import torch
from dynamic_network_architectures.building_blocks.residual import BasicBlockD
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
    residual_encoder_unet_planners as residual_planners,
)
from torch import nn

from srseg.networks.encoder import build_encoder, drop_aliases, initialize_as_nnunet, per_stage

OPTIONS = {
    "input_channels": 2,
    "n_stages": 2,
    "features_per_stage": [4, 4],
    "conv_op": nn.Conv2d,
    "kernel_sizes": [[3, 3], [3, 3]],
    "strides": [[1, 1], [1, 2]],
    "norm_op": nn.InstanceNorm2d,
    "norm_op_kwargs": {"affine": True},
    "nonlin": nn.LeakyReLU,
    "return_skips": True,
}


def build(trunk: str, **options) -> nn.Module:
    counts = {"n_conv_per_stage": None, "n_blocks_per_stage": None}
    counts["n_conv_per_stage" if trunk == "plain" else "n_blocks_per_stage"] = 2
    return build_encoder(trunk, **(counts | OPTIONS | options))


@pytest.mark.parametrize("trunk", ["plain", "residual"])
def test_without_aliases_every_tensor_has_one_name_and_nothing_else_changes(trunk):
    torch.manual_seed(0)
    encoder, image = build(trunk), torch.randn(1, 2, 6, 8)
    before = encoder(image)
    drop_aliases(encoder)
    pointers = [tensor.data_ptr() for tensor in encoder.state_dict().values()]
    assert len(set(pointers)) == len(pointers)
    for a, b in zip(before, pickle.loads(pickle.dumps(encoder))(image), strict=True):
        assert torch.equal(a, b)


def test_residual_blocks_start_as_their_skip():
    encoder = build("residual")
    drop_aliases(encoder)
    initialize_as_nnunet(encoder)
    block = next(m for m in encoder.modules() if isinstance(m, BasicBlockD))
    image = torch.randn(1, 4, 6, 8).abs()  # positive: the nonlinearity leaves it alone
    torch.testing.assert_close(block(image), image)


@pytest.mark.parametrize("options", [{"norm_op": None}, {"norm_op_kwargs": {"affine": False}}])
def test_blocks_without_norm_weights_can_be_initialised(options):
    encoder = build("residual", **options)
    drop_aliases(encoder)
    initialize_as_nnunet(encoder)
    convs = [m.weight for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert all(weight.abs().sum() > 0 for weight in convs)


def test_convolutions_start_with_hes_variance():
    encoder = build("plain", features_per_stage=[64, 64])
    drop_aliases(encoder)
    torch.manual_seed(0)
    initialize_as_nnunet(encoder)
    conv = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)][-1]
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert not conv.bias.any() if conv.bias is not None else True


def test_a_number_stands_for_every_stage():
    assert per_stage("n_conv_per_stage", 2, 3) == [2, 2, 2]
    with pytest.raises(ValueError, match="n_conv_per_stage has 2 entries, 3 are needed"):
        per_stage("n_conv_per_stage", [1, 2], 3)


def test_the_residual_trunk_has_nnunets_blocks_whatever_convolutions_are_planned(monkeypatch):
    monkeypatch.setattr(ExperimentPlanner, "__init__", lambda *_: None)  # it wants a dataset
    nnunets = residual_planners.ResEncUNetPlanner("x").UNet_blocks_per_stage_encoder
    for num_stages in (1, 2, 3, 5, 8):
        options = OPTIONS | {
            "n_stages": num_stages,
            "features_per_stage": [4] * num_stages,
            "kernel_sizes": [[3, 3]] * num_stages,
            "strides": [[1, 1]] * num_stages,
        }
        encoder = build_encoder(
            "residual", n_conv_per_stage=[2] * num_stages, n_blocks_per_stage=None, **options
        )
        assert tuple(len(stage.blocks) for stage in encoder.stages) == nnunets[:num_stages]
    chosen = build_encoder("residual", n_conv_per_stage=2, n_blocks_per_stage=[2, 1], **OPTIONS)
    assert [len(stage.blocks) for stage in chosen.stages] == [2, 1]


def test_wrong_trunks_are_errors():
    counts = {"n_conv_per_stage": 2, "n_blocks_per_stage": None}
    with pytest.raises(ValueError, match="unknown trunk 'swin'; known: plain, residual"):
        build_encoder("swin", **counts, **OPTIONS)
    with pytest.raises(ValueError, match="trunk 'plain' needs n_conv_per_stage"):
        build_encoder("plain", n_conv_per_stage=None, n_blocks_per_stage=None, **OPTIONS)
    with pytest.raises(ValueError, match="trunk 'plain' takes n_conv_per_stage alone"):
        build_encoder("plain", n_conv_per_stage=2, n_blocks_per_stage=2, **OPTIONS)
    with pytest.raises(ValueError, match="n_blocks_per_stage has 3 entries, 2 are needed"):
        build_encoder("residual", n_conv_per_stage=2, n_blocks_per_stage=[1, 2, 3], **OPTIONS)
