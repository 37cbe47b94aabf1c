"""From logits and SR image on the network's grid to the grid `scale` times the input's.

The way back mirrors preprocessing: resample to the native grid, un-crop, un-transpose, and for the
SR image undo the intensity map. Nothing is low-passed on the way: along an axis that shrinks back,
the network's grid was interpolated from the native one and holds nothing finer. All shapes come
from properties in HR geometry: at inference the reader's properties refined by
`upscale_properties`, in training-time validation the stored ones.

It is gone box by box: a box is computed, resampled, turned into labels and forgotten, so memory
does not grow with classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise, product
from math import inf, prod
from typing import Any, NamedTuple

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.geometry.separable import box_read, resample, resample_box
from srseg.inference.source import Source, WholeStack
from srseg.plans.managers import SRSegPlansManager
from srseg.preprocessing.intensity import maps_of
from srseg.preprocessing.lr_case import NATIVE_LR

_BOX_BYTES = 2**27  # that one box may take, with its feature maps; larger ones are no faster

Properties = Mapping[str, Any]
Box = tuple[slice, ...]


class Prediction(NamedTuple):
    """What was predicted for one image, on the grid `scale` times finer than the image's.

    Attributes:
        segmentation: (Z, Y, X) labels.
        sr_image: (C, Z, Y, X) float32 in the input's units, None for a network that only segments.
        spacing: mm (Z, Y, X) of both.
        probabilities: (classes or regions, Z, Y, X) float32 if asked for.
    """

    segmentation: np.ndarray
    sr_image: np.ndarray | None
    spacing: tuple[float, float, float]
    probabilities: np.ndarray | None = None


@torch.inference_mode()
def to_native_grid(
    logits: torch.Tensor,
    sr_image: torch.Tensor | None,
    hr_properties: Properties,
    plans_manager: SRSegPlansManager,
    label_manager: LabelManager,
    *,
    with_probabilities: bool = False,
) -> Prediction:
    """Return the prediction on the native HR grid, in the reader's axis order.

    Args:
        logits: (K, Z, Y, X) on the network's HR grid, plan order.
        sr_image: (C, Z, Y, X) there, in the normalised frame; None without SR head.
        hr_properties: of the preprocessed case, in HR geometry.
        plans_manager: for the axis order.
        label_manager: turns logits into labels (regions are respected).
        with_probabilities: whether to return probabilities too.
    """
    source = WholeStack(logits, sr_image)
    prediction = stream_to_native_grid(source, hr_properties, plans_manager, label_manager)
    if not with_probabilities:
        return prediction
    shape = hr_properties["shape_after_cropping_and_before_resampling"]
    native_logits = resample(logits.float(), shape, kind="linear", antialias=False)
    uncropped = label_manager.revert_cropping_on_probabilities(
        label_manager.apply_inference_nonlin(native_logits).cpu(),
        hr_properties["bbox_used_for_cropping"],
        hr_properties["shape_before_cropping"],
    )
    order = (0, *(1 + axis for axis in plans_manager.transpose_backward))
    probabilities = np.ascontiguousarray(uncropped.numpy().transpose(order))
    return prediction._replace(probabilities=probabilities)


@torch.inference_mode()
def stream_to_native_grid(
    source: Source,
    hr_properties: Properties,
    plans_manager: SRSegPlansManager,
    label_manager: LabelManager,
) -> Prediction:
    """Return the prediction on the native HR grid, without probabilities.

    Args:
        source: of logits and SR image on the network's HR grid, plan order.
        hr_properties: of the preprocessed case, in HR geometry.
        plans_manager: for the axis order.
        label_manager: turns logits into labels (regions are respected).

    Raises:
        RuntimeError: if the network answers with NaN or infinite values.
    """
    shape = tuple(hr_properties["shape_after_cropping_and_before_resampling"])
    sr_image = _SRImage(source.shape, shape, hr_properties, plans_manager)
    many = max(label_manager.all_labels) >= 256
    segmentation = _Canvas((), np.uint16 if many else np.uint8, hr_properties, plans_manager)
    for box in boxes_of(source, shape, label_manager.num_segmentation_heads):
        read = _read(box, source.shape, shape)
        stack = source.box(read)
        logits = stack.logits
        if source.shape != shape:
            logits = resample_box(logits.contiguous(), box, source.shape, shape, at=read, **_LOGITS)
        labels = _labels(logits, label_manager)
        segmentation.put(box, labels.to(torch.int16 if many else torch.uint8).cpu().numpy())
        if stack.sr_image is not None:
            sr_image.add(stack.sr_image, box, read)
    return Prediction(
        segmentation.array,
        sr_image.finished(),
        tuple(float(mm) for mm in hr_properties["spacing"]),
    )


_LOGITS = {"kind": "linear", "antialias": False}
_SR = {"kind": "lanczos", "antialias": False}


def _read(box: Box, old_shape: Sequence[int], new_shape: Sequence[int]) -> Box:
    """Return the part of the network's grid that labels of `box` depend on, or that lies in it."""
    read = []
    needed = box_read(box, old_shape, new_shape, **_LOGITS)
    for axis, more, old, new in zip(box, needed, old_shape, new_shape, strict=True):
        start, stop = axis.start * old // new, -(-axis.stop * old // new)
        read.append(slice(min(start, more.start), max(stop, more.stop)))
    return tuple(read)


def _labels(logits: torch.Tensor, label_manager: LabelManager) -> torch.Tensor:
    if label_manager.has_regions:
        return label_manager.convert_logits_to_segmentation(logits)
    return logits.max(0).indices  # argmax(0) takes ten times as long on a CPU


class _SRImage:
    """Makes the raw SR image on the native grid from its parts on the network's.

    Where preprocessing resampled the input, only what the network added to it is resampled back,
    onto the interpolated input itself: detail of an input finer than planned, and slices of a
    coarser one, would not survive the way to the plan's grid and back. The kernel must pass what
    both grids can hold, or the input's own detail is added twice where it damps (cubic kernels
    cost 0.6 dB on Dataset027); its ringing cancels in the difference.

    Its kernel reaches farther than that of logits, so what has to be resampled is first collected:
    it is no larger than the result, and boxes of logits need not overlap for it.
    """

    def __init__(
        self,
        old_shape: Sequence[int],
        new_shape: Sequence[int],
        hr_properties: Properties,
        plans_manager: SRSegPlansManager,
    ) -> None:
        self._shapes = (tuple(old_shape), tuple(new_shape))
        self._hr_properties, self._plans_manager = hr_properties, plans_manager
        self._maps = maps_of(hr_properties)
        self._canvas: _Canvas | None = None
        self._collected: torch.Tensor | None = None
        frame = hr_properties["srseg"]
        self._native_lr: torch.Tensor | None = None
        if NATIVE_LR in frame:
            self._native_lr = torch.from_numpy(frame[NATIVE_LR])
            self._read_lr = resample(self._native_lr, frame["lr_shape"])

    def add(self, part: torch.Tensor, box: Box, read: Box) -> None:
        """Take the normalised SR voxels (C, *read) of a native box."""
        old_shape, new_shape = self._shapes
        if self._canvas is None:
            options = (self._hr_properties, self._plans_manager)
            self._canvas = _Canvas((len(part),), np.float32, *options)
            if old_shape != new_shape:
                self._collected = torch.zeros(len(part), *old_shape, device=part.device)
        if self._collected is None:
            self._put(part, box)
            return
        if self._native_lr is not None:
            read_lr = self._read_lr.to(part.device)
            part = part - resample_box(read_lr, read, read_lr.shape[1:], old_shape, **_SR)
        self._collected[(..., *read)] = part

    def finished(self) -> np.ndarray | None:
        """Return the image once all parts are there; None if there were none."""
        if self._canvas is None:
            return None
        if self._collected is not None:
            self._resample()
        return self._canvas.array

    def _resample(self) -> None:
        old_shape, new_shape = self._shapes
        row_bytes = 4 * len(self._collected) * prod(new_shape[1:])
        rows = max(1, _BOX_BYTES // row_bytes)
        whole = tuple(slice(0, n) for n in new_shape[1:])
        for start in range(0, new_shape[0], rows):
            box = (slice(start, min(start + rows, new_shape[0])), *whole)
            native = resample_box(self._collected, box, old_shape, new_shape, **_SR)
            if self._native_lr is not None:
                native_lr = self._native_lr.to(native.device)
                native += resample_box(native_lr, box, native_lr.shape[1:], new_shape, **_SR)
            self._put(native, box)

    def _put(self, native: torch.Tensor, box: Box) -> None:
        channels = zip(self._maps, native.cpu().numpy(), strict=True)
        raw = np.stack([intensity.invert(channel) for intensity, channel in channels])
        self._canvas.put(box, raw)


class _Canvas:
    """An array in the reader's axis order that is filled in plan order, zero outside the crop.

    The crop of a training case may reach beyond the image, where its HR image was padded.
    """

    def __init__(
        self,
        leading: tuple[int, ...],
        dtype: type,
        hr_properties: Properties,
        plans_manager: SRSegPlansManager,
    ) -> None:
        self._crop = hr_properties["bbox_used_for_cropping"]
        native = plans_manager.native(hr_properties["shape_before_cropping"])
        self.array = np.zeros((*leading, *(int(n) for n in native)), dtype)
        order = (len(leading) + axis for axis in plans_manager.transpose_forward)
        self._in_plan_order = self.array.transpose(*range(len(leading)), *order)

    def put(self, box: Box, values: np.ndarray) -> None:
        """Set `box` of the crop to `values` (..., *box), as far as it lies in the image."""
        to, part = [], []
        shape = self._in_plan_order.shape[-3:]
        for axis, (first, _), size in zip(box, self._crop, shape, strict=True):
            start, stop = axis.start + int(first), axis.stop + int(first)
            inside = slice(max(start, 0), max(min(stop, size), 0))
            to.append(inside)
            part.append(slice(inside.start - start, max(inside.stop - start, 0)))
        self._in_plan_order[(..., *to)] = values[(..., *part)]


def boxes_of(source: Source, shape: tuple[int, ...], num_heads: int) -> Iterator[Box]:
    """Yield boxes that fill the native grid, the first axis slowest, each within `_BOX_BYTES`."""
    resampled = source.shape != shape
    factors = [old / new for old, new in zip(source.shape, shape, strict=True)]

    def fits(lengths: Sequence[int]) -> bool:
        of_network = [int(np.ceil(n * f)) for n, f in zip(lengths, factors, strict=True)]
        logits = prod(lengths) + (prod(of_network) if resampled else 0)
        return source.num_bytes(of_network) + 4 * num_heads * logits <= _BOX_BYTES

    steps = (1, 1, 1) if resampled else source.scale
    yield from boxes_within(shape, fits, steps=steps, context=source.context)


def boxes_within(
    shape: Sequence[int],
    fits: Callable[[Sequence[int]], bool],
    *,
    steps: Sequence[int],
    context: Sequence[int],
) -> Iterator[Box]:
    """Yield boxes that fill `shape`, the first axis slowest, as few as `fits` allows.

    The axis cut next is the one whose pieces are the longest beside the context that a cut costs.

    Args:
        shape: voxels per axis.
        fits: whether a box of some lengths may be; one of a single step per axis always may.
        steps: cuts lie at multiples of these.
        context: voxels that a piece costs on each side beside its own.
    """
    sizes = [-(-n // step) for n, step in zip(shape, steps, strict=True)]
    counts = [1] * len(sizes)
    while True:
        pieces = [-(-size // count) for size, count in zip(sizes, counts, strict=True)]
        lengths = [min(p * s, n) for p, s, n in zip(pieces, steps, shape, strict=True)]
        if fits(lengths) or max(pieces) == 1:
            break
        costs = zip(lengths, context, pieces, strict=True)
        worth = [0 if piece == 1 else n / c if c else inf for n, c, piece in costs]
        axis = worth.index(max(worth))
        counts[axis] = -(-sizes[axis] // (pieces[axis] - 1))  # the least that shortens a piece
    cuts = [
        [min(size * i // count * step, n) for i in range(count)] + [n]
        for size, count, step, n in zip(sizes, counts, steps, shape, strict=True)
    ]
    yield from product(*([slice(*ends) for ends in pairwise(c)] for c in cuts))
