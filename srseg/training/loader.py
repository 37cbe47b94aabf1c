"""Batches of LR/HR/mask triplets.

A batch of training, or of validation, is a pure function of (seed, fold, epoch, iteration): which
worker makes it, how many there are and where training was resumed change nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import blosc2
import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from threadpoolctl import threadpool_limits
from torch.utils.data import DataLoader, Dataset

from srseg.degradation.degradation import Degradation
from srseg.geometry.grid import checked_scale
from srseg.training.augmentation import AugmentationOptions
from srseg.training.cases import CaseFolder, OpenCases
from srseg.training.mirroring import alike_planes, flipped_and_turned
from srseg.training.randomness import (
    Draws,
    draws_of,
    fold_number,
    kept_global_state,
    one_thread,
    stream_number,
)
from srseg.training.samples import DegradedSamples, Patch, StoredSamples, Triplet
from srseg.training.sampling import (
    draw_start,
    draw_voxel,
    num_unlabelled,
    single_sample_share,
    wants_foreground,
)
from srseg.training.spatial import rotation_rule
from srseg.training.targets import Targets

MODES = ("augment", "matched")
_BATCHES_AHEAD = 3  # per worker


class BatchSource(Dataset):
    """The batches of a training or a validation, by their number.

    Args:
        dataset: `SRSegDataset`, or anything with `identifiers`, `load_case`, `load_lr` and
            `load_valid`.
        lr_patch_size: LR voxels, 3 entries, or 2 for slices of a 2d configuration.
        scale_3d: HR voxels per LR voxel, 3 entries; the first is 1 for a 2d configuration.
        batch_size: samples of the whole batch.
        label_manager: nnU-Net's.
        degradation: the planned one; needed by the mode "augment" and by quarter turns.
        deep_supervision_scales: target sizes relative to the HR grid; None for one target.
        oversample_foreground_percent: share (0 to 1) of the batch that must show foreground.
        mode: "augment" degrades the augmented HR image, "matched" takes the stored LR image.
        augmentation: options (`AugmentationOptions`), {} for the defaults, None for none at all.
            In the mode "matched" flips, quarter turns, and noise and blur on LR remain.
        seed: of everything.
        fold: a number or "all".
        stream: "training" or "validation"; the two share no random draw.
        iterations_per_epoch: how batch numbers turn into (epoch, iteration).
        mirror_axes: axes that may be flipped, counted as in `lr_patch_size`.
        same_every_epoch: repeat the first epoch's batches, for curves that can be compared.
        samples: which samples of the batch this process makes (several GPUs), None for all.
        unlabelled: cases without labels, in the form of `dataset`; None for labelled ones only.
        unlabelled_fraction: share (0 to 1) of the samples that show them, over many batches. They
            are the last of a batch, and no foreground is asked of them; a labelled sample must
            show it with the probability `oversample_foreground_percent`, for a batch may have but
            one.

    Raises:
        ValueError: if arguments do not fit each other, or the dataset is empty.
    """

    def __init__(
        self,
        *,
        dataset: CaseFolder,
        lr_patch_size: Sequence[int],
        scale_3d: Sequence[int],
        batch_size: int,
        label_manager: LabelManager,
        degradation: Degradation | None = None,
        deep_supervision_scales: Sequence[Sequence[float]] | None = None,
        oversample_foreground_percent: float = 0.33,
        mode: str = "augment",
        augmentation: Mapping[str, Any] | None = None,
        seed: int = 0,
        fold: int | str = 0,
        stream: str = "training",
        iterations_per_epoch: int = 250,
        mirror_axes: Sequence[int] = (),
        same_every_epoch: bool = False,
        samples: Sequence[int] | None = None,
        unlabelled: CaseFolder | None = None,
        unlabelled_fraction: float = 0.0,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"unknown loader mode '{mode}'; known: {', '.join(MODES)}.")
        if mode == "augment" and degradation is None:
            raise ValueError("the loader mode 'augment' needs a degradation, got none.")
        if not dataset.identifiers:
            raise ValueError("there is no case to load: the split has none on this side.")
        if not (unlabelled_fraction == 0 if unlabelled is None else 0 < unlabelled_fraction < 1):
            raise ValueError(
                "the unlabelled fraction is between 0 and 1 with unlabelled cases and 0 without, "
                f"got {unlabelled_fraction}."
            )
        self._two_dimensional = len(lr_patch_size) == 2
        scale = checked_scale(scale_3d)
        patch = _patch(lr_patch_size, scale, degradation)
        self._patch = patch
        self._labelled = OpenCases(dataset, scale)
        self._unlabelled = None if unlabelled is None else OpenCases(unlabelled, scale)
        self._unlabelled_fraction = unlabelled_fraction
        self._batch_size = batch_size
        self._samples = list(range(batch_size) if samples is None else samples)
        self._foreground_percent = oversample_foreground_percent
        self._annotated = (-1, *(int(label) for label in label_manager.all_labels))
        self._has_ignore = label_manager.has_ignore_label
        self._targets = Targets(label_manager, deep_supervision_scales)
        if augmentation is None:
            self._options = AugmentationOptions.none()
        else:
            self._options = AugmentationOptions.from_json(augmentation)
        first_axis = 1 if self._two_dimensional else 0
        self._mirror_axes = tuple(axis + first_axis for axis in mirror_axes)
        self._alike_planes = alike_planes(patch, degradation)
        if mode == "augment":
            rule = rotation_rule(tuple(patch.hr_size[first_axis:]))
            self._make = DegradedSamples(patch, self._options, rule, degradation)
        else:
            self._make = StoredSamples(patch, self._options)
        self._seed, self._fold, self._stream = int(seed), fold_number(fold), stream_number(stream)
        self._iterations_per_epoch = iterations_per_epoch
        self._same_every_epoch = same_every_epoch

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Return batch `number`, counted over all epochs.

        Returns:
            data (B, C, z, y, x) float32, hr (B, C, Z, Y, X) float32, target: list of
            (B, 1, Z, Y, X) int16 labels or (B, R, Z, Y, X) bool regions, one per scale,
            valid (B, 1, Z, Y, X) bool, keys: list of cases. Without the first spatial axis for a
            2d configuration. With unlabelled cases also labelled (B,) bool: where it is False the
            targets are background and mean nothing.

        Raises:
            RuntimeError: if a case cannot be read; it is named.
        """
        epoch, iteration = divmod(number, self._iterations_per_epoch)
        epoch = 0 if self._same_every_epoch else epoch
        key = (self._seed, self._fold, epoch, iteration, self._stream)
        # not by `number`, which depends on the epochs' length
        num_labelled = self._batch_size - num_unlabelled(
            epoch + iteration, self._batch_size, self._unlabelled_fraction
        )
        with torch.no_grad(), kept_global_state(), one_thread():
            made = [
                self._sample(sample, draws_of(key, sample), labelled=sample < num_labelled)
                for sample in self._samples
            ]
        cases, triplets = zip(*made, strict=True)
        lr_image, hr_image, hr_seg, valid = (
            self._stacked([vars(triplet)[name] for triplet in triplets])
            for name in ("lr_image", "hr_image", "hr_seg", "valid")
        )
        batch = {
            "data": lr_image,
            "hr": hr_image,
            "target": self._targets(hr_seg),
            "valid": valid,
            "keys": list(cases),
        }
        if self._unlabelled is not None:
            batch["labelled"] = torch.tensor([sample < num_labelled for sample in self._samples])
        return batch

    def _sample(self, sample: int, draws: Draws, *, labelled: bool) -> tuple[str, Triplet]:
        """Return the case and the triplet at one position of the batch."""
        pool = self._labelled if labelled else self._unlabelled
        identifier = pool.identifiers[draws.numpy.integers(len(pool.identifiers))]
        try:
            case = pool[identifier]
            foreground = labelled and self._wants_foreground(sample, draws)
            centre = None
            if labelled and (foreground or self._has_ignore):
                centre = draw_voxel(
                    draws.numpy,
                    case.class_locations,
                    annotated=self._annotated,
                    foreground=foreground,
                )
            scale = self._patch.scale
            lr_start = draw_start(
                draws.numpy,
                np.asarray(case.hr_shape) // scale,
                self._patch.lr_size,
                centre=None if centre is None else centre // scale,
            )
            triplet = self._make(case, lr_start, draws)
            if not labelled:
                triplet = replace(triplet, hr_seg=torch.zeros_like(triplet.hr_seg))
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise RuntimeError(f"case {identifier}: cannot be loaded: {error}") from error
        triplet = flipped_and_turned(
            triplet,
            draws.numpy,
            options=self._options,
            mirror_axes=self._mirror_axes,
            alike_planes=self._alike_planes,
        )
        return identifier, triplet

    def _wants_foreground(self, sample: int, draws: Draws) -> bool:
        if self._unlabelled is not None:
            return draws.numpy.random() < self._foreground_percent
        if self._batch_size == 1:
            return draws.numpy.random() < single_sample_share(self._foreground_percent)
        return wants_foreground(sample, self._batch_size, self._foreground_percent)

    def _stacked(self, arrays: list[torch.Tensor]) -> torch.Tensor:
        stacked = torch.stack(arrays)
        return stacked.squeeze(2) if self._two_dimensional else stacked


def _patch(
    lr_patch_size: Sequence[int], scale: tuple[int, ...], degradation: Degradation | None
) -> Patch:
    size = [int(n) for n in lr_patch_size]
    if len(size) == 2:
        size = [1, *size]
    if len(size) != 3 or len(scale) != 3 or min(size) < 1:
        raise ValueError(
            f"a patch has 2 or 3 sizes >= 1 and the scale 3, got patch {tuple(lr_patch_size)} and "
            f"scale {scale}."
        )
    if len(lr_patch_size) == 2 and scale[0] != 1:
        raise ValueError(f"a 2d configuration refines no slices, got scale {scale}.")
    if degradation is not None and tuple(degradation.scale) != scale:
        raise ValueError(
            f"the degradation has scale {tuple(degradation.scale)}, the configuration {scale}."
        )
    spacing = (1.0, 1.0, 1.0) if degradation is None else tuple(degradation.hr_spacing)
    return Patch(np.array(size), np.array(scale), spacing)


class BatchesByName(Dataset):
    """Several batches a step, each of a source of its own.

    Args:
        sources: by the name under which a step finds the batch.
    """

    def __init__(self, sources: Mapping[str, BatchSource]) -> None:
        self.sources = dict(sources)

    def __getitem__(self, number: int) -> dict[str, dict[str, Any]]:
        """Return batch `number` of every source, by name; see `BatchSource`."""
        return {name: source[number] for name, source in self.sources.items()}


def make_loader(
    source: BatchSource | BatchesByName,
    *,
    start: int,
    stop: int,
    num_workers: int,
    pin_memory: bool = False,
    multiprocessing_context: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Return the batches `start` to `stop` - 1 in order, made `num_workers` processes ahead.

    Workers live as long as the iterator. With 0 workers a batch is made when it is asked for.

    Args:
        source: of the batches.
        start: first batch number, counted over all epochs.
        stop: one after the last.
        num_workers: processes, each with one thread.
        pin_memory: for transfers to a CUDA device.
        multiprocessing_context: "fork", "spawn", ...; None for the system's own.
    """
    workers = {}
    if num_workers > 0:
        workers = {
            "prefetch_factor": _BATCHES_AHEAD,
            "worker_init_fn": _set_up_worker,
            "multiprocessing_context": multiprocessing_context,
            "persistent_workers": True,
        }
    loader = DataLoader(
        source,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # otherwise it draws from the global state
        **workers,
    )
    return iter(loader)


def _set_up_worker(_: int) -> None:
    """Leave the other cores to the training step, and Ctrl-C to the trainer.

    An interrupted trainer finishes its step and may still be waiting for a batch.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    blosc2.set_nthreads(1)
    threadpool_limits(limits=1)
