"""Two LR images through a registering network, as wholes: padded alike, centre on centre."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from srseg.inference.sliding_window import pad_edges, padded_shape
from srseg.networks.output import JointOutput
from srseg.networks.registration.one_shot import OneShotNet


class Registered(NamedTuple):
    """A registered pair on the padded HR grid that both share.

    Attributes:
        displacement: (1, D, Z, Y, X) in HR voxels: `warp` of the moving image gives the fixed one.
        moving_box, fixed_box: where the images lie in the padded HR grid.
        output: what the network makes of the fixed image, padded too.
    """

    displacement: torch.Tensor
    moving_box: tuple[slice, ...]
    fixed_box: tuple[slice, ...]
    output: JointOutput


@torch.no_grad()
def register_pair(
    network: OneShotNet,
    moving: torch.Tensor,
    fixed: torch.Tensor,
    *,
    patch_size: Sequence[int],
) -> Registered:
    """Return the registration of two preprocessed LR images; the network is in eval mode.

    Whatever their origins, the network sees them centre on centre, as in training.

    Args:
        network: on the device that is to compute.
        moving: (C, z, y, x); for a 2-D network one slice.
        fixed: the same channels, of any other size.
        patch_size: the planned LR patch, which both are padded to at least.
    """
    device = next(network.parameters()).device
    images = [image[None].float() for image in (moving, fixed)]
    if len(patch_size) == 2:
        images = [image.squeeze(2) for image in images]
    largest = [max(sizes) for sizes in zip(*(image.shape[2:] for image in images), strict=True)]
    shape = padded_shape(largest, patch_size, multiple=network.lr_divisor, one_pass=True)
    padded, boxes = zip(*(pad_edges(image, shape) for image in images), strict=True)
    padded = [image.to(device) for image in padded]
    features = [network.encode(image) for image in padded]
    return Registered(
        network.displacement(*features),
        *(
            tuple(
                slice(axis.start * s, axis.stop * s)
                for axis, s in zip(box, network.scale, strict=True)
            )
            for box in boxes
        ),
        network.decode(features[1], padded[1]),
    )


def padded_like(array: torch.Tensor, box: Sequence[slice], shape: Sequence[int]) -> torch.Tensor:
    """Return (B, C, *axes) in a canvas of `shape` at `box`, its edge repeated around it.

    Args:
        array: as large as the box.
        box: a slice per axis.
        shape: of the canvas.
    """
    padding = [
        n for axis, size in zip(reversed(box), reversed(shape), strict=True)
        for n in (axis.start, size - axis.stop)
    ]  # fmt: skip
    return torch.nn.functional.pad(array, padding, mode="replicate")
