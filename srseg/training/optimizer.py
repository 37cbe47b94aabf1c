"""The optimiser of a method file, and nnU-Net's polynomial learning-rate decay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

GRADIENT_CLIP = 12.0
_BUILDERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], frozenset[str]]] = {
    "sgd": (torch.optim.SGD, frozenset({"momentum", "nesterov"})),
    "adam": (torch.optim.Adam, frozenset({"betas"})),
    "adamw": (torch.optim.AdamW, frozenset({"betas"})),
}
_COMMON = frozenset({"name", "learning_rate", "weight_decay", "warmup"})


def check_optimizer(options: Mapping[str, Any]) -> None:
    """Check a method file's optimiser block.

    Raises:
        ValueError: for an unknown optimiser or option (the known ones are listed), or a missing
            name or learning rate.
    """
    name = options.get("name")
    if name not in _BUILDERS:
        raise ValueError(f"unknown optimizer '{name}'; known: {', '.join(sorted(_BUILDERS))}.")
    allowed = _COMMON | _BUILDERS[name][1]
    unknown = sorted(set(options) - allowed)
    if unknown or "learning_rate" not in options:
        raise ValueError(
            f"optimizer '{name}' has the options {sorted(options)}; learning_rate is required, "
            f"known: {', '.join(sorted(allowed))}."
        )


def build_optimizer(
    parameters: Iterable[torch.nn.Parameter], options: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """Return the optimiser a method file asks for.

    Raises:
        ValueError: as `check_optimizer`.
    """
    check_optimizer(options)
    builder, own = _BUILDERS[options["name"]]
    kwargs = {key: options[key] for key in own if key in options}
    return builder(
        parameters,
        lr=float(options["learning_rate"]),
        weight_decay=float(options.get("weight_decay", 0.0)),
        **kwargs,
    )


def learning_rate_at(progress: float, options: Mapping[str, Any]) -> float:
    """Return the learning rate at `progress` in [0, 1].

    nnU-Net's polynomial decay (1 - progress)^0.9, after a linear warm-up over the first
    `warmup` share of training where the method file gives one.
    """
    initial = float(options["learning_rate"])
    warmup = float(options.get("warmup", 0.0))
    decayed = initial * (1.0 - min(1.0, progress)) ** 0.9
    if progress < warmup:
        return decayed * max(progress / warmup, 1e-3)
    return decayed


def descend(
    loss: torch.Tensor,
    parameters: Iterable[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
    *,
    check: Callable[[torch.Tensor], object],
) -> None:
    """Do one step: gradients of `loss`, clipped to nnU-Net's norm, then the optimiser.

    Args:
        loss: a number with a graph.
        parameters: whose gradients are clipped together: those of `optimizer`.
        optimizer: its gradients are empty.
        scaler: of float16; it skips steps whose gradient is not finite.
        check: without a scaler, is given the gradient's norm before the weights change; raises
            where it is not finite.
    """
    parameters = list(parameters)
    if scaler is not None:
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters, GRADIENT_CLIP)
        scaler.step(optimizer)
        scaler.update()
        return
    loss.backward()
    check(nn.utils.clip_grad_norm_(parameters, GRADIENT_CLIP))
    optimizer.step()
