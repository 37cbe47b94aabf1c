"""Registering scans: files in, the warped image, labels and an ITK transform on the fixed grid out.

The network reads preprocessed LR images, centre on centre. What is written leads from the fixed
scan's voxels to the world points of the moving scan: through the fixed case's crop and resampling
onto the network's grid, by the displacement there, and back through those of the moving case. The
translation between the centres, and any difference of spacing or direction, are part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from srseg import environment
from srseg.geometry.grid import Grid
from srseg.images.checks import read_images, read_segmentation
from srseg.images.properties import grid_of
from srseg.inference.model_folder import FINAL_CHECKPOINT, TrainedModel, open_model, rebuilt_network
from srseg.inference.network_axes import NetworkAxes
from srseg.inference.reading import prepare_case
from srseg.inference.registration_pair import register_pair
from srseg.networks.registration.one_shot import OneShotNet
from srseg.networks.registration.warp import folded_share, jacobian_determinant, sampled

_SAME_WAY = np.cos(np.deg2rad(45))


@dataclass(frozen=True)
class Scan:
    """A scan as it lies on disk and as the network reads it.

    Attributes:
        name: for messages.
        image: (C, Z, Y, X) raw, in the reader's order.
        properties: of the reader and the preprocessor.
        grid: where the voxels lie.
        lr_image: (C, z, y, x) preprocessed, in plan order.
    """

    name: str
    image: np.ndarray
    properties: dict[str, Any]
    grid: Grid
    lr_image: np.ndarray


class Registration(NamedTuple):
    """A moving scan registered to a fixed one; everything is on the fixed scan's own grid.

    Attributes:
        displacement_xyz: (Z, Y, X, 3) float64, mm in ITK's world (LPS): from each voxel's centre
            to the world point where the moving scan is read.
        determinant: (Z, Y, X) of the transform's Jacobian.
        folded_share: share of voxels in which it is not above 0.
    """

    displacement_xyz: np.ndarray
    determinant: np.ndarray
    folded_share: float


class Registrar:
    """Applies a trained `OneShotNet` to pairs of scans.

    Args:
        model: from `open_model`; several folds' displacements are averaged.
        device: "auto", "cuda", "cpu" or "mps".

    Raises:
        ValueError: if the model does not register, or is 2-D.
    """

    def __init__(self, model: TrainedModel, *, device: str = "auto") -> None:
        network = rebuilt_network(model)
        if not isinstance(network, OneShotNet):
            raise ValueError(
                f"the model {model.folder} has the network {type(network).__name__}, which does "
                "not register; train one with -tr BiJROS."
            )
        if len(network.scale) == 2:
            raise ValueError(f"the model {model.folder} is 2-D; srseg_register takes volumes.")
        self.model = model
        self._network = network.to(environment.resolve_device(device)).eval()
        self.reader_writer = model.plans_manager.image_reader_writer_class()

    @classmethod
    def from_model_folder(
        cls,
        folder: str | Path,
        folds: Sequence[int | str] | None = None,
        *,
        checkpoint_name: str = FINAL_CHECKPOINT,
        device: str = "auto",
        trust: bool = False,
    ) -> Registrar:
        """Return the registrar of a model folder; the arguments are `open_model`'s."""
        model = open_model(folder, folds, checkpoint_name=checkpoint_name, trust=trust)
        return cls(model, device=device)

    def read(self, name: str, files: Sequence[str | Path]) -> Scan:
        """Return a scan from its files, a channel each.

        Raises:
            ValueError: if a file cannot be used, or its format says nothing of the world.
        """
        model = self.model
        managers = (model.plans_manager, model.configuration_manager, model.dataset_json)
        lr_image, properties = prepare_case(files, *managers)
        image, _ = read_images(self.reader_writer, files)
        grid = grid_of(properties, image.shape)
        if grid is None:
            raise ValueError(f"{files[0]} has no place in the world, which registration needs.")
        return Scan(name, image, properties, grid, lr_image)

    def register(self, moving: Scan, fixed: Scan) -> Registration:
        """Return the transform between two scans.

        Raises:
            ValueError: if they do not overlap in the world, or their axes point elsewhere.
            RuntimeError: if the network answers with NaN or infinite displacements.
        """
        check_overlap(moving, fixed)
        plans = self.model.plans_manager
        patch_size = self.model.configuration_manager.patch_size
        points: list[np.ndarray] = []
        for weights in self.model.weights:
            if len(self.model.weights) > 1:
                self._network.load_state_dict(weights)
            images = [torch.from_numpy(scan.lr_image) for scan in (moving, fixed)]
            pair = register_pair(self._network, *images, patch_size=patch_size)
            if not bool(pair.displacement.isfinite().all()):
                raise RuntimeError(
                    f"the network answered with NaN or infinite displacements for moving scan "
                    f"{moving.name} and fixed scan {fixed.name}."
                )
            scale = self._network.scale
            to_fixed = NetworkAxes.of(fixed.properties, plans, pair.fixed_box, scale)
            to_moving = NetworkAxes.of(moving.properties, plans, pair.moving_box, scale)
            positions = to_fixed.network(_indices(fixed.grid.shape))
            field = pair.displacement.cpu().double()
            positions += sampled(field, torch.from_numpy(positions)[None])[0].numpy()
            points.append(_world_xyz(moving.grid, to_moving.native(positions)))
        displacement = np.mean(points, axis=0) - fixed.grid.world_coordinates()
        along_axes = np.tensordot(fixed.grid.rotation_xyz.T, displacement, axes=1)[::-1]
        determinant = jacobian_determinant(
            torch.from_numpy(along_axes.copy())[None], fixed.grid.spacing
        )
        return Registration(
            np.moveaxis(displacement, 0, -1), determinant[0].numpy(), folded_share(determinant)
        )

    def warped_labels(
        self, file: str | Path, registration: Registration, fixed: Scan
    ) -> np.ndarray:
        """Return (Z, Y, X) labels of the moving scan on the fixed grid.

        Args:
            file: on any grid in the moving scan's world, such as its HR grid.
            registration: of the scans.
            fixed: the fixed scan.

        Raises:
            ValueError: if it cannot be used, or none of it would be seen.
        """
        labels, properties = read_segmentation(self.reader_writer, file)
        grid = grid_of(properties, labels.shape)
        if not _indices_in(grid, registration, fixed.grid)[1].any():
            raise ValueError(
                f"the label map {file} does not lie where the moving scan does; give that of the "
                "moving scan."
            )
        return warped_labels(labels[0], grid, registration, fixed.grid)


def warped_image(moving: Scan, registration: Registration, fixed: Grid) -> np.ndarray:
    """Return (C, Z, Y, X) float32: the moving image on the fixed grid, linearly interpolated.

    Outside the moving scan stands each channel's least value.
    """
    index, inside = _indices_in(moving.grid, registration, fixed)
    image = torch.from_numpy(moving.image.astype(np.float64))[None]
    values = sampled(image, index)[0].numpy()
    least = moving.image.min(axis=(1, 2, 3), keepdims=True)
    return np.where(inside, values, least).astype(np.float32)


def warped_labels(
    labels: np.ndarray, grid: Grid, registration: Registration, fixed: Grid
) -> np.ndarray:
    """Return (Z, Y, X) labels on the fixed grid: the largest once each is interpolated linearly.

    Args:
        labels: (Z, Y, X) whole numbers.
        grid: where they lie.
        registration: of the scans.
        fixed: the grid of the fixed scan; outside `labels` it gets 0.
    """
    index, inside = _indices_in(grid, registration, fixed)
    best = np.zeros(fixed.shape)
    result = np.zeros(fixed.shape, labels.dtype)
    for label in np.unique(labels):
        mask = torch.from_numpy((labels == label).astype(np.float64))[None, None]
        share = sampled(mask, index)[0, 0].numpy()
        won = inside & (share > best)
        result[won], best = label, np.maximum(best, share)
    return result


def check_overlap(moving: Scan, fixed: Scan) -> None:
    """Check that two scans show, by their headers, the same part of the world the same way round.

    The network looks at them centre on centre whatever the headers say, so this is the only place
    where scans of different places, or a mirrored one, can be told.

    Raises:
        ValueError: if the boxes around them do not overlap, or an axis of one points more than 45
            degrees away from that of the other.
    """
    boxes = [_world_box(scan.grid) for scan in (moving, fixed)]
    if np.any(np.maximum(*(low for low, _ in boxes)) >= np.minimum(*(high for _, high in boxes))):
        spans = [
            " x ".join(f"{a:.0f}..{b:.0f}" for a, b in zip(*box, strict=True)) for box in boxes
        ]
        raise ValueError(
            f"moving scan {moving.name} ({spans[0]} mm) and fixed scan {fixed.name} ({spans[1]} "
            "mm, x x y x z) do not overlap in the world; align their headers first."
        )
    cosines = np.sum(moving.grid.rotation_xyz * fixed.grid.rotation_xyz, axis=0)
    if cosines.min() < _SAME_WAY:
        raise ValueError(
            f"axis {'xyz'[int(cosines.argmin())]} of moving scan {moving.name} points "
            f"{np.rad2deg(np.arccos(np.clip(cosines.min(), -1, 1))):.0f} degrees away from that of "
            f"fixed scan {fixed.name}, at most 45 are allowed; reorient one of them."
        )


def _indices(shape: Sequence[int]) -> np.ndarray:
    return np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij"))


def _world_xyz(grid: Grid, index: np.ndarray) -> np.ndarray:
    """Return (3, ...) world points of (Z, Y, X) indices (3, ...)."""
    offset_xyz = (index * np.reshape(grid.spacing, (3, 1, 1, 1)))[::-1]
    return np.tensordot(grid.rotation_xyz, offset_xyz, axes=1) + np.reshape(
        grid.origin_xyz, (3, 1, 1, 1)
    )


def _indices_in(
    grid: Grid, registration: Registration, fixed: Grid
) -> tuple[torch.Tensor, np.ndarray]:
    """Return where a grid is read for each fixed voxel (1, 3, Z, Y, X), and where in it."""
    points = fixed.world_coordinates() + np.moveaxis(registration.displacement_xyz, -1, 0)
    relative = points - np.reshape(grid.origin_xyz, (3, 1, 1, 1))
    along_axes = np.tensordot(np.linalg.inv(grid.rotation_xyz), relative, axes=1)[::-1]
    index = along_axes / np.reshape(grid.spacing, (3, 1, 1, 1))
    last = np.reshape(grid.shape, (3, 1, 1, 1)) - 0.5
    inside = np.all((index >= -0.5) & (index < last), axis=0)  # ITK's buffer
    return torch.from_numpy(index.copy())[None], inside


def _world_box(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest world coordinates of a grid's outer voxel faces."""
    corners = [grid.world_xyz(c) for c in product(*((-0.5, n - 0.5) for n in grid.shape))]
    return np.min(corners, axis=0), np.max(corners, axis=0)
