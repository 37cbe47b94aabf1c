"""Preprocessed cases written to disk as `SRSegPreprocessor` lays them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from srseg.degradation.degradation import Degradation
from srseg.preprocessing.dataset import SRSegDataset
from tests.training.synthetic import BACKGROUND, locations

CaseWriter = Callable[..., None]


@pytest.fixture
def write_case(tmp_path: Path) -> CaseWriter:
    """A function that writes one case; its LR image is degraded from HR unless given."""

    def write(
        identifier: str,
        hr_image: np.ndarray,
        hr_seg: np.ndarray,
        *,
        degradation: Degradation,
        lr_image: np.ndarray | None = None,
        valid: np.ndarray | None = None,
        keys: Sequence[int | tuple[int, ...]] = (1, 2),
    ) -> None:
        if lr_image is None:
            hr_double = torch.from_numpy(hr_image).double()
            zero = torch.from_numpy(hr_image == np.float32(BACKGROUND))
            lr_image = degradation(hr_double, zero=zero).float().numpy()
        channels = len(hr_image)
        properties = {
            "class_locations": locations(hr_seg, keys),
            "shape_before_cropping": hr_image.shape[1:],
            "bbox_used_for_cropping": [[0, n] for n in hr_image.shape[1:]],
            "srseg": {"background": [BACKGROUND] * channels},
        }
        chunks = {"chunks": hr_image.shape, "blocks": hr_image.shape}
        for part in ("lr", "valid"):
            (tmp_path / part).mkdir(exist_ok=True)
        SRSegDataset.save_case(
            hr_image,
            hr_seg.astype(np.int16),
            properties,
            str(tmp_path / identifier),
            chunks_seg=hr_seg.shape,
            blocks_seg=hr_seg.shape,
            **chunks,
        )
        SRSegDataset.save_lr(lr_image, str(tmp_path / "lr" / identifier), lr_image.shape[1:])
        if valid is not None:
            save = str(tmp_path / "valid" / identifier)
            SRSegDataset.save_lr(valid, save, valid.shape[1:])

    return write


@pytest.fixture
def open_dataset(tmp_path: Path) -> Callable[[], SRSegDataset]:
    """A function that opens what `write_case` has written."""
    return lambda: SRSegDataset(str(tmp_path))
