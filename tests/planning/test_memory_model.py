"""The memory model counts trunk, HR stage and losses in nnU-Net's unit."""

from __future__ import annotations

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from srseg.networks.build import build_network
from srseg.planning.architecture import joint_architecture, whole_volume_architecture
from srseg.planning.memory_model import MemoryModel

PATCH, SCALE = (12, 24, 16), (1, 3, 2)
MEMORY = MemoryModel(num_channels=2, num_classes=3, gpu_memory_gb=8)


@pytest.fixture(scope="module")
def architecture() -> dict:
    return whole_volume_architecture((3.0, 1.0, 1.2), PATCH, SCALE)[0]


def test_sum_is_that_of_a_real_forward_pass(architecture: dict):
    """Every convolution's and head's output is counted once, measured by hooks."""
    network = build_network(architecture, 2, 3)
    counted = []

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        counted.append(output.numel())

    kinds = (nn.Conv3d, nn.ConvTranspose3d)
    for module in network.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 2, *PATCH))
    hr_voxels = 12 * 24 * 16 * 6
    losses = 2 * (3 + 2) * hr_voxels
    heads = 0 if _is_conv(network.hr_stage.seg_head) else (3 + 2) * hr_voxels
    measured = sum(counted) + losses + heads
    # nnU-Net's count takes a decoder's logits too, which are made only for deep supervision
    assert MEMORY.elements(architecture, PATCH) == pytest.approx(measured, rel=0.02)


def _is_conv(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv3d)


def test_trunk_counts_as_in_stock_nnunet(architecture: dict):
    options = dict(architecture["arch_kwargs"])
    for name in ("scale", "trunk", "hr_width", "hr_num_convs", "sr_head"):
        options.pop(name)
    options |= {
        "conv_op": nn.Conv3d,
        "norm_op": nn.InstanceNorm3d,
        "nonlin": nn.LeakyReLU,
    }
    with torch.device("meta"):
        stock = PlainConvUNet(input_channels=2, num_classes=3, **options)
    expected = stock.compute_conv_feature_map_size(PATCH)
    elements = MEMORY.elements(architecture, PATCH)
    trunk = (1 - MEMORY.hr_fraction(architecture, PATCH)) * elements
    assert trunk == pytest.approx(expected, rel=0.02)


def test_width_fraction_is_what_grows_with_the_width(architecture: dict):
    stock = {k: architecture[k] for k in ("arch_kwargs", "_kw_requires_import")}
    elements = {
        width: MEMORY.elements(joint_architecture(stock, SCALE, width), PATCH) for width in (8, 16)
    }
    expected = 2 * (elements[16] - elements[8]) / elements[16]
    assert MEMORY.width_fraction(architecture, PATCH) == pytest.approx(expected)
    assert 0 < expected < MEMORY.hr_fraction(architecture, PATCH) < 1


def test_budget_is_nnunets():
    assert MEMORY.budget(3) == 2 * 5.6e8
    assert MEMORY.budget(2) == 12 * 8.5e7
    assert MemoryModel(1, 2, 24).budget(3) == 3 * MemoryModel(1, 2, 8).budget(3)


def test_largest_batch(architecture: dict):
    elements = MEMORY.elements(architecture, PATCH)
    gb = 8 * 3.5 * elements / MEMORY.budget(3)
    assert MemoryModel(2, 3, gb).largest_batch(architecture, PATCH) == 3
    assert MemoryModel(2, 3, 0.2 * gb).largest_batch(architecture, PATCH) == 0


def test_more_classes_take_more(architecture: dict):
    less = MEMORY.elements(architecture, PATCH)
    assert MemoryModel(2, 50, 8).elements(architecture, PATCH) > 1.5 * less


def test_counting_makes_no_weights(architecture: dict, monkeypatch: pytest.MonkeyPatch):
    made = []

    def record(*args, **options):
        made.append(build_network(*args, **options))
        return made[-1]

    monkeypatch.setattr("srseg.planning.memory_model.build_network", record)
    MemoryModel(7, 11, 8).elements(architecture, PATCH)
    assert {p.device.type for p in made[0].parameters()} == {"meta"}


def test_counting_draws_no_weights(architecture: dict, monkeypatch: pytest.MonkeyPatch):
    """On the meta device torch would import its compiler for it, 2.3 s of every planning."""

    def refuse(*_args, **_options):
        raise AssertionError("weights were drawn")

    for name in ("randn", "Tensor.normal_"):
        monkeypatch.setattr(f"torch.{name}", refuse)
    MemoryModel(5, 9, 8).elements(architecture, PATCH)
    with pytest.raises(AssertionError, match="weights were drawn"):
        build_network(architecture, 5, 9)
