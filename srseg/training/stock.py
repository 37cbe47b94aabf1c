"""nnU-Net's own trainer on the HR images of the same preprocessed folder: an upper bound.

`-tr nnUNetTrainer` trains that very class, constructed directly: nnU-Net's search for its name
would import all its trainers, and with them torchvision. Network, patch, loss, augmentation,
optimiser, precision and validation are nnU-Net's, from the plans that stand beside srseg's
(`srseg.planning.oracle_plans`). Set from outside is only what makes steps comparable with srseg's
methods, the batch size and the length of an epoch, and how often checkpoints are written.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from srseg import __version__, environment
from srseg.inference.model_folder import load_checkpoint
from srseg.planning.json_file import write_json
from srseg.planning.oracle_plans import oracle_plans_name
from srseg.plans.datasets import dataset_name
from srseg.plans.managers import SRSegPlansManager, load_plans
from srseg.plans.stock import RECORD, SRSEG_PLANS_FILE, STOCK_TRAINER
from srseg.training.continuation import check_same_plans
from srseg.training.pretrained import load_pretrained_weights
from srseg.training.profile import Profile
from srseg.training.request import (
    TrainingRequest,
    checked_data_folder,
    checked_fold,
    checked_profile,
    checkpoint_to_load,
)

_STEP_FLAGS = {"batch_size": "-batch_size", "iterations_per_epoch": "-iterations_per_epoch"}


def check_stock_request(request: TrainingRequest, device: torch.device) -> None:
    """Refuse what nnU-Net's trainer cannot do, before a folder is made.

    Raises:
        ValueError: in one sentence that says what it does instead.
    """
    if request.time_budget_minutes is not None:
        raise ValueError(
            f"{STOCK_TRAINER} trains a number of epochs, not a time: give -num_epochs instead of "
            "-time_budget."
        )
    if request.num_gpus > 1:
        raise ValueError(
            f"-tr {STOCK_TRAINER} trains on one device, got -num_gpus {request.num_gpus}."
        )
    precision = "fp16" if device.type == "cuda" else "fp32"
    if request.precision not in (None, precision):
        raise ValueError(
            f"{STOCK_TRAINER} computes in {precision} on {device.type}, got -precision "
            f"{request.precision}."
        )
    if request.plans_name.endswith("OraclePlans"):
        raise ValueError(
            f"-tr {STOCK_TRAINER} is given srseg's plans and finds nnU-Net's beside them: give "
            f"-p srsegPlans or the like, got -p {request.plans_name}."
        )


def srseg_plans_of(plans_manager: SRSegPlansManager, configuration: str) -> dict[str, Any]:
    """Return srseg's plans with this configuration alone, marked as read from HR images.

    They say on which HR grid, labels and degradation the model compares with srseg's methods.
    """
    planned = deepcopy(plans_manager.get_configuration(configuration).configuration)
    planned.pop("inherits_from", None)
    return {
        **deepcopy(plans_manager.plans),
        "configurations": {configuration: {**planned, "input": "hr"}},
    }


def build_stock_trainer(request: TrainingRequest, device: torch.device) -> nnUNetTrainer:
    """Return nnU-Net's trainer for a request; nothing is computed yet.

    Raises:
        ValueError, FileNotFoundError: for what it cannot do, unknown names (the known ones are
            listed), or a dataset that is not preprocessed.
    """
    check_stock_request(request, device)
    preprocessed = environment.required_folder("nnUNet_preprocessed")
    environment.required_folder("nnUNet_results")
    folder = preprocessed / dataset_name(request.dataset, preprocessed)
    srseg_plans = srseg_plans_of(
        load_plans(folder / f"{request.plans_name}.json"), request.configuration
    )
    ours = srseg_plans["configurations"][request.configuration]
    plans = load_plans(folder / f"{oracle_plans_name(request.plans_name)}.json").plans
    if request.configuration not in plans["configurations"]:
        raise ValueError(
            f"{plans['plans_name']} has no configuration '{request.configuration}'; "
            f"{STOCK_TRAINER} trains {', '.join(plans['configurations'])}."
        )
    theirs = plans["configurations"][request.configuration]
    fold = checked_fold(request.fold, folder / "splits_final.json")
    checked_data_folder(folder / theirs["data_identifier"])
    profile = checked_profile(replace(request, precision=None), device, ours["batch_size"])
    planned_batch, theirs["batch_size"] = theirs["batch_size"], profile.batch_size
    plans["continue_training"] = request.continue_training
    trainer = nnUNetTrainer(
        plans, request.configuration, fold, load_json(str(folder / "dataset.json")), device
    )
    _configure(trainer, request, profile, srseg_plans)
    trainer.print_to_log_file(
        f"srseg: batches of {profile.batch_size} (nnU-Net planned {planned_batch}) and epochs of "
        f"{profile.iterations_per_epoch} + {profile.val_iterations_per_epoch} iterations (nnU-Net: "
        "250 + 50), as srseg's own methods take here, so that equal steps see as many samples."
    )
    return trainer


def _configure(
    trainer: nnUNetTrainer,
    request: TrainingRequest,
    profile: Profile,
    srseg_plans: Mapping[str, Any],
) -> None:
    """Set what nnU-Net's constructor does not take, and what its checkpoints are to record."""
    trainer.num_epochs = request.num_epochs or trainer.num_epochs
    trainer.num_iterations_per_epoch = profile.iterations_per_epoch
    trainer.num_val_iterations_per_epoch = profile.val_iterations_per_epoch
    trainer.save_every = 1  # epochs; 50 are hours on a CPU
    trainer.disable_checkpointing = request.disable_checkpointing
    trainer.my_init_kwargs[RECORD] = {
        "version": __version__,
        "plans": srseg_plans,
        "batch_size": profile.batch_size,
        "iterations_per_epoch": profile.iterations_per_epoch,
        "seed": request.seed,
    }


def _seed(number: int) -> None:
    """Seed all that nnU-Net draws from in this process; its loader processes seed themselves."""
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def _restore(trainer: nnUNetTrainer, checkpoint_file: Path, request: TrainingRequest) -> None:
    """Put the trainer where a checkpoint was written.

    nnU-Net's own reading runs what a file may carry, so ours, which does not, reads it first.

    Raises:
        ValueError: if it is damaged, of other plans or labels, or is to be continued with steps
            of other sizes than it has made.
    """
    checkpoint = load_checkpoint(checkpoint_file)
    check_same_plans(trainer, checkpoint)
    if request.continue_training:
        before = checkpoint["init_args"].get(RECORD, {})
        now = trainer.my_init_kwargs[RECORD]
        other = [key for key in _STEP_FLAGS if before.get(key) != now[key]]
        if other:
            asked = " ".join(f"{_STEP_FLAGS[key]} {before.get(key)}" for key in other)
            raise ValueError(
                f"{checkpoint_file} was trained with {asked}, this run has "
                f"{', '.join(str(now[key]) for key in other)}; give the same to continue it, or "
                "train anew without --c."
            )
    trainer.load_checkpoint(str(checkpoint_file))


def run_stock_training(request: TrainingRequest, device: torch.device) -> None:
    """Train (or only validate) one fold with nnU-Net's own trainer.

    `-seed` gives the initial weights; batches follow it only with `-num_workers 0`.

    Raises:
        ValueError, FileNotFoundError: see `build_stock_trainer`.
    """
    trainer = build_stock_trainer(request, device)
    checkpoint_file = checkpoint_to_load(request, Path(trainer.output_folder))
    _seed(request.seed)
    trainer.initialize()
    if checkpoint_file is not None:
        _restore(trainer, checkpoint_file, request)
        _seed(request.seed + trainer.current_epoch)  # not the first epochs' batches once more
    elif request.pretrained_weights is not None:
        network = getattr(trainer.network, "_orig_mod", trainer.network)
        load_pretrained_weights(network, request.pretrained_weights)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    with environment.loader_processes(request.num_workers):
        if not request.only_validate:
            own_file = Path(trainer.output_folder_base) / SRSEG_PLANS_FILE
            write_json(trainer.my_init_kwargs[RECORD]["plans"], own_file)
            trainer.run_training()
            if request.validate_best:
                trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_best.pth"))
        trainer.perform_actual_validation(request.save_probabilities)
