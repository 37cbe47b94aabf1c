"""A case through the network and to its native grid, without all logits at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.inference.features import FeatureSource
from srseg.inference.forward import Forward
from srseg.inference.native_grid import (
    Prediction,
    Properties,
    boxes_of,
    stream_to_native_grid,
)
from srseg.inference.source import Source, Stack, WholeStack, check_finite, split_stack
from srseg.inference.tile_window import TileWindow
from srseg.plans.managers import SRSegPlansManager

Weights = Mapping[str, torch.Tensor] | None
Result = TypeVar("Result")


def stream_case(
    forward: Forward,
    lr_image: torch.Tensor,
    weights: Sequence[Weights],
    hr_properties: Properties,
    plans_manager: SRSegPlansManager,
    label_manager: LabelManager,
) -> Prediction:
    """Return the prediction of a preprocessed image on the native HR grid.

    Args:
        forward: of the network.
        lr_image: (C, z, y, x), normalised, in plan order.
        weights: a state dict a fold, averaged; None takes the network as it is.
        hr_properties: of the case, in HR geometry.
        plans_manager: for the axis order.
        label_manager: turns logits into labels.

    Raises:
        RuntimeError: if the network answers with NaN or infinite values.
    """

    def stream(source: Source, _: torch.device) -> Prediction:
        return stream_to_native_grid(source, hr_properties, plans_manager, label_manager)

    return with_source(forward, lr_image, weights, label_manager.num_segmentation_heads, stream)


def with_source(
    forward: Forward,
    lr_image: torch.Tensor,
    weights: Sequence[Weights],
    num_heads: int,
    use: Callable[[Source, torch.device], Result],
    one_pass: bool | None = None,
) -> Result:
    """Return `use(source, result_device)` of a case, tried more sparingly where memory fails.

    Args:
        forward: of the network.
        lr_image: (C, z, y, x), normalised, in plan order.
        weights: a state dict a fold, averaged; None takes the network as it is.
        num_heads: channels K of the logits.
        use: what is made of the source.
        one_pass: overrides the settings.
    """

    def compute(whole: bool, device: torch.device) -> Result:
        options = {"num_heads": num_heads, "whole": whole, "device": device}
        return use(open_source(forward, lr_image, weights, **options), device)

    return forward.within_memory(compute, one_pass)


def gathered(source: Source, device: torch.device, num_heads: int) -> Stack:
    """Return logits (K, Z, Y, X) and SR image (C, Z, Y, X) of a whole case, box after box.

    Args:
        source: of the case.
        device: where they are kept; what exists already stays where it is.
        num_heads: channels K of the logits.
    """
    if isinstance(source, WholeStack):
        return source.stack
    logits: torch.Tensor | None = None
    sr_image: torch.Tensor | None = None
    for box in boxes_of(source, source.shape, num_heads):
        part = source.box(box)
        if logits is None:
            logits = torch.empty(num_heads, *source.shape, device=device)
            if part.sr_image is not None:
                sr_image = torch.empty(len(part.sr_image), *source.shape, device=device)
        logits[(..., *box)] = part.logits
        if sr_image is not None:
            sr_image[(..., *box)] = part.sr_image
    assert logits is not None  # there is at least one box
    return Stack(logits, sr_image)


def open_source(
    forward: Forward,
    lr_image: torch.Tensor,
    weights: Sequence[Weights],
    *,
    num_heads: int,
    whole: bool,
    device: torch.device,
) -> Source:
    """Return the source of a case, averaged over folds and flips.

    Args:
        forward: of the network.
        lr_image: (C, z, y, x), normalised, in plan order.
        weights: a state dict a fold; None takes the network as it is.
        num_heads: channels K of the logits.
        whole: one pass however large the image, else tiles where it is larger than the patch.
        device: where features, or results of tiles, are kept.

    Raises:
        RuntimeError: here or when boxes are asked for, if the network answers with NaN or
            infinite values.
    """
    one_tile = forward.is_one_tile(lr_image.shape[1:], whole)
    local = getattr(forward.network, "hr_halo", None) is not None
    if local and (one_tile or forward.blend_features):
        return FeatureSource(forward, lr_image, weights, whole=whole, device=device)
    if one_tile and not forward.is_planar:
        stacks = (forward.stack(lr_image, state, whole, device) for state in weights)
        return WholeStack(*split_stack(averaged(stacks), num_heads))
    return TileWindow(forward, lr_image, weights, num_heads=num_heads, whole=whole, device=device)


def averaged(stacks: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return the mean of one stack a fold, in the memory of the first.

    Raises:
        RuntimeError: if there are NaN or infinite values.
    """
    total: torch.Tensor | None = None
    count = 0
    for stack in stacks:
        total = stack if total is None else total.add_(stack)
        count += 1
    assert total is not None  # there is at least one fold
    if count > 1:
        total /= count
    check_finite(total)
    return total
