"""The demo's picture: one slice as LR, cubic interpolation, SR and HR, with outlines of the masks.

All panels share one frame in HR voxel faces: HR voxel i covers [i, i + 1], LR voxel j covers
[j * scale, (j + 1) * scale], so that a shift between two grids would be seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

OUTLINE_COLOURS = ("#ff9f1c", "#2ec4ff", "#7ae582", "#ff5d8f", "#c77dff", "#ffe66d")
ZOOM = 0.36  # part of the slice's width and height that the lower row shows


@dataclass(frozen=True)
class Panel:
    """One column: a slice (Y, X), its voxel's (Y, X) size in HR voxels, and HR labels (Y, X)."""

    title: str
    image: np.ndarray
    voxel: tuple[int, int] = (1, 1)
    labels: np.ndarray | None = None


def slice_panels(
    volumes: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    *,
    scale: Sequence[int],
    captions: Mapping[str, str] | None = None,
) -> list[Panel]:
    """Return one panel per volume (Z, Y, X): the HR slice with most of the reference's edges.

    Args:
        volumes: by title; must hold "HR". A volume that is `scale` times coarser than HR (rounded
            up) is shown in its own voxels; all others may reach further than HR by padding only.
        masks: HR label volumes by the same titles; must hold "HR".
        scale: whole numbers (Z, Y, X).
        captions: a second line for a title.
    """
    hr_shape = volumes["HR"].shape
    lr_shape = tuple(-(-n // s) for n, s in zip(hr_shape, scale, strict=True))
    index = busiest_slice(masks["HR"])
    panels = []
    for title, volume in volumes.items():
        is_coarse = volume.shape == lr_shape and volume.shape != hr_shape
        at, voxel = (index // scale[0], tuple(scale[1:])) if is_coarse else (index, (1, 1))
        image = volume[at] if is_coarse else volume[at, : hr_shape[1], : hr_shape[2]]
        labels = masks[title][index, : hr_shape[1], : hr_shape[2]] if title in masks else None
        lines = [title, *([captions[title]] if captions and title in captions else [])]
        panels.append(Panel("\n".join(lines), image, voxel, labels))
    return panels


def busiest_slice(labels: np.ndarray) -> int:
    """Return the index along Z of the slice (Y, X) in which most neighbours differ in label."""
    edges = np.abs(np.diff(labels.astype(np.int16), axis=1)).astype(bool).sum(axis=(1, 2))
    edges += np.abs(np.diff(labels.astype(np.int16), axis=2)).astype(bool).sum(axis=(1, 2))
    return int(np.argmax(edges))


def draw_picture(
    panels: Sequence[Panel], file: Path, *, label_names: Mapping[int, str], heading: str = ""
) -> Path:
    """Return `file` after drawing the panels: whole slices with outlines above, a plain zoom below.

    Grey values share the last panel's window (its percentiles 0.5 to 99.5).
    """
    last = panels[-1].image
    window = tuple(np.percentile(last, (0.5, 99.5)))
    height, width = last.shape
    column = 3.2
    rows = (column * height / width, column * height / width)
    figure = Figure(figsize=(column * len(panels), sum(rows) + 1.1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(panels), squeeze=False)
    corner = _zoom_corner(panels[-1], (height, width))
    for above, below, panel in zip(axes[0], axes[1], panels, strict=True):
        _show(above, panel, window)
        _show(below, panel, window)
        above.set_title(panel.title, fontsize=10)
        above.set_xlim(0, width)  # an LR slice may reach further: padding to whole voxels
        above.set_ylim(0, height)
        if panel.labels is not None:
            _outline(above, panel.labels, label_names)
        below.set_xlim(corner[1], corner[1] + ZOOM * width)
        below.set_ylim(corner[0], corner[0] + ZOOM * height)
    _frame(axes[0, -1], corner, (ZOOM * height, ZOOM * width))
    handles = [
        Line2D([], [], color=_colour(label), label=name.replace("_", " "))
        for label, name in label_names.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    if heading:
        figure.suptitle(heading, fontsize=11)
    figure.savefig(file, dpi=150)
    return file


def _show(axes: Axes, panel: Panel, window: tuple[float, float]) -> None:
    height, width = (n * v for n, v in zip(panel.image.shape, panel.voxel, strict=True))
    axes.imshow(
        panel.image,
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        origin="lower",
        interpolation="nearest",
        extent=(0, width, 0, height),
    )
    axes.set_xticks([])
    axes.set_yticks([])


def _outline(axes: Axes, labels: np.ndarray, label_names: Mapping[int, str]) -> None:
    centres = [np.arange(n) + 0.5 for n in labels.shape]
    for label in label_names:
        mask = labels == label
        if mask.any() and not mask.all():
            axes.contour(
                centres[1], centres[0], mask, levels=[0.5], colors=[_colour(label)], linewidths=0.9
            )


def _zoom_corner(panel: Panel, shape: tuple[int, int]) -> tuple[float, float]:
    """Return the (Y, X) corner of the zoom: around the middle of the label edges' right half."""
    height, width = shape
    centre = np.array([0.5 * height, 0.7 * width])
    if panel.labels is not None:
        edges = np.argwhere(np.diff(panel.labels.astype(np.int16), axis=1) != 0)
        right = edges[edges[:, 1] > width / 2]
        centre = right.mean(axis=0) if len(right) else centre
    size = ZOOM * np.array(shape)
    return tuple(np.clip(centre - size / 2, 0, np.array(shape) - size))


def _frame(axes: Axes, corner: tuple[float, float], size: tuple[float, float]) -> None:
    y, x = corner
    axes.plot(
        [x, x + size[1], x + size[1], x, x],
        [y, y, y + size[0], y + size[0], y],
        color="white",
        linewidth=0.8,
        linestyle=":",
    )


def _colour(label: int) -> str:
    return OUTLINE_COLOURS[(label - 1) % len(OUTLINE_COLOURS)]
