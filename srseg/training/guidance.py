"""Where training takes its guidance from: a crop of the HR batch itself, after augmentation.

Cut here and not from the stored case, the crop shows the very voxels that the target has.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from srseg.networks.guidance import GUIDANCE_FRACTION, Guidance, crop_size

POLICIES = ("box", "centre", "off", "random", "variance")


class GuidanceCutter:
    """Cuts the guidance of a batch out of its HR images.

    Policies: "centre" takes the middle, "random" any place of each sample, "variance" each
    sample's window with the highest variance (added up over channels, the first where several
    are equal), "box" the given place of each sample, and "off" nothing.

    Args:
        policy: one of `POLICIES`.
        fraction: share of the HR grid that the crop takes along each axis, one number or one per
            axis; "box" does not read it.
        box: for "box", first HR voxel and size per axis.
        drop_probability: how often a batch goes without, so that the network learns to do without
            too.

    Raises:
        ValueError: for an unknown policy (the known ones are listed), or numbers out of range.
    """

    def __init__(
        self,
        policy: str,
        fraction: float | Sequence[float] = GUIDANCE_FRACTION,
        *,
        box: tuple[Sequence[int], Sequence[int]] | None = None,
        drop_probability: float = 0.0,
    ) -> None:
        if policy not in POLICIES:
            raise ValueError(f"unknown guidance policy {policy!r}; known: {', '.join(POLICIES)}.")
        shares = [fraction] if isinstance(fraction, int | float) else list(fraction)
        if not shares or not all(0 < share <= 1 for share in shares):
            raise ValueError(
                f"the fraction of guidance is {fraction}; above 0 and at most 1 is allowed."
            )
        if (policy == "box") != (box is not None):
            raise ValueError(
                f"guidance policy '{policy}' got the box {box}; 'box' needs (start, size) and the "
                "other policies take none."
            )
        if not 0 <= drop_probability <= 1:
            raise ValueError(
                f"the drop probability of guidance is {drop_probability}; from 0 to 1 is allowed."
            )
        self.policy = policy
        self.fraction = fraction
        self.box = box
        self.drop_probability = drop_probability

    def __call__(
        self, hr_image: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[Guidance | None, torch.Tensor]:
        """Return the guidance, None where there is none, and the mask of what it shows.

        Args:
            hr_image: (B, C, Z, Y, X) or (B, C, Y, X), augmented; the crop is a copy.
            generator: the only source of chance; "random" and a drop probability need it.

        Returns:
            The guidance, its `start` on the CPU, and (B, 1, Z, Y, X) bool on the image's device:
            true where an HR voxel is in the crop.

        Raises:
            ValueError: if a generator is needed and missing, or the box does not fit the image.
        """
        mask = torch.zeros_like(hr_image[:, :1], dtype=torch.bool)
        if self.policy == "off" or self._drops(generator):
            return None, mask
        size = self._size(hr_image.shape[2:])
        start = self._start(hr_image, size, generator)
        crops = []
        for image, own_mask, first in zip(hr_image, mask, start.tolist(), strict=True):
            where = (slice(None), *(slice(a, a + n) for a, n in zip(first, size, strict=True)))
            crops.append(image[where])
            own_mask[where] = True
        return Guidance(torch.stack(crops), start), mask

    def _drops(self, generator: torch.Generator | None) -> bool:
        if self.drop_probability == 0:
            return False
        _check_generator(generator, "a drop probability")
        draw = torch.rand((), generator=generator, device=generator.device)
        return bool(draw < self.drop_probability)

    def _size(self, hr_shape: Sequence[int]) -> tuple[int, ...]:
        if self.box is None:
            return crop_size(hr_shape, self.fraction)
        start, size = (tuple(row) for row in self.box)
        fits = len(start) == len(size) == len(hr_shape) and all(
            a >= 0 and n >= 1 and a + n <= m for a, n, m in zip(start, size, hr_shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"the guidance box starts at {start} with the size {size}; it must lie inside the "
                f"{tuple(hr_shape)} HR voxels of the image."
            )
        return size

    def _start(
        self, hr_image: torch.Tensor, size: Sequence[int], generator: torch.Generator | None
    ) -> torch.Tensor:
        """Return the first voxel of each sample's crop, (B, ndim) whole numbers on the CPU."""
        batch = len(hr_image)
        last = [n - m for n, m in zip(hr_image.shape[2:], size, strict=True)]
        if self.policy == "variance":
            return _most_variable(hr_image, size)
        if self.policy == "random":
            _check_generator(generator, "guidance policy 'random'")
            draws = [
                torch.randint(most + 1, (batch,), generator=generator, device=generator.device)
                for most in last
            ]
            return torch.stack(draws, dim=1).cpu()
        first = self.box[0] if self.box is not None else [most // 2 for most in last]
        return torch.tensor([list(first)] * batch)


def _check_generator(generator: torch.Generator | None, what: str) -> None:
    if generator is None:
        raise ValueError(f"{what} needs a torch.Generator, or batches would not be reproducible.")


def _most_variable(hr_image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return the first voxel of the window of `size` with the highest variance, (B, ndim).

    All windows are looked at: two box filters give every window's variance.
    """
    dtype = torch.float32 if hr_image.device.type == "mps" else torch.float64
    axes = tuple(range(2, hr_image.ndim))
    image = hr_image.to(dtype)
    image = image - image.mean(axes, keepdim=True)  # squares of a large mean would drown the rest
    mean, mean_square = (_window_sums(x, size) / prod(size) for x in (image, image.square()))
    variance = (mean_square - mean.square()).sum(1)
    flat = variance.flatten(1).argmax(1).cpu()
    return torch.stack(torch.unravel_index(flat, variance.shape[1:]), dim=1)


def _window_sums(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return the sum over each window of `size` that lies inside, by its first voxel."""
    for i, n in enumerate(size):
        axis = 2 + i
        total = image.cumsum(axis)
        left = total.shape[axis] - n
        above = total.narrow(axis, n - 1, left + 1)
        below = torch.cat(
            (torch.zeros_like(total.narrow(axis, 0, 1)), total.narrow(axis, 0, left)), axis
        )
        image = above - below
    return image
