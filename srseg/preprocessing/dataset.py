"""LR/HR/mask triplets on disk: a stock nnU-Net dataset of HR images with the LR images in `lr/`.

    <folder>/<case>.b2nd      HR image   (C, Z, Y, X) float32
    <folder>/<case>_seg.b2nd  labels     (1, Z, Y, X) int16
    <folder>/<case>.pkl       properties; written last, so it means "complete"
    <folder>/lr/<case>.b2nd   LR image   (C, z, y, x) float32
    <folder>/valid/<case>.b2nd  (1, Z, Y, X) bool; only of real pairs whose HR image ends inside
    <folder>/unlabelled/      the same once more, of cases without labels; stock nnU-Net, which
                              would train them as background, looks into no subfolder

What is not finished lies in `<folder>/.tmp`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import blosc2
import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

from srseg.preprocessing.training_case import TrainingCase

LR_FOLDER = "lr"
VALID_FOLDER = "valid"
UNLABELLED_FOLDER = "unlabelled"
TEMPORARY_FOLDER = ".tmp"
_ENDING = ".b2nd"


class SRSegDataset(nnUNetDatasetBlosc2):
    """nnU-Net's dataset of the HR grid, whose `load_case` stays as it is, plus `load_lr`.

    Arrays are opened lazily: slicing one reads only the chunks it needs.
    """

    def load_lr(self, identifier: str) -> blosc2.NDArray:
        """Return the (C, z, y, x) LR image of a case."""
        return self._open(LR_FOLDER, identifier)

    def load_valid(self, identifier: str) -> blosc2.NDArray | None:
        """Return the (1, Z, Y, X) bool mask of voxels that count, None where all do."""
        if not _array_file(Path(self.source_folder) / VALID_FOLDER, identifier).is_file():
            return None
        return self._open(VALID_FOLDER, identifier)

    def load_properties(self, identifier: str) -> dict:
        """Return the properties of a case without opening its arrays."""
        return load_pickle(str(Path(self.source_folder) / f"{identifier}.pkl"))

    def _open(self, subfolder: str, identifier: str) -> blosc2.NDArray:
        file = _array_file(Path(self.source_folder) / subfolder, identifier)
        if not file.is_file():
            raise FileNotFoundError(
                f"case {identifier} has no '{file}'; run srseg_preprocess (again)."
            )
        return blosc2.open(urlpath=str(file), mode="r", dparams={"nthreads": 1}, **self.mmap_kwargs)

    @staticmethod
    def save_lr(
        lr_image: np.ndarray, output_filename_truncated: str, patch_size: Sequence[int]
    ) -> None:
        """Write a (C, z, y, x) LR image to `<output_filename_truncated>.b2nd`.

        Args:
            lr_image: as the network reads it.
            output_filename_truncated: path without ending.
            patch_size: of the LR grid; the chunks follow it.
        """
        _save_array(lr_image, f"{output_filename_truncated}{_ENDING}", patch_size)

    @staticmethod
    def get_identifiers(folder: str) -> list[str]:
        """Return the complete cases of a folder, sorted."""
        return sorted(file.stem for file in Path(folder).glob("*.pkl"))


def save_training_case(
    case: TrainingCase,
    folder: Path,
    identifier: str,
    *,
    patch_size: Sequence[int],
    hr_patch_size: Sequence[int],
) -> None:
    """Write a triplet into `folder`: whole files appear there, the properties last.

    Args:
        case: what to write.
        folder: the preprocessed configuration's folder.
        identifier: the case's name.
        patch_size: on the LR grid; the chunks of the LR image follow it.
        hr_patch_size: on the HR grid; the chunks of HR image and labels follow it.
    """
    # a folder per process: a worker that outlives a killed run must not meet the next run's files
    temporary = folder / TEMPORARY_FOLDER / str(os.getpid())
    for part in (temporary, folder / LR_FOLDER):
        part.mkdir(parents=True, exist_ok=True)
    hr_trunc = temporary / identifier
    lr_trunc = temporary / f"{identifier}.{LR_FOLDER}"
    valid_trunc = temporary / f"{identifier}.{VALID_FOLDER}"
    moves = [(lr_trunc, folder / LR_FOLDER / identifier, _ENDING)]

    SRSegDataset.save_lr(case.lr_image, str(lr_trunc), patch_size)
    if case.valid is not None:
        (folder / VALID_FOLDER).mkdir(exist_ok=True)
        _save_array(case.valid, f"{valid_trunc}{_ENDING}", hr_patch_size)
        moves.append((valid_trunc, folder / VALID_FOLDER / identifier, _ENDING))
    block, chunk = comp_blosc2_params(case.hr_image.shape, tuple(hr_patch_size), 4)
    block_seg, chunk_seg = comp_blosc2_params(case.hr_seg.shape, tuple(hr_patch_size), 2)
    SRSegDataset.save_case(
        case.hr_image,
        case.hr_seg,
        case.properties,
        str(hr_trunc),
        chunks=chunk,
        blocks=block,
        chunks_seg=chunk_seg,
        blocks_seg=block_seg,
        # which filter wins is known, so nnU-Net's trial, two thirds of its time, is not needed:
        # shuffling helps interpolated values and harms those with few levels, as a file has
        filters=[blosc2.Filter.SHUFFLE if case.resampled else blosc2.Filter.NOFILTER],
        filters_seg=[blosc2.Filter.NOFILTER],
    )
    for suffix in (f"_seg{_ENDING}", _ENDING, ".pkl"):
        moves.append((hr_trunc, folder / identifier, suffix))
    for source, target, suffix in moves:
        Path(f"{source}{suffix}").replace(f"{target}{suffix}")


def remove_training_case(folder: Path, identifier: str) -> None:
    """Remove a triplet from `folder`, its properties first: without them there is no such case."""
    for suffix in (".pkl", _ENDING, f"_seg{_ENDING}"):
        (folder / f"{identifier}{suffix}").unlink(missing_ok=True)
    for part in (LR_FOLDER, VALID_FOLDER):
        _array_file(folder / part, identifier).unlink(missing_ok=True)


def _array_file(folder: Path, identifier: str) -> Path:
    return folder / f"{identifier}{_ENDING}"


def _save_array(array: np.ndarray, file: str, patch_size: Sequence[int]) -> None:
    """Write one array in the layout of nnU-Net's `save_case`."""
    block, chunk = comp_blosc2_params(array.shape, tuple(patch_size), array.itemsize)
    filters = [blosc2.Filter.NOFILTER if array.dtype == bool else blosc2.Filter.SHUFFLE]
    blosc2.asarray(
        np.ascontiguousarray(array),
        urlpath=file,
        chunks=chunk,
        blocks=block,
        cparams={"codec": blosc2.Codec.LZ4HC, "clevel": 5, "filters": filters, "nthreads": 1},
    )
