"""Model folders, plans and images without training: what a prediction costs needs no quality.

The weights are freshly drawn. A segmentation by them is noise, which both tools have to compress;
our SR image is the interpolated input.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

OUR_KWARGS = ("scale", "trunk", "hr_width", "hr_num_convs", "sr_head")
CONFIGURATION = "3d_fullres"
OUR_PLANS, STOCK_PLANS = "srsegPlans", "nnUNetPlans"
_STATISTICS = ("mean", "median", "std", "min", "max", "percentile_99_5", "percentile_00_5")


def synthetic_plans(
    lr_size: int,
    tile: int,
    *,
    base_features: int,
    num_labels: int,
    hr_width: int,
    num_channels: int = 1,
    lr_tile: int | None = None,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return our plans, stock's on the HR grid, and dataset.json; scale 2, LR 2 mm, HR 1 mm.

    Both have the trunk that nnU-Net's rules give for a patch of `tile`^3. Our patch is the whole
    LR volume, or `lr_tile`^3, of which there are many; stock's tile has `tile`^3 HR voxels.
    """
    from srseg.degradation.spec import default_degradation
    from srseg.planning.architecture import whole_volume_architecture

    scale, lr_spacing, hr_spacing = [2, 2, 2], [2.0, 2.0, 2.0], [1.0, 1.0, 1.0]
    ours, _ = whole_volume_architecture(lr_spacing, [tile] * 3, scale)
    ours = json.loads(json.dumps(ours))  # plain lists, as in a file
    features = ours["arch_kwargs"]["features_per_stage"]
    ours["arch_kwargs"]["features_per_stage"] = [n * base_features // 32 for n in features]
    ours["arch_kwargs"]["hr_width"] = hr_width
    common = {
        "batch_size": 2,
        "normalization_schemes": ["ZScoreNormalization"] * num_channels,
        "use_mask_for_norm": [False] * num_channels,
        "batch_dice": False,
    }
    our_resampling, stock_resampling = {}, {}
    for name, function, order in (
        ("data", "resample_image", 3),
        ("seg", "resample_segmentation", 1),
        ("probabilities", "resample_image", 1),
    ):
        key = f"resampling_fn_{name}"
        our_resampling |= {key: f"srseg.preprocessing.resampling.{function}", f"{key}_kwargs": {}}
        options = {"is_seg": name == "seg", "order": order, "order_z": 0, "force_separate_z": None}
        stock_resampling |= {key: "resample_data_or_seg_to_shape", f"{key}_kwargs": options}
    our_configuration = {
        "data_identifier": f"{OUR_PLANS}_{CONFIGURATION}",
        "preprocessor_name": "SRSegPreprocessor",
        "patch_size": [lr_tile or lr_size] * 3,
        "median_image_size_in_voxels": [lr_size] * 3,
        "spacing": lr_spacing,
        "scale": scale,
        "hr_spacing": hr_spacing,
        "degradation": default_degradation("MR", hr_spacing, scale, multislice=False).to_json(),
        "patch_free": lr_tile is None,
        "architecture": ours,
        **common,
        **our_resampling,
    }
    stock_configuration = {
        "data_identifier": f"{STOCK_PLANS}_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": [tile] * 3,
        "median_image_size_in_voxels": [2.0 * lr_size] * 3,
        "spacing": hr_spacing,
        "architecture": stock_architecture(ours),
        **common,
        **stock_resampling,
    }
    labels = {"background": 0, **{f"label {i}": i for i in range(1, num_labels + 1)}}
    dataset_json = {
        "channel_names": {str(i): "MR" for i in range(num_channels)},
        "labels": labels,
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    plans = [
        _plans(OUR_PLANS, "SRSegPlanner", 2 * lr_size, our_configuration),
        _plans(STOCK_PLANS, "ExperimentPlanner", 2 * lr_size, stock_configuration),
    ]
    statistics = dict.fromkeys(_STATISTICS, 1.0)
    for one in plans:
        one["foreground_intensity_properties_per_channel"] = {
            str(i): statistics for i in range(num_channels)
        }
    plans[0] |= {"srseg_version": "0.1.0", "plans_version": 1, "modality": "MR"}
    return plans[0], plans[1], dataset_json


def _plans(name: str, planner: str, hr_size: int, configuration: dict[str, Any]) -> dict[str, Any]:
    return {
        "dataset_name": "Dataset999_Synthetic",
        "plans_name": name,
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [hr_size] * 3,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {CONFIGURATION: configuration},
        "experiment_planner_used": planner,
        "label_manager": "LabelManager",
    }


def stock_architecture(ours: dict[str, Any]) -> dict[str, Any]:
    """Return nnU-Net's plain U-Net with the trunk of our architecture."""
    kwargs = {k: v for k, v in ours["arch_kwargs"].items() if k not in OUR_KWARGS}
    return {
        **deepcopy(ours),
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": deepcopy(kwargs),
    }


def write_our_model(results: Path, plans: dict, dataset_json: dict, configuration: str) -> Path:
    """Write a model folder of the default method with drawn weights; return it."""
    import torch

    from srseg.networks.build import build_network
    from srseg.training.method import load_method

    torch.manual_seed(0)
    method = json.loads(json.dumps(load_method("SRSegTrainer").to_json()))
    network = build_network(
        plans["configurations"][configuration]["architecture"],
        len(dataset_json["channel_names"]),
        _num_heads(plans, dataset_json),
    )
    folder = _model_folder(results, plans, dataset_json, configuration, "SRSegTrainer")
    (folder / "method.json").write_text(json.dumps(method), encoding="utf-8")
    init_args = {"configuration": configuration, "plans": plans, "dataset_json": dataset_json}
    _write_checkpoint(folder, network, init_args, srseg={"method": method})
    return folder


def write_stock_model(results: Path, plans: dict, dataset_json: dict, configuration: str) -> Path:
    """Write a model folder of `nnUNetTrainer` with drawn weights; return it."""
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    torch.manual_seed(0)
    architecture = plans["configurations"][configuration]["architecture"]
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        len(dataset_json["channel_names"]),
        _num_heads(plans, dataset_json),
        deep_supervision=False,
    )
    folder = _model_folder(results, plans, dataset_json, configuration, "nnUNetTrainer")
    _write_checkpoint(folder, network, {"configuration": configuration})
    return folder


def _num_heads(plans: dict, dataset_json: dict) -> int:
    """Return the channels of the logits: classes, or regions where labels are those."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    return PlansManager(plans).get_label_manager(dataset_json).num_segmentation_heads


def _model_folder(
    results: Path, plans: dict, dataset_json: dict, configuration: str, trainer: str
) -> Path:
    folder = results / plans["dataset_name"] / f"{trainer}__{plans['plans_name']}__{configuration}"
    (folder / "fold_0").mkdir(parents=True)
    for name, content in (("plans", plans), ("dataset", dataset_json)):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def _write_checkpoint(folder: Path, network: Any, init_args: dict, **more: Any) -> None:
    import torch

    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": folder.name.split("__")[0],
        "init_args": init_args,
        "inference_allowed_mirroring_axes": (0, 1, 2),
        **more,
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")


def write_synthetic_case(
    lr_folder: Path, hr_folder: Path, lr_size: int | Sequence[int], channel: int = 0
) -> None:
    """Write one smooth, noisy int16 volume: HR with 1 mm voxels, LR its 2x2x2 means.

    Args:
        lr_folder: for `case_0000.nii.gz`, made if needed, as is
        hr_folder: for the HR volume of the same name.
        lr_size: LR voxels, of all axes or of each.
        channel: number in the name, and seed of the noise.
    """
    import nibabel as nib
    import numpy as np
    import torch
    from torch.nn import functional as F

    lr_shape = [lr_size] * 3 if isinstance(lr_size, int) else list(lr_size)
    generator = torch.Generator().manual_seed(channel)
    coarse = torch.rand(1, 1, *(max(2, n // 4) for n in lr_shape), generator=generator)
    hr_image = F.interpolate(coarse, size=[2 * n for n in lr_shape], mode="trilinear")
    hr_image += 0.05 * torch.randn(hr_image.shape, generator=generator)
    hr_image = 100 + 1000 * hr_image.clamp_(0)  # nowhere zero: nothing is cropped
    for folder, image, mm in (
        (hr_folder, hr_image, 1.0),
        (lr_folder, F.avg_pool3d(hr_image, 2), 2.0),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        affine = np.diag([mm, mm, mm, 1.0])
        nib.save(
            nib.Nifti1Image(image[0, 0].numpy().astype(np.int16), affine),
            folder / f"case_{channel:04d}.nii.gz",
        )
