"""Fakes of earlier steps, so that a discriminator does not only know the latest generator.

Shrivastava et al. (CVPR 2017), with CycleGAN's 50 images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

_SIZE = 50


class ReplayBuffer:
    """Holds up to `size` images, on the CPU."""

    def __init__(self, size: int = _SIZE) -> None:
        self._size = size
        self._images: list[torch.Tensor] = []

    def exchanged(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return as many images (B, ...), half of them older ones, whose places they take.

        While the buffer is not full, images come back as they are and are kept.
        """
        chosen = []
        for image in images:
            if len(self._images) < self._size:
                self._images.append(image.cpu().clone())
                chosen.append(image)
                continue
            draw = torch.rand(2, generator=generator).tolist()
            if draw[0] < 0.5:
                chosen.append(image)
                continue
            place = min(int(draw[1] * self._size), self._size - 1)
            chosen.append(self._images[place].to(image.device))
            self._images[place] = image.cpu().clone()
        return torch.stack(chosen)

    def state(self) -> dict[str, Any]:
        """Return the images held."""
        return {"images": torch.stack(self._images) if self._images else None}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Hold the images of `state`."""
        images = state["images"]
        self._images = [] if images is None else [image.clone() for image in images]
