"""A model folder of an untrained `OneShotNet` whose fields are not zero, and scans for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from srseg.networks.build import build_network
from tests.inference.known_networks import dataset_json
from tests.inference.model_folders import ARCHITECTURE
from tests.preprocessing.hand_plans import OBLIQUE, hand_plans

TRANSPOSE = (2, 0, 1)
SCALE = (1, 2, 2)
PLANNED_MM = (1.0, 1.1, 2.1)  # LR, plan order
TURNED = tuple(  # OBLIQUE, turned by another 5 degrees around x
    (
        np.reshape(OBLIQUE, (3, 3))
        @ [[1, 0, 0], [0, np.cos(0.09), -np.sin(0.09)], [0, np.sin(0.09), np.cos(0.09)]]
    ).ravel()
)


def write_registering_model(
    results_folder: Path, *, folds: Sequence[int] = (0,), patch_size: Sequence[int] = (18, 18, 10)
) -> Path:
    """Return the model folder; each fold has other weights."""
    folder = results_folder / "Dataset901_Tiny" / "BiJROS__srsegPlans__3d_fullres"
    architecture = deepcopy(ARCHITECTURE)
    architecture["network_class_name"] = "srseg.networks.registration.one_shot.OneShotNet"
    hr_spacing = np.divide(PLANNED_MM, SCALE).tolist()
    plans = hand_plans(hr_spacing, SCALE, patch_size=patch_size, transpose=TRANSPOSE)
    plans["configurations"]["3d_fullres"]["architecture"] = architecture
    folder.mkdir(parents=True)
    contents = {"plans": plans, "dataset": dataset_json(), "method": {"name": "BiJROS"}}
    for file, content in contents.items():
        (folder / f"{file}.json").write_text(json.dumps(content))
    for seed in folds:
        (folder / f"fold_{seed}").mkdir()
        torch.manual_seed(seed)
        network = build_network(architecture, 1, 2)
        torch.nn.init.normal_(network.registration_decoder.flow.weight, std=0.1)
        init_args = {"plans": plans, "configuration": "3d_fullres", "fold": seed}
        checkpoint = {
            "network_weights": network.state_dict(),
            "trainer_name": "BiJROS",
            "init_args": init_args | {"dataset_json": dataset_json()},
            "inference_allowed_mirroring_axes": None,
            "srseg": {"method": contents["method"]},
        }
        torch.save(checkpoint, folder / f"fold_{seed}/checkpoint_final.pth")
    return folder


def write_scan(
    file: Path,
    image: np.ndarray,
    *,
    spacing_xyz: Sequence[float],
    origin_xyz: Sequence[float],
    direction_xyz: Sequence[float] = OBLIQUE,
) -> sitk.Image:
    """Return the ITK image (Z, Y, X) after writing it; NIfTI rounds the geometry a little."""
    itk = sitk.GetImageFromArray(image)
    itk.SetSpacing(spacing_xyz)
    itk.SetOrigin(origin_xyz)
    itk.SetDirection(direction_xyz)
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(itk, str(file))
    return sitk.ReadImage(str(file))


def blob(shape: Sequence[int], seed: int, border: int = 1) -> np.ndarray:
    """Return (Z, Y, X) float32 positive smooth noise with a border of zeros."""
    coarse = torch.randn((1, 1, 4, 4, 4), generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(
        coarse, tuple(shape), mode="trilinear", align_corners=True
    )
    image = np.zeros(shape, np.float32)
    inner = (slice(border, -border),) * 3
    image[inner] = 500 + 100 * fine[0, 0].numpy()[inner]
    return image
