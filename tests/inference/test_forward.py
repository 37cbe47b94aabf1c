"""How often, and on what, the network is called; and that flips and precision do not matter."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from srseg import environment
from srseg.inference.forward import Forward, PredictionSettings
from srseg.networks.build import build_network
from srseg.networks.output import JointOutput
from tests.inference.known_networks import FlipBlindNetwork, NearestNetwork
from tests.inference.model_folders import ARCHITECTURE
from tests.preprocessing.hand_plans import hand_plans, managers

SCALE = (3, 2, 1)


def forward_of(network, scale=SCALE, *, axes=None, patch=(8, 6, 7), patch_free=False, **settings):
    plans = hand_plans((1.0, 0.5, 0.8)[-len(scale) :], scale, patch_size=patch)
    configuration = next(iter(plans["configurations"].values()))
    configuration["patch_free"] = patch_free
    settings = PredictionSettings(device="cpu", **settings)
    return Forward(network, managers(plans)[1], mirroring_axes=axes, settings=settings)


@torch.inference_mode()
def stacked(forward, lr_image, weights=None, one_pass=None):
    return forward.within_memory(
        lambda whole, device: forward.stack(lr_image, weights, whole, device), one_pass
    )


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def repeated(image, scale=SCALE):
    for axis, s in enumerate(scale, start=1):
        image = image.repeat_interleave(s, dim=axis)
    return image


@pytest.mark.parametrize(
    ("shape", "options", "calls"),
    [
        ((5, 6, 4), {}, [(8, 6, 7)]),  # padded to the patch, as in training
        ((5, 6, 4), {"one_pass": True}, [(8, 6, 7)]),
        ((9, 6, 4), {}, [(8, 6, 7)] * 2),
        ((9, 6, 4), {"one_pass": True}, [(12, 6, 7)]),  # the next multiple of the strides
        ((9, 6, 4), {"patch_free": True}, [(12, 6, 7)]),
        ((9, 7, 9), {"step_size": 1.0}, [(8, 6, 7)] * 8),
    ],
)
def test_one_pass_or_tiles(shape, options, calls):
    network = NearestNetwork(SCALE)
    network.lr_divisor = (4, 2, 1)
    lr_image = noise(1, *shape)
    stack = stacked(forward_of(network, **options), lr_image)
    assert [call[2:] for call in network.calls] == calls
    torch.testing.assert_close(stack[2:], repeated(lr_image), rtol=0, atol=1e-6)


def test_one_pass_can_be_asked_for_at_each_call():
    network = NearestNetwork(SCALE)
    stacked(forward_of(network), noise(1, 9, 7, 9), one_pass=True)
    assert len(network.calls) == 1


def test_a_2d_network_takes_slices_in_batches():
    network = NearestNetwork((2, 3))
    lr_image = noise(2, 5, 9, 4)
    stack = stacked(forward_of(network, (2, 3), patch=(6, 7)), lr_image)
    torch.testing.assert_close(stack[2:], repeated(lr_image, (1, 2, 3)), rtol=0, atol=1e-6)
    assert {call[0] for call in network.calls} == {2, 1}  # batch size 2, five slices


def test_flips_are_averaged():
    """A network that adds its x index gives the mean of the index and its mirror: a constant."""
    lr_image = noise(1, 8, 6, 7)
    stack = stacked(forward_of(FlipBlindNetwork(SCALE), axes=(0, 2)), lr_image)
    torch.testing.assert_close(stack[2:] - repeated(lr_image), torch.full((1, 24, 12, 7), 3.0))


@pytest.mark.parametrize(("axes", "count"), [((0, 1, 2), 8), ((1,), 2), ((), 1), (None, 1)])
def test_every_set_of_axes_is_flipped_once(axes, count):
    network = NearestNetwork(SCALE)
    stacked(forward_of(network, axes=axes), noise(1, 8, 6, 7))
    assert len(network.calls) == count
    network.calls.clear()
    stacked(forward_of(network, axes=axes, use_mirroring=False), noise(1, 8, 6, 7))
    assert len(network.calls) == 1


def test_a_network_without_sr_head_gives_logits_alone():
    assert len(stacked(forward_of(NearestNetwork(SCALE, sr_head=False)), noise(1, 8, 6, 7))) == 2


def test_weights_are_loaded_for_the_call():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.value = nn.Parameter(torch.zeros(()))

        def forward(self, lr_image):
            ones = torch.ones_like(lr_image)
            return JointOutput([torch.cat((ones, ones), 1)], ones * self.value)

    forward = forward_of(Constant(), (1, 1, 1))
    stack = stacked(forward, noise(1, 8, 6, 7), weights={"value": torch.tensor(4.0)})
    assert stack[2].unique() == 4


@pytest.mark.parametrize("autocast", [True, False, None])
def test_low_precision_stays_close_to_full(autocast):
    torch.manual_seed(0)
    network = build_network(ARCHITECTURE, 1, 2)
    lr_image = noise(1, 4, 8, 6)
    options = {"scale": (1, 2, 2), "patch": (4, 8, 6)}
    full = stacked(forward_of(network, autocast=False, **options), lr_image)
    actual = stacked(forward_of(network, autocast=autocast, **options), lr_image)
    assert actual.dtype == torch.float32
    relative = float((actual - full).norm() / full.norm())
    low = autocast or (autocast is None and environment.cpu_has_bf16())
    assert relative < 0.02
    assert (relative > 0) == low


@pytest.mark.parametrize("step_size", [0.0, 1.2])
def test_step_size_is_checked_at_once(step_size):
    with pytest.raises(ValueError, match="step_size must be above 0"):
        PredictionSettings(step_size=step_size)


def test_evaluation_mode_is_set():
    network = NearestNetwork(SCALE).train()
    stacked(forward_of(network), noise(1, 8, 6, 7))
    assert not network.training


@pytest.mark.gpu
@pytest.mark.parametrize("results_on_device", [True, False])
def test_gpu_agrees_with_cpu(results_on_device):
    torch.manual_seed(0)
    network = build_network(ARCHITECTURE, 1, 2)
    lr_image = noise(1, 7, 13, 9)
    plans = hand_plans((1.0, 0.5, 0.8), (1, 2, 2), patch_size=(4, 8, 6))
    results = []
    for device in ("cpu", "cuda"):
        settings = PredictionSettings(
            device=device, autocast=False, results_on_device=results_on_device
        )
        forward = Forward(network, managers(plans)[1], mirroring_axes=(0, 1), settings=settings)
        results.append(stacked(forward, lr_image))
    assert results[1].device.type == ("cuda" if results_on_device else "cpu")
    torch.testing.assert_close(results[1].cpu(), results[0], rtol=1e-3, atol=1e-3)
