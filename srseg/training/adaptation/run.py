"""From a request to an adapter folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from srseg import __version__, environment
from srseg.inference.adapter import (
    DESCRIPTION,
    METHODS,
    UNITS,
    AdapterDescription,
    read_description,
)
from srseg.inference.histogram import quantile_table
from srseg.inference.model_folder import FINAL_CHECKPOINT, load_checkpoint
from srseg.planning.json_file import write_json
from srseg.plans.comparison import differing_keys
from srseg.preprocessing.body import median_map
from srseg.training.adaptation.images import Domain, check_same_channels, read_domain
from srseg.training.adaptation.log import LINES
from srseg.training.adaptation.methods import TRAINED_METHODS
from srseg.training.adaptation.trainer import LATEST_CHECKPOINT, AdapterTrainer, Schedule

logger = logging.getLogger(__name__)

DEFAULT_PATCH = (16, 32, 32)
_WIDTHS = {"munit": (16, 32), "unit": (16, 32)}
_NORMS = {"munit": "instance"}
_FEWEST_AFTER_STRIDE = 4  # voxels of the patch
_CHECKPOINTS = (LATEST_CHECKPOINT, FINAL_CHECKPOINT)  # the newest first


@dataclass(frozen=True)
class AdaptationRequest:
    """What `srseg_adapt train` was asked for.

    Attributes:
        source: folder or dataset of the domain that the joint network was trained on.
        target: folder or dataset of the domain to adapt.
        output: the adapter's folder.
        method: one of `METHODS`.
        num_steps: of training.
        budget_minutes: training time instead.
        batch_size: patches of each domain a step.
        patch_size: voxels (Z, Y, X), or (Y, X) for a network of slices.
        learning_rate: at the beginning.
        seed: of weights and batches.
        device: "auto", "cuda", "cpu" or "mps".
        continue_training: go on where a training of the same request stopped.
        units: whose map leads back to raw values: "source" or "input".
        weights: of loss terms, replacing the method's.
        plans_name: of a source or target that is a dataset.
        configuration: of its plans.
    """

    source: str
    target: str
    output: Path
    method: str = "vama"
    num_steps: int = 2000
    budget_minutes: float | None = None
    batch_size: int = 2
    patch_size: tuple[int, ...] = DEFAULT_PATCH
    learning_rate: float = 2e-4
    seed: int = 0
    device: str = "auto"
    continue_training: bool = False
    units: str = "input"
    weights: Mapping[str, float] = field(default_factory=dict)
    plans_name: str = "srsegPlans"
    configuration: str = "3d_fullres"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"unknown method '{self.method}'; known: {', '.join(METHODS)}.")
        if self.units not in UNITS:
            raise ValueError(f"unknown units '{self.units}'; known: {', '.join(UNITS)}.")
        if self.num_steps < 1 or self.batch_size < 1 or self.seed < 0:
            raise ValueError(
                f"-num_steps and -batch_size must be at least 1 and -seed at least 0, got "
                f"{self.num_steps}, {self.batch_size} and {self.seed}."
            )
        if not self.learning_rate > 0:
            raise ValueError(f"-learning_rate must be above 0, got {self.learning_rate:g}.")
        if self.budget_minutes is not None and not self.budget_minutes > 0:
            raise ValueError(f"-time_budget must be above 0 minutes, got {self.budget_minutes:g}.")
        if len(self.patch_size) not in (2, 3) or min(self.patch_size) < 1:
            raise ValueError(
                "-patch_size takes Z Y X, or Y X for a network of slices, at least 1 each; got "
                f"{' '.join(map(str, self.patch_size))}."
            )


def train_adapter(request: AdaptationRequest) -> bool:
    """Train (or fit) an adapter; return whether it is complete.

    Raises:
        FileNotFoundError: for folders without images.
        ValueError: for input that cannot be used, a folder that holds another adapter, or
            continuing with another method or other settings.
        RuntimeError: if a loss is not finite.
    """
    _check_folder(request)
    options = {"plans_name": request.plans_name, "configuration": request.configuration}
    source = read_domain(request.source, **options)
    target = read_domain(request.target, **options)
    check_same_channels(source, target)
    description = describe(request, source, target)
    request.output.mkdir(parents=True, exist_ok=True)
    if not description.has_network:
        if (request.output / DESCRIPTION).is_file():  # --c: it stands for what was fitted then
            _check_same(description, read_description(request.output).to_json(), request.output)
        write_json(description.to_json(), request.output / DESCRIPTION)
        return True
    device = torch.device(environment.resolve_device(request.device))
    if device.type == "cpu":
        torch.set_num_threads(environment.available_cores())
    schedule = Schedule(
        request.num_steps,
        request.budget_minutes,
        request.seed,
        request.batch_size,
        request.learning_rate,
    )
    trainer = AdapterTrainer(
        description, (source, target), schedule, weights=request.weights, device=device,
        folder=request.output,
    )  # fmt: skip
    checkpoint = _checkpoint_to_continue(request)
    if checkpoint is not None:
        _check_same(description, checkpoint["adapter"], request.output)
        trainer.restore(checkpoint)
        logger.info("going on from step %d", trainer.step)
    write_json(description.to_json(), request.output / DESCRIPTION)
    return trainer.run()


def describe(request: AdaptationRequest, source: Domain, target: Domain) -> AdapterDescription:
    """Return the description of the adapter that a request asks for.

    The patch is made divisible by the network's strides, and not larger than the median image
    needs.
    """
    num_channels = source.num_channels
    by_channel = [[v.maps[c] for v in source.volumes] for c in range(num_channels)]
    frame = [[m.slope, m.intercept] for m in map(median_map, by_channel)]
    patch, network = request.patch_size, {}
    if request.method in TRAINED_METHODS:
        patch, network = _network_of(request, source, target)
    quantiles = []
    if request.method == "histogram":
        quantiles = [
            quantile_table(
                np.concatenate([v.image[c][v.bodies[c]] for v in source.volumes])
            ).tolist()
            for c in range(num_channels)
        ]
    return AdapterDescription(
        method=request.method,
        num_channels=num_channels,
        patch_size=patch,
        network=network,
        source_frame=frame,
        units=request.units,
        reader=source.reader.__name__,
        quantiles=quantiles,
        training={
            "source": source.name,
            "target": target.name,
            "num_source": len(source.volumes),
            "num_target": len(target.volumes),
            "seed": request.seed,
            "patches_per_step": request.batch_size,
            "learning_rate": request.learning_rate,
            "weights": dict(request.weights),
            "srseg": __version__,
        },
    )


def _network_of(
    request: AdaptationRequest, source: Domain, target: Domain
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Return the patch size and the fields of the networks' `Shape`."""
    num_axes = len(request.patch_size)
    shapes = np.array([v.image.shape[1:] for d in (source, target) for v in d.volumes])
    median = np.ceil(np.median(shapes, axis=0))[-num_axes:]
    widths = _WIDTHS.get(request.method, (8, 16, 32))
    patch = [int(min(n, most)) for n, most in zip(request.patch_size, median, strict=True)]
    strides, rest = [], list(patch)
    for _ in widths[1:]:
        step = [2 if n >= 2 * _FEWEST_AFTER_STRIDE else 1 for n in rest]
        rest = [n // s for n, s in zip(rest, step, strict=True)]
        strides.append(step)
    multiple = np.prod(np.array(strides), axis=0)
    patch = [int(-(-n // m) * m) for n, m in zip(patch, multiple, strict=True)]
    return tuple(patch), {
        "num_channels": source.num_channels,
        "num_axes": num_axes,
        "widths": list(widths),
        "strides": strides,
        "norm": _NORMS.get(request.method, "none"),
        "num_blocks": 1,
    }


def _check_folder(request: AdaptationRequest) -> None:
    """Refuse a folder with an adapter to begin in, or with another training to go on in.

    Raises:
        ValueError: saying what it holds.
    """
    if not (request.output / DESCRIPTION).is_file():
        other = [n for n in (*_CHECKPOINTS, LINES) if (request.output / n).exists()]
        if other:
            raise ValueError(
                f"{request.output} holds a training of something else ({other[0]} without "
                f"{DESCRIPTION}); give another folder by -o."
            )
        return
    held = read_description(request.output)
    if not request.continue_training:
        raise ValueError(
            f"{request.output} holds an adapter of method '{held.method}' already; give --c to "
            "continue its training, or another folder by -o."
        )
    if held.method != request.method:
        raise ValueError(
            f"{request.output} was trained by method '{held.method}', not by "
            f"'{request.method}'; give -method {held.method} to continue it."
        )


def _checkpoint_to_continue(request: AdaptationRequest) -> dict[str, Any] | None:
    """Return the newest checkpoint's content; None begins a training."""
    if not request.continue_training:
        return None
    for name in _CHECKPOINTS:
        if (request.output / name).is_file():
            checkpoint = load_checkpoint(request.output / name)
            if "adapter" not in checkpoint:
                raise ValueError(f"{request.output / name} is no checkpoint of srseg_adapt.")
            return checkpoint
    logger.warning("%s has no checkpoint; training begins at step 0.", request.output)
    return None


def _check_same(description: AdapterDescription, trained: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with other settings or images than the checkpoint's.

    Raises:
        ValueError: naming what differs.
    """
    wanted = description.to_json()
    for content in (wanted, trained := dict(trained)):
        content["training"] = {k: v for k, v in content["training"].items() if k != "srseg"}
    if wanted["method"] != trained["method"]:
        raise ValueError(
            f"the checkpoint in {folder} was trained by method '{trained['method']}', not by "
            f"'{wanted['method']}'; give -method {trained['method']} to continue it."
        )
    differences = differing_keys(wanted, trained)
    if differences:
        raise ValueError(
            f"the training in {folder} was begun with other settings or images: "
            f"{', '.join(differences[:4])} differ; give the same, or another folder by -o."
        )
