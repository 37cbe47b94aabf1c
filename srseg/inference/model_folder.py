"""What a trained model is on disk: readable JSON files and weights, and no code.

A model folder `METHOD__PLANS__CONFIGURATION` holds `plans.json`, `dataset.json`, `method.json` and
`fold_k/checkpoint_*.pth`; where a checkpoint records plans, labels and method itself, these count
(see `records.py`). The network is rebuilt from the plans through an allow-list and weights are
read with `weights_only=True`: opening somebody else's model never runs their code. A model with a
user's own encoder names code to import, and is opened only with `trust`.
"""

from __future__ import annotations

import logging
import pickle
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from torch import nn

from srseg.inference.records import agreed_record
from srseg.networks.build import build_network
from srseg.networks.user_encoder import check_trusted, user_encoder_of
from srseg.plans.datasets import dataset_name
from srseg.plans.managers import SRSegConfigurationManager, SRSegPlansManager
from srseg.plans.stock import is_stock_folder

logger = logging.getLogger(__name__)

FINAL_CHECKPOINT = "checkpoint_final.pth"
_FILES = ("plans.json", "dataset.json", "method.json")


@dataclass(frozen=True)
class TrainedModel:
    """A model folder in memory: everything but the network object.

    Attributes:
        folder: where it was read from.
        plans_manager: of the merged plans the weights were trained with.
        configuration_manager: of the configuration that was trained.
        dataset_json: labels, channels and file ending of the training data.
        method: the method file's content.
        folds: the folds that were read, numbers or "all".
        weights: one state dict per fold; none in a predictor's `model`.
        mirroring_axes: axes test-time flips may use, as counted by the network; None for none.
        trust: whether a user's encoder may be imported.
    """

    folder: Path
    plans_manager: SRSegPlansManager
    configuration_manager: SRSegConfigurationManager
    dataset_json: dict
    method: dict
    folds: tuple[int | str, ...]
    weights: list[dict[str, torch.Tensor]]
    mirroring_axes: tuple[int, ...] | None
    trust: bool = False


def _numpy_globals() -> list[Any]:
    """Return what a pickle of NumPy scalars names; stock nnU-Net logs its metrics as such."""
    dtypes = [
        np.dtype(name) for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "?")
    ]
    rebuild_scalar = np.float64(0).__reduce__()[0]
    return [rebuild_scalar, np.dtype, *{type(dtype) for dtype in dtypes}]


def load_checkpoint(checkpoint_file: str | Path) -> dict[str, Any]:
    """Return a checkpoint's content on the CPU, without running anything it may carry.

    Stock nnU-Net checkpoints load too: the NumPy scalars of their logs are allowed.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or holds objects other than tensors and plain values.
    """
    checkpoint_file = Path(checkpoint_file)
    if not checkpoint_file.is_file():
        raise FileNotFoundError(f"there is no checkpoint {checkpoint_file}.")
    if not zipfile.is_zipfile(checkpoint_file):  # torch writes zip files; the index stands last
        raise ValueError(f"the checkpoint {checkpoint_file} is damaged or truncated.")
    try:
        with torch.serialization.safe_globals(_numpy_globals()):
            checkpoint = torch.load(checkpoint_file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, LookupError, OSError, EOFError) as error:
        raise ValueError(
            f"the checkpoint {checkpoint_file} is damaged, or holds objects other than tensors and "
            f"plain values, which are not loaded because they could run code "
            f"({_first_sentence(error)})."
        ) from error
    if not isinstance(checkpoint, dict) or "network_weights" not in checkpoint:
        raise ValueError(f"{checkpoint_file} is no model's checkpoint: it has no network_weights.")
    return checkpoint


def open_model(
    folder: str | Path,
    folds: Sequence[int | str] | None = None,
    *,
    checkpoint_name: str = FINAL_CHECKPOINT,
    trust: bool = False,
) -> TrainedModel:
    """Return the trained model in `folder`.

    Args:
        folder: a model folder.
        folds: which folds to average; None takes every numbered fold that has the checkpoint, or
            `fold_all` when there is no numbered one.
        checkpoint_name: file name inside the fold folders.
        trust: open a model with a user's own encoder too, whose code building the network runs.

    Raises:
        FileNotFoundError: if the folder, a file of it, a fold or a checkpoint is missing; what
            there is gets listed.
        ValueError: if a checkpoint is damaged, the folds were trained with different
            configurations, plans or labels, or nnU-Net's own trainer has trained them; or if
            there is a user's encoder and no trust.
    """
    folder = Path(folder)
    if is_stock_folder(folder):
        raise ValueError(
            f"{folder} is a model of nnU-Net's own trainer, which reads HR images: srseg_compare "
            "and nnUNetv2_predict predict with it."
        )
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        what = "is not a folder" if not folder.is_dir() else f"lacks {', '.join(missing)}"
        raise FileNotFoundError(f"{folder} {what}, so it is no srseg model folder.")
    chosen = _chosen_folds(folder, folds, checkpoint_name)
    checkpoints = {k: load_checkpoint(folder / f"fold_{k}" / checkpoint_name) for k in chosen}
    plans, dataset_json, method = (load_json(str(folder / name)) for name in _FILES)
    record = agreed_record(
        folder, checkpoints, plans=plans, dataset_json=dataset_json, method=method
    )
    plans_manager = SRSegPlansManager(record.plans)
    configuration_manager = plans_manager.get_configuration(record.configuration)
    import_path = user_encoder_of(configuration_manager.configuration["architecture"])
    check_trusted(import_path, trust=trust, where=str(folder))
    axes = checkpoints[chosen[0]].get("inference_allowed_mirroring_axes")
    logger.info("model %s, fold %s, %s", folder, ", ".join(map(str, chosen)), checkpoint_name)
    return TrainedModel(
        folder=folder,
        plans_manager=plans_manager,
        configuration_manager=configuration_manager,
        dataset_json=record.dataset_json,
        method=record.method,
        folds=chosen,
        weights=[checkpoints[fold]["network_weights"] for fold in chosen],
        mirroring_axes=tuple(axes) if axes is not None else None,
        trust=trust,
    )


def rebuilt_network(model: TrainedModel) -> nn.Module:
    """Return the network that a model's plans describe, with the weights of its last fold.

    Raises:
        ValueError: if the plans name a class outside the allow-list, or the weights of a fold do
            not fit the network.
    """
    network = build_network(
        model.configuration_manager.configuration["architecture"],
        determine_num_input_channels(
            model.plans_manager, model.configuration_manager, model.dataset_json
        ),
        model.plans_manager.get_label_manager(model.dataset_json).num_segmentation_heads,
        trust=model.trust,
    )
    for fold, weights in zip(model.folds, model.weights, strict=True):
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"the weights of fold {fold} in {model.folder} do not fit the network of its "
                f"plans ({reason})."
            ) from error
    return network


def find_model(
    results_folder: str | Path,
    *,
    dataset: str | int | None = None,
    plans: str | None = None,
    configuration: str | None = None,
    method: str | None = None,
) -> Path:
    """Return the one model folder under `results_folder` that fits what was asked for.

    Args:
        results_folder: the value of `nnUNet_results`.
        dataset: id ("4", 4) or name ("Dataset004_Hippocampus").
        plans: name of the plans, for example "srsegPlans".
        configuration: for example "3d_fullres".
        method: name of the method.

    Raises:
        FileNotFoundError: if none fits; what was searched and what there is gets said.
        ValueError: if several fit (they are listed), or the dataset is unknown.
    """
    results_folder = Path(results_folder)
    checkpoints = results_folder.glob("Dataset*/*__*__*/fold_*/checkpoint_*.pth")
    folders = {file.parents[1] for file in checkpoints}  # others were begun and never saved
    known = sorted(folder for folder in folders if (folder / "method.json").is_file())
    asked = {"-d": dataset, "-tr": method, "-p": plans, "-c": configuration}
    if dataset is not None:
        asked["-d"] = dataset_name(dataset, results_folder)
    fitting = [path for path in known if _fits(path, asked)]
    if len(fitting) == 1:
        return fitting[0]
    wanted = " ".join(f"{flag} {value}" for flag, value in asked.items() if value is not None)
    listing = "; ".join(str(path.relative_to(results_folder)) for path in fitting or known)
    if fitting:
        raise ValueError(
            f"{len(fitting)} trained models fit {wanted or 'without -d'}, so say which with -d, "
            f"-tr, -p and -c (or -m FOLDER): {listing}."
        )
    raise FileNotFoundError(
        f"no trained model{' for ' + wanted if wanted else ''} in {results_folder}; "
        f"trained there: {listing or 'none (srseg_train makes one)'}."
    )


def _fits(model_folder: Path, asked: dict[str, str | int | None]) -> bool:
    names = (model_folder.parent.name, *model_folder.name.split("__"))
    flags = ("-d", "-tr", "-p", "-c")
    return len(names) == len(flags) and all(
        asked[flag] in (None, name) for flag, name in zip(flags, names, strict=True)
    )


def _chosen_folds(
    folder: Path, folds: Sequence[int | str] | None, checkpoint_name: str
) -> tuple[int | str, ...]:
    """Return the folds to read; those asked for must have the checkpoint."""
    present = {path.parent.name[5:] for path in folder.glob(f"fold_*/{checkpoint_name}")}
    numbered = sorted(int(name) for name in present if name.isdigit())
    known: list[int | str] = [*numbered, *sorted(name for name in present if not name.isdigit())]
    if folds is None:
        folds = numbered or known
    wanted = [int(fold) if str(fold).isdigit() else fold for fold in folds]
    absent = [str(fold) for fold in wanted if fold not in known]
    if absent or not wanted:
        files = sorted(str(path.relative_to(folder)) for path in folder.glob("fold_*/*.pth"))
        raise FileNotFoundError(
            f"{folder} has no {checkpoint_name} of fold {', '.join(absent) or '(any)'}; "
            f"there is: {', '.join(files) or 'no checkpoint'}."
        )
    return tuple(wanted)


def _first_sentence(error: Exception) -> str:
    return str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__
