"""How far one atlas gets: as it lies, warped by the network, and through the segmenter."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

from srseg.inference.registration_pair import padded_like, register_pair
from srseg.metrics.segmentation import dice
from srseg.networks.registration.one_shot import OneShotNet
from srseg.networks.registration.warp import (
    folded_share,
    jacobian_determinant,
    warp,
    warp_labels,
)
from srseg.preprocessing.dataset import SRSegDataset
from srseg.training.json_values import finite
from srseg.training.losses.registration import lncc_loss, one_hot

STAGES = ("before", "registered", "segmenter")


def validate_registration(
    network: OneShotNet,
    atlas: SRSegDataset,
    cases: SRSegDataset,
    *,
    patch_size: Sequence[int],
    hr_spacing: Sequence[float],
    labels: Sequence[int],
    folder: Path,
) -> list[str]:
    """Write `one_shot.json` and `one_shot.csv` into `folder`; return the means in lines.

    Dice is on the preprocessed HR grid: of the atlas's labels laid centre on centre, of the same
    after warping, and of the segmentation of the image alone. A case without a label has no Dice
    of it.

    Args:
        network: trained; is put into eval mode.
        atlas: a dataset of one case.
        cases: with labels, which are only compared with.
        patch_size: the planned LR patch.
        hr_spacing: mm per axis of the network.
        labels: of the foreground.
        folder: exists.
    """
    network.eval()
    name = atlas.identifiers[0]
    moving = _loaded(atlas, name, len(patch_size))
    rows = [
        {"case": case}
        | _scores(
            network,
            moving,
            _loaded(cases, case, len(patch_size)),
            patch_size=patch_size,
            hr_spacing=hr_spacing,
            labels=labels,
        )
        for case in cases.identifiers
    ]
    keys = [key for key in rows[0] if key != "case"] if rows else []
    mean = {key: _nanmean([row[key] for row in rows]) for key in keys}
    content = {"atlas": name, "mean": mean, "metric_per_case": rows}
    _write(folder, content, rows)
    dices = ", ".join(f"{stage} {mean[f'dice_{stage}']:.4f}" for stage in STAGES) if rows else "-"
    folded = f"{mean['folded_share']:.3%}" if rows else "-"
    return [f"Mean Dice of atlas {name}: {dices}; folded voxels {folded}"]


def _loaded(dataset: SRSegDataset, case: str, num_axes: int) -> dict[str, torch.Tensor]:
    """Return LR image, HR image and labels of a case; a slice for two axes."""
    hr_image, hr_seg, _, _ = dataset.load_case(case)
    arrays = {"lr": dataset.load_lr(case), "hr": hr_image, "labels": hr_seg}
    tensors = {key: torch.from_numpy(np.array(array[:])) for key, array in arrays.items()}
    if num_axes == 2 and tensors["lr"].shape[1] != 1:
        raise ValueError(f"case {case} has several slices; a 2d network registers single ones.")
    return tensors


def _scores(
    network: OneShotNet,
    moving: Mapping[str, torch.Tensor],
    fixed: Mapping[str, torch.Tensor],
    *,
    patch_size: Sequence[int],
    hr_spacing: Sequence[float],
    labels: Sequence[int],
) -> dict[str, float]:
    device = next(network.parameters()).device
    pair = register_pair(network, moving["lr"], fixed["lr"], patch_size=patch_size)
    shape = pair.displacement.shape[2:]

    def batch(array: torch.Tensor) -> torch.Tensor:
        array = array[None].to(device)
        return array.squeeze(2) if len(shape) == 2 else array

    num_classes = pair.output.seg[0].shape[1]
    atlas = one_hot(pad(batch(moving["labels"]), _padding(pair.moving_box, shape)), num_classes)
    box = (slice(None), *pair.fixed_box)
    found = {
        "before": atlas.argmax(1)[box],
        "registered": warp_labels(atlas, pair.displacement)[box],
        "segmenter": pair.output.seg[0].argmax(1)[box],
    }
    truth = batch(fixed["labels"])[:, 0].cpu().numpy()
    scores: dict[str, float] = {}
    for stage, segmentation in found.items():
        array = segmentation.cpu().numpy()
        own = {label: dice(array == label, truth == label) for label in labels}
        scores[f"dice_{stage}"] = _nanmean(list(own.values()))
        scores |= {f"dice_{stage}_{label}": value for label, value in own.items()}
    atlas_hr = padded_like(batch(moving["hr"]).float(), pair.moving_box, shape)
    warped = warp(atlas_hr, pair.displacement)
    inside = (..., *pair.fixed_box)
    fixed_hr = batch(fixed["hr"]).float()
    everywhere = torch.ones_like(fixed_hr[:, :1], dtype=torch.bool)
    for stage, image in (("before", atlas_hr), ("registered", warped)):
        scores[f"lncc_{stage}"] = 1 - float(lncc_loss(image[inside], fixed_hr, everywhere))
    scale = torch.tensor(hr_spacing, device=device).reshape(-1, *(1,) * len(shape))
    determinant = jacobian_determinant(pair.displacement * scale, hr_spacing)
    return scores | {"folded_share": folded_share(determinant[box])}


def _padding(box: Sequence[slice], shape: Sequence[int]) -> list[int]:
    """Return torch's padding, the last axis first, from a box to a canvas."""
    axes = list(zip(box, shape, strict=True))[::-1]
    return [n for axis, size in axes for n in (axis.start, size - axis.stop)]


def _nanmean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _write(folder: Path, content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    text = json.dumps(finite(content), indent=2, allow_nan=False)
    for name in ("one_shot.json", "one_shot.csv"):
        temporary = folder / f".{name}.{os.getpid()}.tmp"
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            if name.endswith(".json"):
                stream.write(text + "\n")
            elif rows:
                writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        temporary.replace(folder / name)
