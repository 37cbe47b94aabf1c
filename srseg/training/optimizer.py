"""The optimiser of a method file, and nnU-Net's polynomial learning-rate decay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

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
