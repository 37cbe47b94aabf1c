"""Checkpoints: plain tensors and values, written in one step, nnU-Net's key names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from srseg import __version__
from srseg.training.continuation import check_same_plans

if TYPE_CHECKING:
    from srseg.training.trainer import SRSegTrainer


def plain(value: Any) -> Any:
    """Return `value` with NumPy scalars and arrays, paths and devices as plain Python values.

    `torch.load(weights_only=True)` reads only those; tensors stay.
    """
    if isinstance(value, Mapping):
        return {plain(key): plain(content) for key, content in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(content) for content in value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (Path, torch.device)):
        return str(value)
    return value


def save_atomically(content: Mapping[str, Any], file: str | Path) -> None:
    """Write a checkpoint so that `file` is always either the old or the new one, whole."""
    file = Path(file)
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        torch.save(plain(content), temporary)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def trainer_state(trainer: SRSegTrainer) -> dict[str, Any]:
    """Return all that continues a training exactly, under nnU-Net's names and `srseg`."""
    scaler = trainer.grad_scaler
    return {
        "network_weights": trainer.unwrapped_network().state_dict(),
        "optimizer_state": trainer.optimizer.state_dict(),
        "grad_scaler_state": scaler.state_dict() if scaler is not None else None,
        "logging": trainer.logger.get_checkpoint(),
        "_best_ema": trainer._best_ema,
        "current_epoch": trainer.current_epoch,
        "init_args": trainer.my_init_kwargs,
        "trainer_name": type(trainer).__name__,
        "inference_allowed_mirroring_axes": trainer.inference_allowed_mirroring_axes,
        "procedure_state": trainer.procedure_state(),  # beside the network: no prediction needs it
        "srseg": {
            "version": __version__,
            "method": trainer.method.to_json(),
            "seed": trainer.seed,
            "encoder": trainer.frozen_encoder.record() if trainer.frozen_encoder else None,
            "batch_size": trainer.batch_size,
            "iteration": trainer.iteration,
            "steps": trainer.steps,
            "iterations_per_epoch": trainer.num_iterations_per_epoch,
            "partial_epoch": trainer.partial_epoch,
            "elapsed_seconds": trainer.clock.elapsed(),
            "rng_state": torch.get_rng_state(),
        },
    }


def trained_steps(checkpoint: Mapping[str, Any]) -> int | None:
    """Return the optimiser steps that a checkpoint has seen; None where it does not say.

    Checkpoints before 2026-11-21 count epochs, so a time budget's last, shortened one counts whole.
    """
    own = checkpoint.get("srseg")
    if own is None or "current_epoch" not in checkpoint:
        return None
    whole_epochs = checkpoint["current_epoch"] * own["iterations_per_epoch"] + own["iteration"]
    return own.get("steps", whole_epochs)


def restore_trainer(trainer: SRSegTrainer, checkpoint: Mapping[str, Any]) -> None:
    """Put an initialised trainer where the checkpoint was written.

    Raises:
        ValueError: if it is not ours, was written by another method or with other plans or
            labels, or stopped inside an epoch of another length.
    """
    own = checkpoint.get("srseg")
    if own is None:
        raise ValueError(
            "the checkpoint was not written by srseg; use -pretrained_weights to start from it."
        )
    if own["method"]["name"] != trainer.method.name:
        raise ValueError(
            f"the checkpoint was trained by method '{own['method']['name']}', "
            f"not by '{trainer.method.name}'; give -tr {own['method']['name']} to continue it."
        )
    if own["method"]["trainer"] != trainer.method.trainer:
        raise ValueError(
            f"the checkpoint of method '{trainer.method.name}' was trained by "
            f"{own['method']['trainer']}, the method's trainer is {trainer.method.trainer} now; "
            "bring the old one back to continue it, or train anew without --c."
        )
    check_same_plans(trainer, checkpoint)
    if own["iteration"] and own["iterations_per_epoch"] != trainer.num_iterations_per_epoch:
        raise ValueError(
            f"the checkpoint stopped inside an epoch of {own['iterations_per_epoch']} iterations; "
            f"continue with -iterations_per_epoch {own['iterations_per_epoch']}, "
            f"got {trainer.num_iterations_per_epoch}."
        )
    trainer.unwrapped_network().load_state_dict(checkpoint["network_weights"])
    trainer.optimizer.load_state_dict(checkpoint["optimizer_state"])
    if trainer.grad_scaler is not None and checkpoint["grad_scaler_state"] is not None:
        trainer.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])
    trainer.load_procedure_state(checkpoint.get("procedure_state", {}))
    trainer.logger.load_checkpoint(checkpoint["logging"])
    trainer._best_ema = checkpoint["_best_ema"]
    trainer.current_epoch = checkpoint["current_epoch"]
    trainer.iteration = own["iteration"]
    trainer.steps = trained_steps(checkpoint) or 0
    trainer.partial_epoch = list(own["partial_epoch"])
    trainer.clock.spent_seconds = own["elapsed_seconds"]
    trainer.inference_allowed_mirroring_axes = checkpoint["inference_allowed_mirroring_axes"]
    torch.set_rng_state(own["rng_state"])
