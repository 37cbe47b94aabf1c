"""What a joint network returns, and the one-tensor view of it that inference works on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn


class JointOutput(NamedTuple):
    """Segmentation logits and super-resolved image of one forward pass.

    Attributes:
        seg: always a list. First the (B, K, Z, Y, X) logits on the HR grid, then, with deep
            supervision only, the coarser logits in the order of `deep_supervision_scales`.
        sr: (B, C, Z, Y, X) image on the HR grid in the normalised frame of the input, or None
            for a network without super-resolution head.
    """

    seg: list[torch.Tensor]
    sr: torch.Tensor | None


class StackOutputs(nn.Module):
    """Inference view of a joint network: one float32 (B, K + C, Z, Y, X) tensor.

    Tiling, flipping and averaging treat logits and image alike, so they work on one tensor: the
    K logits first, the C image channels after them (none without SR head).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, lr_image: torch.Tensor) -> torch.Tensor:
        """Return logits and SR image of `lr_image` (B, C, z, y, x), stacked along the channels."""
        out = self.network(lr_image)
        logits = out.seg[0].float()
        return logits if out.sr is None else torch.cat((logits, out.sr.float()), 1)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load the bare network's weights: checkpoints do not know of this view."""
        return self.network.load_state_dict(state_dict, strict=strict, assign=assign)
