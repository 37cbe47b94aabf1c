"""Where a network's encoder is, and how a module is frozen for good."""

from __future__ import annotations

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
