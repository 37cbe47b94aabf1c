"""A discriminator of patches: for each place, how real an image or a pair of images looks there.

After Isola et al., "Image-to-image translation with conditional adversarial networks" (CVPR 2017,
section 3.2.2), with spectral normalisation (Miyato et al., ICLR 2018). No batch normalisation, so a
batch may be one sample. Serves training only; no prediction needs it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from srseg.networks.shallow_convolutions import make_shallow_safe

NORMALISATIONS = ("spectral", "instance")
_CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
_INSTANCE_NORMS = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_SLOPE = 0.2


class Discriminator(nn.Module):
    """Maps (B, C, Z, Y, X) to one score per place, (B, 1, ...), without a sigmoid.

    One convolution with kernel 3 per width; all but the first and the last one halve the axes that
    `halved` names, while they have more than one voxel.

    Args:
        num_channels: of what is judged.
        num_axes: 2 or 3.
        widths: channels after each convolution.
        normalisation: "spectral", or "instance" (not after the first convolution).
        halved: per axis, whether it is halved; None for all.

    Raises:
        ValueError: for another number of axes, an unknown normalisation, or no width.
    """

    def __init__(
        self,
        num_channels: int,
        num_axes: int,
        *,
        widths: Sequence[int] = (16, 32, 64, 64),
        normalisation: str = "spectral",
        halved: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        if num_axes not in _CONVOLUTIONS:
            raise ValueError(f"a discriminator has 2 or 3 axes, got {num_axes}.")
        if normalisation not in NORMALISATIONS:
            raise ValueError(
                f"unknown normalisation '{normalisation}' of a discriminator; "
                f"known: {', '.join(NORMALISATIONS)}."
            )
        if not widths or min(widths) < 1:
            raise ValueError(f"a discriminator needs widths of at least 1, got {list(widths)}.")
        halved = [True] * num_axes if halved is None else list(halved)
        step = tuple(2 if half else 1 for half in halved)
        layers: list[nn.Module] = []
        channels = num_channels
        for index, width in enumerate(widths):
            strides = step if 0 < index < len(widths) - 1 else (1,) * num_axes
            convolution = _CONVOLUTIONS[num_axes](channels, width, 3, strides, padding=1)
            nn.init.kaiming_normal_(convolution.weight, a=_SLOPE)
            nn.init.zeros_(convolution.bias)
            layers.append(convolution)
            if normalisation == "instance" and index > 0:
                layers.append(_INSTANCE_NORMS[num_axes](width, affine=True))
            layers.append(nn.LeakyReLU(_SLOPE))
            channels = width
        last = _CONVOLUTIONS[num_axes](channels, 1, 3, padding=1)
        nn.init.kaiming_normal_(last.weight, a=_SLOPE)
        nn.init.zeros_(last.bias)
        layers.append(last)
        self.layers = nn.Sequential(*layers)
        make_shallow_safe(self)
        if normalisation == "spectral":
            for module in self.modules():
                if isinstance(module, tuple(_CONVOLUTIONS.values())):
                    spectral_norm(module)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return scores (B, 1, ...) of `image` (B, C, Z, Y, X)."""
        return self.layers(image)
