"""The batches a trainer asks for, in terms of plans, method and machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.degradation.degradation import degradation_from_plans
from srseg.degradation.spec import DegradationSpec
from srseg.plans.managers import SRSegConfigurationManager
from srseg.preprocessing.dataset import SRSegDataset
from srseg.training.loader import BatchSource, make_loader
from srseg.training.method import Method

_NO_END = 2**40  # a time budget has no last batch


def training_batches(
    dataset: SRSegDataset,
    configuration_manager: SRSegConfigurationManager,
    method: Method,
    *,
    modality: str,
    label_manager: LabelManager,
    **options: Any,
) -> BatchSource:
    """Return the source of augmented batches.

    LR is degraded from the augmented HR image where the plans simulate it. Real LR/HR pairs keep
    their own LR image and get matched transforms only.

    Args:
        dataset: the fold's training cases.
        configuration_manager: for patch, scale and degradation.
        method: for the augmentation.
        modality: of the plans; only MR has a bias field, so elsewhere it is off by default.
        label_manager: nnU-Net's.
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


def batches(
    source: BatchSource, *, start: int, num_workers: int, pin_memory: bool
) -> Iterator[dict[str, Any]]:
    """Return the batches of `source` from number `start` on, without end."""
    return make_loader(
        source, start=start, stop=_NO_END, num_workers=num_workers, pin_memory=pin_memory
    )
