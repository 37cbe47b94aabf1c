"""Which methods and cases a request means, checked before anything is computed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from batchgenerators.utilities.file_and_folder_operations import load_json

from srseg import environment
from srseg.evaluation.compare.cases import CompareCase, fold_cases, folder_cases
from srseg.evaluation.compare.interpolation import INTERPOLATIONS
from srseg.evaluation.compare.models import (
    Model,
    check_models,
    describe_trained,
    model_folder,
    read_model,
    trained_names,
)
from srseg.evaluation.compare.records import READS_HR
from srseg.evaluation.compare.request import CompareRequest
from srseg.evaluation.compare.training import method_names, train_missing
from srseg.evaluation.context import Context
from srseg.inference.model_folder import FINAL_CHECKPOINT
from srseg.plans.managers import load_plans
from srseg.training.method import load_method, trainable_names

logger = logging.getLogger(__name__)


def train_wanted(request: CompareRequest, dataset_folder: Path) -> None:
    """Train the methods of a request that are not trained yet.

    Args:
        request: with a budget.
        dataset_folder: `nnUNet_results/DatasetXXX_Name`.

    Raises:
        ValueError: without methods, or for unknown ones.
        RuntimeError: if a training fails.
    """
    trained = trained_names(
        dataset_folder,
        plans=request.plans,
        configuration=request.configuration,
        fold=request.fold,
        checkpoint_name=FINAL_CHECKPOINT,
    )
    known = {*INTERPOLATIONS, *trained}
    wanted = [name for name in request.models or () if name not in known]
    if not request.models:
        raise ValueError(
            f"--train needs -models: what to train; known: {', '.join(trainable_names())}, or the "
            "path of a method file."
        )
    train_missing(
        method_names(wanted),
        dataset_folder,
        plans=request.plans,
        configuration=request.configuration,
        fold=request.fold,
        device=request.device,
        budget=request.budget,
    )


def compared_methods(
    request: CompareRequest, dataset_folder: Path
) -> tuple[list[Model], list[str]]:
    """Return the trained models and the names of the interpolations to compare.

    Args:
        request: what is wanted.
        dataset_folder: `nnUNet_results/DatasetXXX_Name`.

    Raises:
        FileNotFoundError: if none is trained; what there is gets listed.
        ValueError: for an unknown name, or models that have no common truth.
    """
    trained = trained_names(
        dataset_folder,
        plans=request.plans,
        configuration=request.configuration,
        fold=request.fold,
        checkpoint_name=request.checkpoint_name,
    )
    wanted = [*trained, *INTERPOLATIONS]
    if request.models is not None:
        names = [load_method(n).name if n.endswith(".json") else n for n in request.models]
        wanted = list(dict.fromkeys(names))
    only_built_in = request.models is not None and set(wanted) <= INTERPOLATIONS.keys()
    if not trained and not only_built_in:
        raise FileNotFoundError(
            f"no trained model with {request.checkpoint_name} of {dataset_folder.name}, "
            f"{request.plans}, {request.configuration}, fold {request.fold}; trained there: "
            f"{describe_trained(dataset_folder)}."
        )
    for name in wanted:
        if name not in trained and name not in INTERPOLATIONS:
            raise ValueError(
                f"unknown model '{name}'; trained: {', '.join(trained) or 'none'}; built in: "
                f"{', '.join(INTERPOLATIONS)}; --train trains: {', '.join(trainable_names())}."
            )
    models = [
        read_model(
            model_folder(dataset_folder, name, request.plans, request.configuration),
            int(request.fold) if request.fold.isdecimal() else request.fold,
            request.checkpoint_name,
        )
        for name in wanted
        if name in trained
    ]
    if models:
        check_models(models)
    return models, [name for name in wanted if name in INTERPOLATIONS]


def common_context(request: CompareRequest, models: Sequence[Model], name: str) -> Context:
    """Return what is known of all predictions: of the models, which agree, else of the dataset."""
    if models:
        model = models[0]
        plans, dataset_json = model.plans_manager, model.dataset_json
        manager = model.configuration_manager
    else:
        folder = environment.required_folder("nnUNet_preprocessed") / name
        plans = load_plans(folder / f"{request.plans}.json")
        dataset_json = load_json(str(folder / "dataset.json"))
        manager = plans.get_configuration(request.configuration)
    return Context(dataset_json, plans.image_reader_writer_class(), plans, manager)


def wanted_cases(request: CompareRequest, name: str, context: Context) -> list[CompareCase]:
    """Return the fold's validation cases, or those of the test folder.

    Raises:
        FileNotFoundError: if a file or folder is missing.
        ValueError: for a fold without validation cases.
    """
    if request.lr_images is not None and request.labels is not None:
        return folder_cases(
            request.lr_images, request.labels, request.hr_images, context.file_ending
        )
    splits = environment.required_folder("nnUNet_preprocessed") / name / "splits_final.json"
    raw_folder = environment.required_folder("nnUNet_raw") / name
    return fold_cases(raw_folder, splits, request.fold, context.dataset_json)


def able_to_read(
    request: CompareRequest, models: Sequence[Model], cases: Sequence[CompareCase]
) -> list[Model]:
    """Return the models that can predict: without HR images, those that read them cannot.

    Raises:
        ValueError: if such a model was asked for by name.
    """
    if all(case.hr_images for case in cases):
        return list(models)
    blind = [model.name for model in models if model.facts.reads == READS_HR]
    if blind and request.models is not None:
        raise ValueError(f"{', '.join(blind)} read HR images; name them by -hr_images.")
    if blind:
        logger.warning("left out without -hr_images, which they read: %s", ", ".join(blind))
    return [model for model in models if model.name not in blind]
