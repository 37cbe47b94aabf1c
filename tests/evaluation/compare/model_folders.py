"""Model folders with untrained weights: everything that a comparison looks at, in a second."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from srseg.networks.build import build_network
from srseg.plans.managers import load_plans
from srseg.training.merge import merged_plans
from srseg.training.method import method_from_json
from tests.tiny_dataset import TINY_NAME

METHOD = {
    "trainer": "SRSegTrainer",
    "losses": {"dice_ce": {"weight": 1.0}},
    "optimizer": {"name": "adamw", "learning_rate": 0.002},
}


def write_model(
    root: Path,
    name: str,
    *,
    input: str = "lr",  # noqa: A002  the method file's word
    epochs: int = 2,
    plans: dict[str, Any] | None = None,
    dataset_json: dict[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """Return the model folder of a method, as if it had been trained on the tiny dataset.

    Args:
        root: folder with the three nnU-Net folders, planned.
        name: of the method.
        input: "lr" or "hr".
        epochs: of two iterations each, that the checkpoint claims.
        plans: changes of the configuration's merged plans.
        dataset_json: changes of dataset.json.
        seed: of the weights.
    """
    preprocessed = root / "nnUNet_preprocessed" / TINY_NAME
    manager = load_plans(preprocessed / "srsegPlans.json")
    description = json.loads((preprocessed / "dataset.json").read_text(encoding="utf-8"))
    description |= dataset_json or {}
    method = method_from_json({**METHOD, "name": name, "input": input})
    merged = deepcopy(merged_plans(manager, "3d_fullres", method, description))
    configuration = merged["configurations"]["3d_fullres"]
    heads = manager.get_label_manager(description).num_segmentation_heads
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network(configuration["architecture"], 1, heads)
    configuration |= plans or {}
    folder = root / "nnUNet_results" / TINY_NAME / f"{name}__srsegPlans__3d_fullres"
    (folder / "fold_0").mkdir(parents=True)
    files = {"plans": merged, "dataset": description, "method": method.to_json()}
    for stem, content in files.items():
        (folder / f"{stem}.json").write_text(json.dumps(content), encoding="utf-8")
    checkpoint = {
        "network_weights": network.state_dict(),
        "current_epoch": epochs,
        "init_args": {"configuration": "3d_fullres", "plans": merged, "dataset_json": description},
        "inference_allowed_mirroring_axes": None,
        "srseg": {
            "method": method.to_json(),
            "iteration": 0,
            "iterations_per_epoch": 2,
            "batch_size": 2,
            "elapsed_seconds": 90.0,
        },
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder
