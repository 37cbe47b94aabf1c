"""A trained adapter: target-domain LR images made to look like those of the source domain.

The source domain is the one that the joint network was trained on. An adapter is a folder with
`adapter.json` and, where the method has a network, `checkpoint_final.pth`; it works in front of any
network. Intensities go through three steps: each channel's body to [-1, 1] (`preprocessing/body`),
the translation, and back to raw values by the volume's own map or, with `units` "source", by the
source domain's (its volumes' medians).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask
from torch import nn

from srseg.inference.histogram import match_table
from srseg.inference.model_folder import FINAL_CHECKPOINT, load_checkpoint
from srseg.inference.sliding_window import pad_edges, stitch
from srseg.networks.translation.build import TRANSLATORS, build_translator
from srseg.plans.comparison import as_json
from srseg.preprocessing.body import body_map, body_mask
from srseg.preprocessing.intensity import IntensityMap, apply_maps

logger = logging.getLogger(__name__)

DESCRIPTION = "adapter.json"
METHODS = (*TRANSLATORS, "histogram", "none")
UNITS = ("source", "input")
_TILE_OF_PATCH = (
    3  # a network without normalisation does the same in larger tiles, with less overlap
)
_SLICES_AT_ONCE = 16


@dataclass(frozen=True)
class AdapterDescription:
    """What `adapter.json` says: all but the weights.

    Attributes:
        method: one of `METHODS`.
        num_channels: of the images.
        patch_size: voxels (Z, Y, X) in the reader's order; (Y, X) for a network of slices.
        network: the fields of `Shape`; empty for methods without network.
        source_frame: per channel slope and intercept of the source domain's map.
        units: "source" or "input": whose map leads back to raw values.
        reader: name of nnU-Net's reader that read the training images.
        quantiles: of method "histogram": per channel the table, in the frame of the body.
        training: how it was trained, for people and for `--c`.
    """

    method: str
    num_channels: int
    patch_size: tuple[int, ...]
    network: dict[str, Any]
    source_frame: list[list[float]]
    units: str = "input"
    reader: str = ""
    quantiles: list[list[float]] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(
                f"unknown adaptation method '{self.method}'; known: {', '.join(METHODS)}."
            )
        if self.units not in UNITS:
            raise ValueError(f"unknown units '{self.units}'; known: {', '.join(UNITS)}.")
        object.__setattr__(self, "patch_size", tuple(int(n) for n in self.patch_size))

    @property
    def has_network(self) -> bool:
        """Whether there are weights."""
        return self.method in TRANSLATORS

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return as_json(asdict(self))


def read_description(folder: str | Path) -> AdapterDescription:
    """Return what the `adapter.json` of a model folder says.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or describes nothing known.
    """
    file = Path(folder) / DESCRIPTION
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} has no {DESCRIPTION}, so it is no folder of srseg_adapt train."
        )
    try:
        return AdapterDescription(**load_json(str(file)))
    except (TypeError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{file} does not describe an adapter: {error}") from error


class Adapter:
    """Adapts raw LR images.

    Args:
        description: of the adapter.
        translator: the trained network; None where the method has none.
        device: where it computes.
        folder: where it was read from, for records.
    """

    def __init__(
        self,
        description: AdapterDescription,
        translator: nn.Module | None = None,
        *,
        device: str | torch.device = "cpu",
        folder: str | Path | None = None,
    ) -> None:
        assert (translator is not None) == description.has_network
        self.description = description
        self.folder = folder
        self._device = torch.device(device)
        self._translator = translator.to(self._device).eval() if translator is not None else None

    @classmethod
    def from_folder(cls, folder: str | Path, *, device: str | torch.device = "cpu") -> Adapter:
        """Return the adapter in a folder that `srseg_adapt train` wrote.

        Raises:
            FileNotFoundError: if the folder lacks a file.
            ValueError: if a file is damaged, or the weights do not fit the description.
        """
        description = read_description(folder)
        if not description.has_network:
            return cls(description, device=device, folder=folder)
        file = Path(folder) / FINAL_CHECKPOINT
        if not file.is_file():
            raise FileNotFoundError(
                f"{folder} has no {FINAL_CHECKPOINT}: the adapter's training is not finished; "
                "srseg_adapt train --c goes on."
            )
        checkpoint = load_checkpoint(file)
        translator = build_translator(description.method, description.network)
        load_weights(translator, checkpoint["network_weights"], folder)
        return cls(description, translator, device=device, folder=folder)

    @property
    def is_identity(self) -> bool:
        """Whether images stay as they are."""
        return self.description.method == "none"

    @property
    def num_channels(self) -> int:
        """Of the images it takes."""
        return self.description.num_channels

    def adapt(self, image: np.ndarray) -> np.ndarray:
        """Return a raw image (C, Z, Y, X) in the look of the source domain, float32.

        What lies outside nnU-Net's non-zero mask stays 0.

        Args:
            image: raw, in the reader's axis order, finite.

        Raises:
            ValueError: if it has another number of channels.
            RuntimeError: if the network answers with NaN or infinite values.
        """
        if image.ndim != 4 or len(image) != self.num_channels:
            raise ValueError(
                f"the adapter takes {self.num_channels} channel(s) (C, Z, Y, X), got an image of "
                f"shape {image.shape}."
            )
        image = image.astype(np.float32)
        if self.is_identity:
            return image
        own = [body_map(channel) for channel in image]
        normalised = apply_maps(image, own)
        if self._translator is None:
            adapted = self._matched(image, normalised)
        else:
            adapted = self.translate(normalised)
        if not np.isfinite(adapted).all():
            raise RuntimeError("the adapter answered with NaN or infinite values.")
        frame = self.description.source_frame
        back = own if self.description.units == "input" else [IntensityMap(*m) for m in frame]
        raw = np.stack([m.invert(channel) for m, channel in zip(back, adapted, strict=True)])
        # preprocessing crops to this mask, and may take its statistics from inside it
        raw[:, ~create_nonzero_mask(image)] = 0
        return raw

    def _matched(self, image: np.ndarray, normalised: np.ndarray) -> np.ndarray:
        """Return each channel with the body's histogram of the source domain."""
        return np.stack(
            [
                match_table(values, body_mask(raw), np.asarray(table))
                for raw, values, table in zip(
                    image, normalised, self.description.quantiles, strict=True
                )
            ]
        )

    @torch.inference_mode()
    def translate(self, normalised: np.ndarray) -> np.ndarray:
        """Return the network's translation of an image (C, Z, Y, X), both in the body's frame."""
        assert self._translator is not None
        image = torch.from_numpy(np.ascontiguousarray(normalised, np.float32))
        if len(self.description.patch_size) == 3:
            return self._in_tiles(image[None])[0].numpy()
        slices = image.transpose(0, 1).split(_SLICES_AT_ONCE)
        return torch.cat([self._in_tiles(part) for part in slices]).transpose(0, 1).numpy()

    def _in_tiles(self, image: torch.Tensor) -> torch.Tensor:
        """Return the translation of (B, C, ...): in one pass where a tile holds it."""
        tile, padded = tile_and_padding(image.shape[2:], self.description)
        image, where = pad_edges(image, padded)
        result = stitch(
            lambda part: self._translator(part.to(self._device)),
            image,
            tile_size=tile,
            scale=(1,) * len(tile),
            result_device="cpu",
        )
        return result[(..., *where)].float()


def tile_and_padding(
    shape: tuple[int, ...], description: AdapterDescription
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tile that a volume goes through in, and the shape it is padded to.

    A network without normalisation sees the same in a tile of any size, so tiles are larger than
    the training's patches; instance normalisation depends on the tile, so it gets the patch.

    Args:
        shape: voxels per axis of the network.
        description: of the adapter.
    """
    larger = 1 if description.network.get("norm") == "instance" else _TILE_OF_PATCH
    multiple = np.prod(np.asarray(description.network["strides"]), axis=0)
    tile, padded = [], []
    for n, patch, m in zip(shape, description.patch_size, multiple, strict=True):
        most = patch * larger
        if larger == 1:  # as in training: never less than a patch
            tile.append(most)
            padded.append(max(n, most))
            continue
        whole = -(-n // m) * m
        tile.append(int(min(most, whole)))
        padded.append(int(whole) if whole <= most else n)
    return tuple(tile), tuple(padded)


def load_weights(translator: nn.Module, weights: Mapping[str, Any], folder: str | Path) -> None:
    """Give a translator its weights.

    Raises:
        ValueError: if they do not fit.
    """
    try:
        translator.load_state_dict(weights)
    except (RuntimeError, AttributeError) as error:
        raise ValueError(
            f"the weights in {folder} do not fit the network that its {DESCRIPTION} describes."
        ) from error


def check_fits(adapter: Adapter, num_channels: int, reader: type) -> None:
    """Refuse an adapter that cannot work in front of a model; warn where axes may differ.

    Args:
        adapter: to be used.
        num_channels: of the model's images.
        reader: the model's reader class.

    Raises:
        ValueError: if the adapter takes another number of channels.
    """
    if adapter.num_channels != num_channels:
        raise ValueError(
            f"the adapter takes {adapter.num_channels} channel(s), but the model {num_channels}."
        )
    trained = adapter.description.reader
    if trained and ("Reorient" in trained) != ("Reorient" in reader.__name__):
        logger.warning(
            "the adapter was trained on axes as %s reads them, the model's reader is %s.",
            trained,
            reader.__name__,
        )
