"""What a user asks `srseg_train` for, and what of it is checked for every trainer alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json

from srseg.training.continuation import newest_checkpoint
from srseg.training.profile import PRECISIONS, Profile, profile_for


@dataclass(frozen=True)
class TrainingRequest:
    """What a user asks `srseg_train` for; None means that the machine or the default decides."""

    dataset: str
    configuration: str
    fold: int | str
    method: str = "SRSegTrainer"
    plans_name: str = "srsegPlans"
    device: str = "auto"
    num_gpus: int = 1
    num_epochs: int | None = None
    iterations_per_epoch: int | None = None
    time_budget_minutes: float | None = None
    batch_size: int | None = None
    num_workers: int | None = None
    precision: str | None = None
    seed: int = 12345
    pretrained_weights: str | None = None
    encoder: str | None = None
    trust: bool = False
    continue_training: bool = False
    only_validate: bool = False
    validate_best: bool = False
    save_probabilities: bool = False
    disable_checkpointing: bool = False


def checked_profile(request: TrainingRequest, device: torch.device, planned_batch: int) -> Profile:
    """Return the machine's profile with the user's overrides.

    Raises:
        ValueError: for numbers below 1 (0 workers are allowed) or a precision the device lacks.
    """
    for name in ("num_epochs", "iterations_per_epoch", "batch_size", "num_gpus"):
        value = getattr(request, name)
        if value is not None and value < 1:
            raise ValueError(f"-{name} is {value}; it must be at least 1.")
    if request.num_workers is not None and request.num_workers < 0:
        raise ValueError(f"-num_workers is {request.num_workers}; it must be at least 0.")
    if request.time_budget_minutes is not None and request.time_budget_minutes <= 0:
        raise ValueError(f"-time_budget is {request.time_budget_minutes}; it must be positive.")
    if request.num_epochs is not None and request.time_budget_minutes is not None:
        raise ValueError(
            f"a training of {request.num_epochs} epochs has no -time_budget; give one of the two."
        )
    if request.precision is not None and request.precision not in PRECISIONS:
        raise ValueError(
            f"unknown precision '{request.precision}'; known: {', '.join(PRECISIONS)}."
        )
    if request.precision == "fp16" and device.type != "cuda":
        raise ValueError("precision fp16 needs a CUDA device; known here: fp32, bf16.")
    profile = profile_for(device, planned_batch)
    chosen = {
        name: getattr(request, name)
        for name in ("iterations_per_epoch", "batch_size", "num_workers", "precision")
        if getattr(request, name) is not None
    }
    if "iterations_per_epoch" in chosen:  # keep nnU-Net's share of validation, at least one batch
        share = profile.val_iterations_per_epoch / profile.iterations_per_epoch
        chosen["val_iterations_per_epoch"] = max(1, round(share * chosen["iterations_per_epoch"]))
    return replace(profile, **chosen)


def checked_fold(fold: str | int, splits_file: Path) -> int | str:
    """Return the fold as nnU-Net's trainer wants it: a number, or "all".

    Raises:
        ValueError: if it is neither, or the split file has no such fold.
    """
    if fold == "all":
        return "all"
    count = len(load_json(str(splits_file))) if splits_file.is_file() else 5
    if str(fold).isdecimal() and int(fold) < count:
        return int(fold)
    known = ", ".join(str(number) for number in range(count))
    raise ValueError(f"unknown fold '{fold}'; known: {known}, all.")


def checked_data_folder(folder: Path) -> Path:
    """Return a folder of preprocessed cases.

    Args:
        folder: inside the preprocessed dataset's.

    Raises:
        FileNotFoundError: if it holds none.
    """
    if not any(folder.glob("*.pkl")):
        raise FileNotFoundError(
            f"{folder} holds no preprocessed cases; run srseg_preprocess -d {folder.parent.name} "
            "first."
        )
    return folder


def checkpoint_to_load(request: TrainingRequest, fold_folder: Path) -> Path | None:
    """Return the checkpoint a request starts from, or None for a new training.

    `--c` takes the one of the latest moment of training; the names' order, which is nnU-Net's,
    decides between equals.

    Raises:
        FileNotFoundError: if validation is asked for and there is no such checkpoint, or
            `--c` finds none (what is there is listed).
    """
    if request.only_validate:
        names = ("checkpoint_best.pth",) if request.validate_best else ("checkpoint_final.pth",)
    elif request.continue_training:
        names = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
    else:
        return None
    found = [fold_folder / name for name in names if (fold_folder / name).is_file()]
    if found:
        return newest_checkpoint(found)
    present = sorted(file.name for file in fold_folder.glob("checkpoint_*.pth"))
    raise FileNotFoundError(
        f"no {' or '.join(names)} in {fold_folder}; present: {', '.join(present) or 'none'}."
    )
