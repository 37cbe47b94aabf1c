"""What the weights of a model folder were trained with, as their checkpoints record it.

A training rewrites `plans.json`, `dataset.json` and `method.json` of its model folder when it
begins and the checkpoint when it ends. In between, or for good if it is killed, the folder holds
weights of the training before. A checkpoint therefore speaks for itself; the files stand in for
what it does not record.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srseg.plans.comparison import as_json, differing_keys

logger = logging.getLogger(__name__)

# what the weights mean; the rest of dataset.json (file_ending, texts) may be edited afterwards
_LEARNED = ("labels", "regions_class_order", "channel_names", "modality")


def shaping(plans: Mapping[str, Any], dataset_json: Mapping[str, Any]) -> dict[str, Any]:
    """Return what predictions depend on: the plans, and which labels and channels there are."""
    learned = {key: dataset_json[key] for key in _LEARNED if key in dataset_json}
    return {"plans": plans, "dataset": learned}


@dataclass(frozen=True)
class TrainingRecord:
    """What one fold was trained with, as JSON values.

    Attributes:
        configuration: its name.
        plans: the merged plans.
        dataset_json: of the training data; `file_ending` and texts are those of the folder's file.
        method: the method file's content.
    """

    configuration: str
    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    method: dict[str, Any]


def agreed_record(
    folder: Path,
    checkpoints: Mapping[int | str, Mapping[str, Any]],
    *,
    plans: dict[str, Any],
    dataset_json: dict[str, Any],
    method: dict[str, Any],
) -> TrainingRecord:
    """Return what all folds were trained with; a warning says where the folder's files differ.

    Args:
        folder: the model folder, for messages and the configuration in its name.
        checkpoints: per fold.
        plans: content of the folder's plans.json.
        dataset_json: content of its dataset.json.
        method: content of its method.json.

    Raises:
        ValueError: if the folds were trained with different configurations, plans or labels, or
            a record is not plain JSON or says too little.
    """
    records = {
        fold: _record(folder, checkpoint, plans, dataset_json, method)
        for fold, checkpoint in checkpoints.items()
    }
    names = {record.configuration for record in records.values()}
    if len(names) > 1:
        raise ValueError(f"the folds of {folder} are of different configurations: {sorted(names)}.")
    first, *others = records
    agreed = records[first]
    trained = shaping(agreed.plans, agreed.dataset_json)
    for fold in others:
        other = shaping(records[fold].plans, records[fold].dataset_json)
        differences = differing_keys(trained, other)
        if differences:
            raise ValueError(
                f"folds {first} and {fold} of {folder} were trained with different plans "
                f"({_listed(differences)}), so they make no ensemble; name folds that belong "
                "together, or train the older ones again."
            )
    differences = differing_keys(shaping(plans, dataset_json), trained)
    if differences:
        logger.warning(
            "plans.json or dataset.json of %s are not those that its weights were trained with "
            "(%s differ): a later training has rewritten them; the checkpoint's own are used.",
            folder,
            _listed(differences),
        )
    return agreed


def _record(
    folder: Path,
    checkpoint: Mapping[str, Any],
    plans: dict[str, Any],
    dataset_json: dict[str, Any],
    method: dict[str, Any],
) -> TrainingRecord:
    """Return what a checkpoint records, completed from the folder's files."""
    recorded = as_json(
        {
            key: value
            for key, value in (checkpoint.get("init_args") or {}).items()
            if key in ("configuration", "plans", "dataset_json")
        }
    )
    if not all(isinstance(recorded.get(key, {}), dict) for key in ("plans", "dataset_json")):
        raise ValueError(f"a checkpoint of {folder} records plans or labels that are no object.")
    plans = recorded.get("plans", plans)
    if "dataset_json" in recorded:
        learned = {k: v for k, v in recorded["dataset_json"].items() if k in _LEARNED}
        others = {k: v for k, v in dataset_json.items() if k not in _LEARNED}
        dataset_json = {**others, **learned}
    method = as_json((checkpoint.get("srseg") or {}).get("method", method))
    configuration = recorded.get("configuration") or _only_configuration(folder, plans)
    return TrainingRecord(configuration, plans, dataset_json, method)


def _only_configuration(folder: Path, plans: Mapping[str, Any]) -> str:
    """Return the configuration of a checkpoint that does not name it."""
    known = list(plans["configurations"])
    named = folder.name.split("__")[-1]
    if named in known or len(known) == 1:
        return named if named in known else known[0]
    raise ValueError(
        f"the checkpoints of {folder} do not say which configuration they are of, and its plans "
        f"hold several: {', '.join(known)}; call the folder METHOD__PLANS__CONFIGURATION."
    )


def _listed(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
