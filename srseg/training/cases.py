"""Preprocessed cases, opened once per process and kept while memory allows.

Opening a case unpickles its properties every time, which costs more than reading a patch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from srseg.training.sampling import LabelKey

_MAX_BYTES = 64 * 2**20
_MAX_CASES = 1024


class CaseFolder(Protocol):
    """What a dataset must offer: `SRSegDataset`, or a stand-in."""

    identifiers: list[str]

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict]:
        """Return HR image, labels, nothing of use, and properties."""

    def load_lr(self, identifier: str) -> Any:
        """Return the LR image."""

    def load_valid(self, identifier: str) -> Any:
        """Return the HR mask of voxels that count, None where all do."""


@dataclass(frozen=True)
class Case:
    """One case: arrays that read only what is sliced, and what sampling must know.

    Attributes:
        identifier: its name.
        hr_image: (C, Z, Y, X).
        hr_seg: (1, Z, Y, X).
        lr_image: (C, z, y, x).
        valid: (1, Z, Y, X) bool, or None where every voxel counts.
        class_locations: (n, 3) HR voxels per label or region.
        background: (C, 1, 1, 1), the normalised value of raw 0.
        cut: (3, 2) bool, per axis the low and high faces beyond which preprocessing cut off
            voxels that are all raw 0.
    """

    identifier: str
    hr_image: Any
    hr_seg: Any
    lr_image: Any
    valid: Any
    class_locations: Mapping[LabelKey, np.ndarray]
    background: torch.Tensor
    cut: np.ndarray

    @property
    def hr_shape(self) -> tuple[int, ...]:
        """(Z, Y, X) of the HR image."""
        return tuple(self.hr_image.shape[1:])

    @property
    def nbytes(self) -> int:
        """Memory that keeping the case open takes, roughly."""
        return 4096 + sum(voxels.nbytes for voxels in self.class_locations.values())


class OpenCases:
    """The cases of a dataset; the least recently used ones are closed when memory is short.

    Attributes:
        identifiers: their names, sorted: the order is part of the seed.
    """

    def __init__(self, dataset: CaseFolder, scale: tuple[int, int, int]) -> None:
        self.identifiers = sorted(dataset.identifiers)
        self._dataset = dataset
        self._scale = scale
        self._cases: OrderedDict[str, Case] = OrderedDict()
        self._nbytes = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind: another process opens its own."""
        return {**self.__dict__, "_cases": OrderedDict(), "_nbytes": 0}

    def __getitem__(self, identifier: str) -> Case:
        """Return a case.

        Raises:
            ValueError: if its arrays or properties do not fit each other.
        """
        if identifier in self._cases:
            self._cases.move_to_end(identifier)
            return self._cases[identifier]
        case = self._open(identifier)
        self._cases[identifier] = case
        self._nbytes += case.nbytes
        while len(self._cases) > 1 and (self._nbytes > _MAX_BYTES or len(self._cases) > _MAX_CASES):
            self._nbytes -= self._cases.popitem(last=False)[1].nbytes
        return case

    def _open(self, identifier: str) -> Case:
        hr_image, hr_seg, _, properties = self._dataset.load_case(identifier)
        lr_image = self._dataset.load_lr(identifier)
        fine = tuple(n * s for n, s in zip(lr_image.shape[1:], self._scale, strict=True))
        if not fine == tuple(hr_image.shape[1:]) == tuple(hr_seg.shape[1:]):
            raise ValueError(
                f"case {identifier}: the HR image {tuple(hr_image.shape[1:])} and labels "
                f"{tuple(hr_seg.shape[1:])} must be {self._scale} times the LR image "
                f"{tuple(lr_image.shape[1:])}; run srseg_preprocess again."
            )
        if "srseg" not in properties:
            raise ValueError(
                f"case {identifier}: its properties carry no 'srseg' block; run srseg_preprocess."
            )
        ours = properties["srseg"]
        return Case(
            identifier=identifier,
            hr_image=hr_image,
            hr_seg=hr_seg,
            lr_image=lr_image,
            valid=self._dataset.load_valid(identifier),
            class_locations={
                key: _voxels(rows) for key, rows in properties["class_locations"].items()
            },
            background=torch.tensor(ours["background"], dtype=torch.float32).view(-1, 1, 1, 1),
            cut=_cut_faces(properties),
        )


def _cut_faces(properties: Mapping[str, Any]) -> np.ndarray:
    """Return (3, 2) bool from the box that was kept; it may reach beyond a padded image."""
    box = np.asarray(properties["bbox_used_for_cropping"])
    shape = np.asarray(properties["shape_before_cropping"])
    return np.stack([box[:, 0] > 0, box[:, 1] < shape], axis=1)


def _voxels(rows: Any) -> np.ndarray:
    """Return (n, 3) voxels of nnU-Net's (n, 4) rows, whose first entry is the channel."""
    voxels = np.asarray(rows).reshape(-1, 4)[:, 1:]
    # a view would keep the whole rows alive; 16 bits hold any axis of a scan but the rarest
    small = voxels.size == 0 or voxels.max() <= np.iinfo(np.int16).max
    return np.ascontiguousarray(voxels, dtype=np.int16 if small else np.int32)
