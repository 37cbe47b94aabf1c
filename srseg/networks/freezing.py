"""Modules that pass gradients on and stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


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
