"""Model folders as training writes them, with an untrained network in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from srseg.networks.build import build_network
from tests.inference.known_networks import dataset_json
from tests.preprocessing.hand_plans import hand_plans

LR_SPACING = (4.0, 0.75, 0.5)
ARCHITECTURE = {
    "network_class_name": "srseg.networks.joint_unet.JointUNet",
    "arch_kwargs": {
        "n_stages": 2,
        "features_per_stage": [4, 6],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2]],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
        "scale": [1, 2, 2],
        "hr_width": 4,
        "sr_head": True,
    },
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
}


def write_model(
    results_folder: Path,
    *,
    folds: Sequence[int | str] = (0,),
    name: str = "SRSegTrainer__srsegPlans__3d_fullres",
    patch_size: Sequence[int] = (4, 8, 6),
) -> Path:
    """Return the model folder of an untrained JointUNet; each fold has other weights."""
    folder = results_folder / "Dataset901_Tiny" / name
    scale = ARCHITECTURE["arch_kwargs"]["scale"]
    plans = hand_plans(np.divide(LR_SPACING, scale).tolist(), scale, patch_size=patch_size)
    plans["configurations"]["3d_fullres"]["architecture"] = ARCHITECTURE
    folder.mkdir(parents=True)
    contents = {"plans": plans, "dataset": dataset_json(), "method": {"name": name.split("__")[0]}}
    for file, content in contents.items():
        (folder / f"{file}.json").write_text(json.dumps(content))
    for seed, fold in enumerate(folds):
        (folder / f"fold_{fold}").mkdir()
        torch.manual_seed(seed)
        network = build_network(ARCHITECTURE, 1, 2)
        for parameter in network.parameters():  # the SR head starts at zero: let it do something
            torch.nn.init.normal_(parameter, std=0.3)
        checkpoint = {
            "network_weights": network.state_dict(),
            "trainer_name": name.split("__")[0],
            "init_args": {
                "plans": plans,
                "configuration": "3d_fullres",
                "fold": fold,
                "dataset_json": dataset_json(),
            },
            "inference_allowed_mirroring_axes": (0, 1, 2),
            "srseg": {"method": contents["method"]},
        }
        torch.save(checkpoint, folder / f"fold_{fold}/checkpoint_final.pth")
    return folder


def rewrite_record(folder: Path, *, fold: int | str = 0, **init_args: object) -> None:
    """Change what a fold's checkpoint says it was trained with; None removes an entry."""
    file = folder / f"fold_{fold}/checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=True)
    changed = {**checkpoint["init_args"], **init_args}
    checkpoint["init_args"] = {key: value for key, value in changed.items() if value is not None}
    torch.save(checkpoint, file)
