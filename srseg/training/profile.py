"""How to train on this machine: precision, workers, batch and epoch length."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from srseg import environment

PRECISIONS = ("fp32", "bf16", "fp16")
_BYTES_PER_WORKER = 700 * 2**20  # a loader process with torch imported and a few batches in flight
_CPU_BATCH = 2


@dataclass(frozen=True)
class Profile:
    """What the machine decides about training.

    Attributes:
        precision: of the network's forward pass; heads and losses are fp32 in any case.
        batch_size: the planned one, or less.
        num_workers: loader processes.
        iterations_per_epoch: optimiser steps between two validations.
        val_iterations_per_epoch: validation batches an epoch.
    """

    precision: str
    batch_size: int
    num_workers: int
    iterations_per_epoch: int
    val_iterations_per_epoch: int

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """Return the autocast context of the forward pass."""
        if self.precision == "fp32":
            return nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(device.type, dtype=dtype)


def profile_for(device: torch.device, planned_batch_size: int) -> Profile:
    """Return the profile of `device`.

    CUDA trains as nnU-Net does: fp16 autocast with a scaler, the planned batch, 250 steps an
    epoch. A CPU does one or two orders of magnitude fewer steps in a night, so there a small
    batch buys steps, bf16 is used where the CPU multiplies it in hardware, and epochs are short.
    """
    cores = environment.available_cores()
    workers = environment.worker_count(_BYTES_PER_WORKER, wanted=max(1, min(12, cores - 1)))
    if device.type == "cuda":
        return Profile("fp16", planned_batch_size, workers, 250, 50)
    if device.type == "cpu":
        precision = "bf16" if environment.cpu_has_bf16() else "fp32"
        return Profile(precision, min(planned_batch_size, _CPU_BATCH), workers, 100, 10)
    return Profile("fp32", planned_batch_size, workers, 250, 50)
