"""What a frozen segmenter makes of the SR image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate

from srseg.networks.freezing import frozen
from srseg.networks.output import JointOutput
from srseg.training.losses.counted import labelled_valid, zero_of
from srseg.training.losses.hard_examples import HARD_EXAMPLE_OPTIONS, ohem_loss
from srseg.training.losses.segmentation import masked_target
from srseg.training.losses.terms import LossContext, Option, is_number

SEMANTIC_OPTIONS = {
    **HARD_EXAMPLE_OPTIONS,
    "aux_weight": Option(0.1, "a number >= 0", lambda value: is_number(value) and value >= 0),
}
_LINEAR = {2: "bilinear", 3: "trilinear"}


class SemanticTerm:
    """The term `semantic`: a frozen segmenter's cross-entropy of hard voxels on the SR image.

    JOANet's: that of its finest output plus `aux_weight` times that of each further one, whose
    logits are interpolated to the HR grid. It runs in fp32.

    Args:
        context: for the labels.
        threshold: see `srseg.training.losses.hard_examples.hard_mean`.
        min_fraction: see there.
        aux_weight: of further outputs.

    Attributes:
        segmenter: from an SR image (B, C, Z, Y, X) to logits (B, K, Z, Y, X), a list of them, or a
            `JointOutput`; None until `JointLoss.set_segmenter`.
    """

    def __init__(
        self, context: LossContext, threshold: float, min_fraction: float, aux_weight: float
    ) -> None:
        self.segmenter: nn.Module | None = None
        self._label_manager = context.label_manager
        self._hard = {"threshold": threshold, "min_fraction": min_fraction}
        self._aux_weight = aux_weight

    def __call__(self, output: JointOutput, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss, a scalar.

        Raises:
            ValueError: if there is no segmenter, or its first logits are not on the HR grid.
        """
        if self.segmenter is None:
            raise ValueError(
                "the loss term 'semantic' has no segmenter: none of srseg's trainers sets one; a "
                "trainer of your own can by JointLoss.set_segmenter. In a training in phases, "
                "give the SR network's phase the term 'ohem_ce' instead."
            )
        target = masked_target(batch["target"][0], labelled_valid(batch), self._label_manager)
        with frozen(self.segmenter):
            logits = _listed(self.segmenter(output.sr.float()))
        shape = target.shape[2:]
        if logits[0].shape[2:] != shape:
            raise ValueError(
                f"the segmenter gives logits of shape {tuple(logits[0].shape[2:])} for an SR image "
                f"of {tuple(output.sr.shape[2:])} and a target of {tuple(shape)}."
            )
        total = zero_of(output.sr)
        for number, out in enumerate(logits):
            weight = self._aux_weight if number else 1.0
            if weight > 0:
                out = out if out.shape[2:] == shape else _enlarged(out, shape)
                total = total + weight * ohem_loss(out, target, self._label_manager, **self._hard)
        return total


def _listed(result: Any) -> list[torch.Tensor]:
    if isinstance(result, JointOutput):
        return list(result.seg)
    return [result] if isinstance(result, torch.Tensor) else list(result)


def _enlarged(logits: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    return interpolate(logits.float(), size=shape, mode=_LINEAR[len(shape)], align_corners=False)
