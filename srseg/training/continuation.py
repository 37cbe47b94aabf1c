"""Continuing a training: from which checkpoint, and whether its batches go on as they began."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srseg.inference.model_folder import load_checkpoint
from srseg.inference.records import shaping
from srseg.plans.comparison import differing_keys
from srseg.training.method import PROCEDURE_BLOCKS

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from srseg.training.trainer import SRSegTrainer

logger = logging.getLogger(__name__)


def newest_checkpoint(files: Sequence[Path]) -> Path:
    """Return the checkpoint with the latest moment of training in its log; of equals the first.

    Epochs do not tell: a new training over a finished one of 1000 epochs may have been killed in
    epoch 50. The files' own times do not either, because copies get new ones.

    Args:
        files: one or more; a single one is not read.

    Raises:
        ValueError: if one of several is damaged.
    """
    if len(files) == 1:
        return files[0]
    moments = [_last_moment(load_checkpoint(file)) for file in files]
    newest = files[moments.index(max(moments))]
    if newest != files[0]:
        logger.warning(
            "%s is of a later moment of training than %s: going on from %s.",
            newest.name,
            files[0].name,
            newest,
        )
    return newest


def _last_moment(checkpoint: Mapping[str, Any]) -> float:
    """Return the last time, in seconds, at which an epoch of the checkpoint began or ended."""
    log = checkpoint.get("logging") or {}
    keys = ("epoch_start_timestamps", "epoch_end_timestamps")
    times = [time for key in keys for time in log.get(key, ()) if time is not None]
    return max(times, default=float("-inf"))


def check_same_plans(trainer: nnUNetTrainer, checkpoint: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of other plans or labels: it would see and predict other images.

    Raises:
        ValueError: if they differ; the entries are named.
    """
    trained = checkpoint["init_args"]
    differences = differing_keys(
        shaping(trained["plans"], trained["dataset_json"]),
        shaping(trainer.plans_manager.plans, trainer.dataset_json),
    )
    if differences:
        raise ValueError(
            "the checkpoint was trained with other plans or labels than the preprocessed dataset "
            f"and the method give now ({', '.join(differences[:4])} differ); bring the old ones "
            "back to continue or validate it, or train anew without --c."
        )


def check_same_batches(trainer: SRSegTrainer, checkpoint: Mapping[str, Any]) -> None:
    """Refuse to continue with batches that are not those the training began with.

    Plans and labels are compared by `check_same_plans`. A number of iterations per epoch may
    change between two epochs, as the batches of an epoch do not depend on it.

    Args:
        trainer: initialised, with what this run was asked for.
        checkpoint: of an srseg training.

    Raises:
        ValueError: if seed, batch size, fold, augmentation or the share of unlabelled cases
            differ; what to give is said.
    """
    own = checkpoint["srseg"]
    options = {
        "-seed": (own["seed"], trainer.seed),
        "-batch_size": (own["batch_size"], trainer.batch_size),
    }
    other = {flag: pair for flag, pair in options.items() if pair[0] != pair[1]}
    if other:
        before = " ".join(f"{flag} {pair[0]}" for flag, pair in other.items())
        now = " ".join(f"{flag} {pair[1]}" for flag, pair in other.items())
        raise ValueError(
            f"the checkpoint was trained with {before}, this run has {now}; "
            f"give {before} to continue it, or train anew without --c."
        )
    fold = checkpoint["init_args"]["fold"]
    if str(fold) != str(trainer.fold):
        raise ValueError(
            f"the checkpoint is of fold {fold} and cannot be continued as fold {trainer.fold}, "
            "whose validation cases it has been trained on."
        )
    blocks = {"augmentation": "augmentation", "unlabelled": "share of unlabelled cases"}
    blocks |= {"guidance": "guidance"} | PROCEDURE_BLOCKS
    for key, what in blocks.items():
        before, now = own["method"].get(key, {}), getattr(trainer.method, key)
        differences = differing_keys(before, now)
        if differences:
            raise ValueError(
                f"the checkpoint was trained with another {what} than method "
                f"'{trainer.method.name}' has now ({', '.join(differences)} differ); bring the "
                "old one back to continue it, or train anew without --c."
            )
