"""The batches a trainer asks for, in terms of plans, method and machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch.utils.data import Dataset

from srseg.degradation.degradation import degradation_from_plans
from srseg.degradation.spec import DegradationSpec
from srseg.plans.managers import SRSegConfigurationManager
from srseg.preprocessing.case_files import UNLABELLED_IMAGES
from srseg.preprocessing.dataset import UNLABELLED_FOLDER, SRSegDataset
from srseg.training.loader import BatchesByName, BatchSource, make_loader
from srseg.training.method import Method
from srseg.training.profile import Profile

_NO_END = 2**40  # a time budget has no last batch


def unlabelled_dataset(folder: str | Path, method: Method) -> SRSegDataset | None:
    """Return the cases without labels, None where the method does not ask for any.

    Args:
        folder: the preprocessed configuration's.
        method: with `unlabelled`, or without.

    Raises:
        ValueError: if it asks for them and there are none, or a case has labels as well.
    """
    if method.unlabelled and dist.is_initialized() and dist.get_world_size() > 1:
        # a process whose samples have no labels would halve the others' segmentation loss
        raise ValueError("images without labels are for one GPU; leave out -num_gpus.")
    if not method.unlabelled:
        return None
    folder = Path(folder)
    cases = SRSegDataset.get_identifiers(folder / UNLABELLED_FOLDER)
    if not cases:
        raise ValueError(
            f"method '{method.name}' asks for cases without labels and {folder / UNLABELLED_FOLDER}"
            f" holds none; put images into {UNLABELLED_IMAGES} of the raw dataset and run "
            "srseg_preprocess."
        )
    both = sorted(set(cases) & set(SRSegDataset.get_identifiers(folder)))
    if both:
        raise ValueError(
            f"case {both[0]} is in {folder} with labels and without; run srseg_preprocess."
        )
    return SRSegDataset(str(folder / UNLABELLED_FOLDER), cases)


def training_batches(
    dataset: SRSegDataset,
    configuration_manager: SRSegConfigurationManager,
    method: Method,
    *,
    modality: str,
    label_manager: LabelManager,
    unlabelled: SRSegDataset | None = None,
    **options: Any,
) -> BatchSource:
    """Return the source of augmented batches.

    LR is degraded from the augmented HR image where the plans simulate it. Real LR/HR pairs keep
    their own LR image and get matched transforms only.

    Args:
        dataset: the fold's training cases.
        configuration_manager: for patch, scale and degradation.
        method: for the augmentation and the share of unlabelled cases.
        modality: of the plans; only MR has a bias field, so elsewhere it is off by default.
        label_manager: nnU-Net's.
        unlabelled: the cases without labels, from `unlabelled_dataset`.
        **options: further arguments of `BatchSource`.
    """
    augmentation = dict(method.augmentation)
    if modality != "MR":
        augmentation.setdefault("bias_field_probability", 0.0)
    paired = DegradationSpec.from_json(configuration_manager.degradation).paired
    return BatchSource(
        dataset=dataset,
        lr_patch_size=configuration_manager.patch_size,
        scale_3d=configuration_manager.scale_3d,
        label_manager=label_manager,
        degradation=degradation_from_plans(configuration_manager),
        mode="matched" if paired else "augment",
        augmentation=augmentation,
        unlabelled=unlabelled,
        unlabelled_fraction=method.unlabelled.get("fraction", 0.0),
        **options,
    )


def validation_batches(
    dataset: SRSegDataset,
    configuration_manager: SRSegConfigurationManager,
    *,
    label_manager: LabelManager,
    **options: Any,
) -> BatchSource:
    """Return the source of validation batches: stored triplets, the same ones in every epoch."""
    return BatchSource(
        dataset=dataset,
        lr_patch_size=configuration_manager.patch_size,
        scale_3d=configuration_manager.scale_3d,
        label_manager=label_manager,
        mode="matched",
        augmentation=None,
        stream="validation",
        same_every_epoch=True,
        **options,
    )


def samples_of_rank(batch_size: int, rank: int, world_size: int) -> Sequence[int]:
    """Return the positions of a batch that one process of a DDP training makes.

    Positions are dealt in turn, so that the foreground samples at the end are shared out.

    Raises:
        ValueError: if there are more processes than samples.
    """
    if world_size > batch_size:
        raise ValueError(
            f"a batch of {batch_size} cannot be split over {world_size} GPUs; use fewer GPUs or a "
            "larger -batch_size."
        )
    return range(rank, batch_size, world_size)


def fold_batches(
    datasets: tuple[SRSegDataset, SRSegDataset],
    configuration_manager: SRSegConfigurationManager,
    method: Method,
    *,
    profile: Profile,
    position: tuple[int, int],
    modality: str,
    pin_memory: bool,
    unlabelled: SRSegDataset | None = None,
    parts: Mapping[str, SRSegDataset] | None = None,
    **common: Any,
) -> tuple[Iterator[dict[str, Any]], Iterator[dict[str, Any]]]:
    """Return the batches of training and of validation, each without end.

    Args:
        datasets: training and validation cases of the fold.
        configuration_manager: of the merged plans.
        method: for the augmentation and the share of unlabelled cases.
        profile: of the machine.
        position: epoch and iteration at which training stands.
        modality: of the plans.
        pin_memory: for transfers to a CUDA device.
        unlabelled: the cases without labels; only training sees them.
        parts: of the training cases, by the name of a stream of draws: a step gets one batch of
            each under that name. None for one batch of all cases, as it is.
        **common: arguments of `BatchSource` that both share.
    """
    epoch, iteration = position
    steps, val_steps = profile.iterations_per_epoch, profile.val_iterations_per_epoch

    def training(dataset: SRSegDataset, stream: str) -> BatchSource:
        return training_batches(
            dataset,
            configuration_manager,
            method,
            modality=modality,
            mirror_axes=tuple(range(len(configuration_manager.patch_size))),
            iterations_per_epoch=steps,
            unlabelled=unlabelled,
            stream=stream,
            **common,
        )

    if parts is None:
        train = training(datasets[0], "training")
    else:
        train = BatchesByName({name: training(part, name) for name, part in parts.items()})
    val = validation_batches(
        datasets[1], configuration_manager, iterations_per_epoch=val_steps, **common
    )

    def endless(source: Dataset, start: int, num_workers: int) -> Iterator[dict[str, Any]]:
        return make_loader(
            source, start=start, stop=_NO_END, num_workers=num_workers, pin_memory=pin_memory
        )

    workers = profile.num_workers
    return (
        endless(train, epoch * steps + iteration, workers),
        endless(val, epoch * val_steps, workers // 2),
    )
