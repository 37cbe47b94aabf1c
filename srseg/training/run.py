"""One training run: from names to a trained, validated fold; on one device or several GPUs."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json

from srseg import environment
from srseg.inference.model_folder import load_checkpoint
from srseg.networks.user_encoder import check_trusted, is_import_path
from srseg.plans.datasets import dataset_name
from srseg.plans.managers import load_plans
from srseg.plans.stock import STOCK_TRAINER
from srseg.training.continuation import check_same_batches
from srseg.training.data import unlabelled_dataset
from srseg.training.frozen_encoder import read_encoder
from srseg.training.merge import merged_plans
from srseg.training.method import load_method
from srseg.training.pretrained import load_pretrained_weights
from srseg.training.request import (
    TrainingRequest,
    checked_data_folder,
    checked_fold,
    checked_profile,
    checkpoint_to_load,
)
from srseg.training.stock import run_stock_training
from srseg.training.trainer import SRSegTrainer
from srseg.training.trainers import trainer_class
from srseg.training.user_encoder import add_user_encoder


def build_trainer(request: TrainingRequest, device: torch.device) -> SRSegTrainer:
    """Return the configured trainer of a request; nothing is computed yet.

    Raises:
        ValueError, FileNotFoundError: for unknown names (the known ones are listed), a dataset
            that is not preprocessed or lacks the unlabelled cases that the method asks for, or
            options that contradict each other.
    """
    own_encoder = request.encoder is not None and is_import_path(request.encoder)
    if own_encoder:
        check_trusted(request.encoder, trust=request.trust, where="-encoder")
    preprocessed = environment.required_folder("nnUNet_preprocessed")
    environment.required_folder("nnUNet_results")
    name = dataset_name(request.dataset, preprocessed)
    folder = preprocessed / name
    plans_manager = load_plans(folder / f"{request.plans_name}.json")
    configuration = plans_manager.get_configuration(request.configuration)
    method = load_method(request.method)
    fold = checked_fold(request.fold, folder / "splits_final.json")
    data_folder = checked_data_folder(folder / configuration.data_identifier)
    if not request.only_validate:  # that needs no more than the fold's own cases
        unlabelled_dataset(data_folder, method)
    dataset_json = load_json(str(folder / "dataset.json"))
    plans = merged_plans(plans_manager, request.configuration, method, dataset_json)
    if own_encoder:
        add_user_encoder(plans, request.configuration, request.encoder, dataset_json, device)
    plans["continue_training"] = request.continue_training
    trainer_type = trainer_class(method.trainer)
    if method.name != trainer_type.__name__:  # nnU-Net names the model folder after the class
        trainer_type = type(method.name, (trainer_type,), {})
    planned_batch = plans["configurations"][request.configuration]["batch_size"]
    profile = checked_profile(request, device, planned_batch)
    trainer = trainer_type(plans, request.configuration, fold, dataset_json, device)
    trainer.configure(
        method,
        profile,
        num_epochs=request.num_epochs or trainer.num_epochs,
        time_budget_minutes=request.time_budget_minutes,
        seed=request.seed,
        frozen_encoder=read_encoder(request.encoder)
        if request.encoder and not own_encoder
        else None,
        trust=request.trust,
    )
    trainer.disable_checkpointing = request.disable_checkpointing
    method_file = Path(trainer.output_folder_base) / "method.json"
    if trainer.local_rank == 0:
        save_json(json.loads(json.dumps(method.to_json())), str(method_file), sort_keys=False)
    return trainer


def _restore(trainer: SRSegTrainer, checkpoint_file: Path, request: TrainingRequest) -> None:
    checkpoint = load_checkpoint(checkpoint_file)
    trainer.load_checkpoint(checkpoint)
    if request.continue_training:  # a validation draws no batches
        check_same_batches(trainer, checkpoint)


def _run_on_device(request: TrainingRequest, device: torch.device) -> None:
    trainer = build_trainer(request, device)
    fold_folder = Path(trainer.output_folder)
    checkpoint_file = checkpoint_to_load(request, fold_folder)
    if checkpoint_file is not None:
        _restore(trainer, checkpoint_file, request)
    elif request.pretrained_weights is not None:
        trainer.initialize()
        load_pretrained_weights(trainer.unwrapped_network(), request.pretrained_weights)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    if not request.only_validate:
        trainer.run_training()
        if request.validate_best:
            trainer.load_checkpoint(str(fold_folder / "checkpoint_best.pth"))
    elif not trainer.was_initialized:
        trainer.initialize()
    trainer.perform_actual_validation(request.save_probabilities)


def _run_ddp_rank(rank: int, request: TrainingRequest, world_size: int) -> None:
    environment.prepare()
    dist.init_process_group("nccl", rank=rank, world_size=world_size)
    try:
        torch.cuda.set_device(rank)
        _run_on_device(request, torch.device("cuda", rank))
    finally:
        dist.destroy_process_group()


def run_training(request: TrainingRequest) -> None:
    """Train (or only validate) one fold as asked.

    Raises:
        ValueError: for options that contradict each other, see also `build_trainer`.
    """
    if request.continue_training and request.pretrained_weights is not None:
        raise ValueError("--c continues a training, -pretrained_weights begins one; give one.")
    if request.encoder is not None and request.pretrained_weights is not None:
        raise ValueError("-encoder stays as it is, -pretrained_weights would fill it; give one.")
    if request.encoder is not None and request.method == STOCK_TRAINER:
        raise ValueError(f"{STOCK_TRAINER} takes no -encoder; choose a method of srseg's.")
    if request.validate_best and request.disable_checkpointing:
        raise ValueError("--val_best needs checkpoints; it excludes --disable_checkpointing.")
    device = torch.device(environment.resolve_device(request.device))
    torch.set_num_threads(1 if device.type == "cuda" else environment.available_cores())
    if request.method == STOCK_TRAINER:
        run_stock_training(request, device)
        return
    if request.num_gpus <= 1:
        _run_on_device(request, device)
        return
    there = torch.cuda.device_count() if device.type == "cuda" else 0
    if there < request.num_gpus:
        raise ValueError(f"-num_gpus {request.num_gpus} was asked for, this machine has {there}.")
    environment.prepare_rendezvous()
    mp.spawn(_run_ddp_rank, args=(request, request.num_gpus), nprocs=request.num_gpus)
