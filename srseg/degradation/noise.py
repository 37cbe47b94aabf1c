"""Noise of the coarser acquisition, on LR images."""

from __future__ import annotations

import torch


def add_noise(
    lr_image: torch.Tensor,
    *,
    kind: str,
    std: float,
    generator: torch.Generator,
    background: torch.Tensor | None = None,
    zero_signal: float | torch.Tensor | None = None,
) -> torch.Tensor:
    """Return `lr_image` with noise; background voxels keep their value.

    The standard deviation is `std` times the mean signal, which is the mean of
    |lr_image - zero_signal| over the voxels that are not background, for each volume of the
    leading axes (channels, batch) on its own.

    Args:
        lr_image: (..., z, y, x).
        kind: "gaussian", or "rician": the magnitude of the signal with complex Gaussian noise
            (Gudbjartsson and Patz, MRM 1995).
        std: fraction of the mean signal.
        generator: the only source of randomness; numbers are drawn on its own device.
        background: bool, like `lr_image`; None where every voxel counts.
        zero_signal: the value that stands for no signal, a number or a tensor that broadcasts
            (0 for raw images; the normalised value of 0 for normalised ones). None means 0 for
            Gaussian noise.

    Raises:
        ValueError: for Rician noise without `zero_signal`.
    """
    if kind == "rician" and zero_signal is None:
        raise ValueError(
            "rician noise acts on magnitudes: pass zero_signal, the image value that stands for "
            "no signal (0 for raw images)."
        )
    signal = lr_image - (0.0 if zero_signal is None else zero_signal)
    counted = torch.ones_like(lr_image) if background is None else (~background).to(lr_image.dtype)
    volume = (-3, -2, -1)
    mean = (signal.abs() * counted).sum(volume, keepdim=True)
    mean = mean / counted.sum(volume, keepdim=True).clamp(min=1)
    real = std * mean * _normal(lr_image, generator)
    if kind == "gaussian":
        noisy = lr_image + real
    else:
        imaginary = std * mean * _normal(lr_image, generator)
        noisy = lr_image - signal + torch.hypot(signal + real, imaginary)
    return noisy if background is None else torch.where(background, lr_image, noisy)


def _normal(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    drawn = torch.randn(like.shape, generator=generator, device=generator.device)
    return drawn.to(device=like.device, dtype=like.dtype)
