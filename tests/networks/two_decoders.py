"""Names, inputs and probes that the tests of networks with two decoders share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from srseg.networks.guidance import Guidance
from srseg.networks.two_decoders import PFSegNet

PFSEG, GATE = "two_decoders.PFSegNet", "dual_decoder_gate.DualDecoderGate"
SHAPE = (4, 8, 12)  # multiples of the tiny network's strides, no two alike


def random_lr(network: PFSegNet, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(11)
    shape = SHAPE[-len(network.scale) :]
    return torch.randn(batch, network.input_channels, *shape, generator=generator)


def hr_shape(network: PFSegNet) -> tuple[int, ...]:
    return tuple(n * s for n, s in zip(SHAPE[-len(network.scale) :], network.scale, strict=True))


def some_guidance(network: PFSegNet, batch: int = 2) -> Guidance:
    generator = torch.Generator().manual_seed(12)
    size = [max(2, n // 2) for n in hr_shape(network)]
    last = [n - m for n, m in zip(hr_shape(network), size, strict=True)]
    image = torch.randn(batch, network.input_channels, *size, generator=generator)
    return Guidance(image, torch.tensor([last, [n // 2 for n in last]])[:batch])


def fill(network: nn.Module) -> None:
    """Make the SR image depend on everything: a fresh network's residual is zero."""
    nn.init.normal_(network.hr_stage.super_resolution.sr_head.weight)


def touched(network: PFSegNet, loss: torch.Tensor) -> Callable[[str], bool]:
    """Return a function that says whether `loss` reaches the parameters below a name."""
    network.zero_grad()
    loss.backward()
    reached = {
        name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()
    }
    return lambda prefix: any(name.startswith(prefix) for name in reached)
