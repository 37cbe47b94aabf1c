"""Where a network's encoder is, and how modules are frozen: for good, or for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn

PLACES = ("encoder", "segmenter.encoder")  # of networks on the LR grid, and of serial ones


def encoder_place(network: nn.Module) -> str:
    """Return the dotted name of a network's encoder.

    Raises:
        ValueError: if it has none.
    """
    modules = dict(network.named_modules())
    for place in PLACES:
        if place in modules:
            return place
    raise ValueError(
        f"{type(network).__name__} has no encoder to fill by -encoder; networks that have one hold "
        f"it as {' or '.join(PLACES)}."
    )


def freeze(module: nn.Module) -> None:
    """Take gradients from `module` for good and keep it in eval mode, through `train()` too."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    module.eval()
    module.train = partial(_stay, module)  # a parent's train() calls this one


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Keep a module in eval mode and its parameters without gradient; both come back after.

    What is computed inside passes gradients to its input only, whenever backward runs. A module
    that recomputes activations in backward does so outside, with its parameters as they are then.
    """
    modes = [(part, part.training) for part in module.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        module.eval()
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)
        for part, training in modes:
            part.training = training
