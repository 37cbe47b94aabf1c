"""Gradients of convolutions over few slices are right, and the same whatever lies in memory."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from srseg.networks.shallow_convolutions import ShallowSafeConv3d, make_shallow_safe


def leave_nan_in_memory() -> None:
    """Free buffers full of NaN, which the next allocations will get."""
    buffers = [torch.full((2**n,), torch.nan) for n in range(8, 23) for _ in range(3)]
    del buffers


def check_weight_gradients(layer: nn.Module, image: torch.Tensor, weights: torch.Tensor) -> None:
    """Make `layer` safe; its gradients in bfloat16 are those it had in float32, every time."""
    (layer(image) * weights).sum().backward()
    expected, layer.weight.grad = layer.weight.grad, None
    make_shallow_safe(layer)
    for _ in range(5):
        leave_nan_in_memory()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = layer(image)
        (output.float() * weights).sum().backward()
        found, layer.weight.grad = layer.weight.grad, None
        assert (found - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("slices", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (5, 3, 3), (1, 3, 3)])
def test_weight_gradients_in_bfloat16_are_those_in_float32(slices, kernel):
    torch.manual_seed(0)
    layer = nn.Conv3d(16, 24, kernel, padding=tuple(n // 2 for n in kernel))
    image, weights = torch.randn(2, 16, slices, 6, 5), torch.randn(2, 24, slices, 6, 5)
    check_weight_gradients(layer, image, weights)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("slices", [1, 2, 3])
@pytest.mark.parametrize("channels", [(1, 5), (3, 4), (16, 24)])
def test_outputs_in_bfloat16_are_those_in_float32(slices, channels, training):
    torch.manual_seed(0)
    layer = make_shallow_safe(nn.Conv3d(*channels, 3, padding=1))
    image = torch.randn(2, channels[0], slices, 4, 6)
    expected = layer(image).detach()
    for _ in range(5):
        leave_nan_in_memory()
        with torch.set_grad_enabled(training), torch.autocast("cpu", dtype=torch.bfloat16):
            found = layer(image).detach()
        assert (found - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_transposed_convolutions_too(slices):
    torch.manual_seed(0)
    layer = nn.ConvTranspose3d(16, 24, 3, (1, 2, 2), 1, (0, 1, 1))
    image, weights = torch.randn(2, 16, slices, 6, 5), torch.randn(2, 24, slices, 12, 10)
    check_weight_gradients(layer, image, weights)
    assert layer(image, output_size=[slices, 11, 9]).shape[2:] == (slices, 11, 9)


def test_every_network_is_built_with_safe_convolutions(make_network):
    network = make_network((2, 2, 2))
    kinds = {type(m) for m in network.modules() if isinstance(m, nn.Conv3d)}
    assert ShallowSafeConv3d in kinds
    assert all(
        m.kernel_size[0] < 3
        for m in network.modules()
        if type(m) is nn.Conv3d  # kernels that no input can be shorter than
    )
    image = torch.randn(1, 1, 4, 4, 8)
    copy = pickle.loads(pickle.dumps(network))
    assert torch.equal(copy(image).seg[0], network(image).seg[0])
