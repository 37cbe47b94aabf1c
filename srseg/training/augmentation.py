"""What is varied between samples: options, intensities on HR, noise and blur on LR.

Spatial changes and intensities are applied to the HR image, which is then degraded: LR and HR can
not come apart, and the point spread function of the scanner is never turned. Blur and noise come
after the degradation, on LR only, so that the SR image is asked to be free of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from srseg.geometry.separable import apply_separable, interpolation_matrix
from srseg.training.spatial import INTERPOLATION_HALO, RotationRule, affine_matrix

# distance of the bias field's knots: a coil's sensitivity varies over the body, not within organs
_BIAS_KNOT_MM = 50.0


@dataclass(frozen=True)
class AugmentationOptions:
    """Probabilities per sample and ranges drawn from evenly; a method file may set any of them.

    The numbers are nnU-Net's unless said otherwise. nnU-Net's simulated low resolution is left
    out: the degradation takes its place.

    Attributes:
        rotation_probability: turning by up to the rule of `spatial.rotation_rule`.
        rotation_degrees: the largest angle either way instead of the rule's; None for the rule's.
        scaling_probability: zooming, alike on all axes.
        scaling_range: above 1 objects become smaller.
        interpolation: of the HR image when it is turned or zoomed: linear, shifted_linear, cubic.
        flip_probability: per axis that may be mirrored.
        rotate90_probability: quarter turns in planes that are alike in every respect (ours).
        brightness_probability: a factor on the normalised image.
        brightness_range: below and above 1 are equally likely.
        contrast_probability: a factor on the distance from the mean, clipped to the old range.
        contrast_range: as `brightness_range`.
        bias_field_probability: a smooth factor on the raw intensities (ours). Only for MR.
        bias_field_strength: standard deviation of its logarithm at the knots.
        gamma_inverted_probability: a power of the inverted image.
        gamma_probability: a power of the image, mean and deviation kept.
        gamma_range: as `brightness_range`.
        degradation_probability: drawing the degradation around the planned one (ours); what is
            drawn stands in the plans.
        noise_probability: Gaussian noise on LR.
        noise_range: its standard deviation, in units of the normalised image.
        blur_probability: Gaussian blur on LR, less and rarer than nnU-Net's, because the
            degradation varies its own.
        blur_sigma_range: in LR voxels, drawn for each axis.
    """

    rotation_probability: float = 0.2
    rotation_degrees: float | None = None
    scaling_probability: float = 0.2
    scaling_range: tuple[float, float] = (0.7, 1.4)
    interpolation: str = "shifted_linear"
    flip_probability: float = 0.5
    rotate90_probability: float = 0.0
    brightness_probability: float = 0.15
    brightness_range: tuple[float, float] = (0.75, 1.25)
    contrast_probability: float = 0.15
    contrast_range: tuple[float, float] = (0.75, 1.25)
    bias_field_probability: float = 0.15
    bias_field_strength: tuple[float, float] = (0.0, 0.2)
    gamma_inverted_probability: float = 0.1
    gamma_probability: float = 0.3
    gamma_range: tuple[float, float] = (0.7, 1.5)
    degradation_probability: float = 1.0
    noise_probability: float = 0.1
    noise_range: tuple[float, float] = (0.0, 0.1)
    blur_probability: float = 0.1
    blur_sigma_range: tuple[float, float] = (0.3, 0.8)

    @classmethod
    def from_json(cls, options: Mapping[str, Any]) -> AugmentationOptions:
        """Return the defaults with `options` laid over them.

        Raises:
            ValueError: for an unknown key (the known ones are listed) or a value out of range.
        """
        known = [field.name for field in fields(cls)]
        for key, value in options.items():
            if key not in known:
                raise ValueError(f"unknown augmentation option '{key}'; known: {', '.join(known)}.")
            _check_option(key, value)
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})

    @classmethod
    def none(cls) -> AugmentationOptions:
        """Return options under which nothing is ever changed."""
        return cls(**{f.name: 0.0 for f in fields(cls) if f.name.endswith("_probability")})

    def to_json(self) -> dict[str, Any]:
        """Return the options as plain values, the inverse of `from_json`."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def _check_option(key: str, value: Any) -> None:
    if key == "interpolation":
        if value not in INTERPOLATION_HALO:
            raise ValueError(
                f"unknown interpolation {value!r}; known: {', '.join(INTERPOLATION_HALO)}."
            )
    elif key.endswith("_probability"):
        if not _is_number(value) or not 0 <= value <= 1:
            raise ValueError(f"augmentation option '{key}' must be from 0 to 1, got {value!r}.")
    elif key == "rotation_degrees":
        if value is not None and (not _is_number(value) or not 0 <= value <= 180):
            raise ValueError(
                f"augmentation option '{key}' must be null or from 0 to 180, got {value!r}."
            )
    else:
        pair = isinstance(value, (list, tuple)) and len(value) == 2
        if not pair or not all(map(_is_number, value)) or not 0 <= value[0] <= value[1]:
            raise ValueError(
                f"augmentation option '{key}' must be two rising numbers >= 0, got {value!r}."
            )
        if key == "scaling_range" and value[0] == 0:
            raise ValueError(f"augmentation option '{key}' must be above 0, got {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def draw_view_matrix(
    generator: np.random.Generator,
    options: AugmentationOptions,
    rule: RotationRule,
    hr_spacing: Sequence[float],
) -> np.ndarray | None:
    """Return the (3, 3) map of a turned or zoomed patch, None when neither is drawn.

    Args:
        generator: gives the same number of draws in any case.
        options: probabilities and ranges.
        rule: which axes turn and how far.
        hr_spacing: mm per axis of the HR grid.
    """
    turn, zoom, zoom_draw, *angle_draws = generator.random(6)
    if turn >= options.rotation_probability and zoom >= options.scaling_probability:
        return None
    limit = rule.degrees if options.rotation_degrees is None else options.rotation_degrees
    angles = [0.0] * 3
    if turn < options.rotation_probability:
        angles = [math.radians(limit) * (2 * draw - 1) for draw in angle_draws]
    factor = 1.0
    if zoom < options.scaling_probability:
        low, high = options.scaling_range
        factor = low + (high - low) * zoom_draw
    return affine_matrix(angles, factor, hr_spacing, in_plane=rule.in_plane)


class IntensityAugmentation:
    """Changes of the HR image's intensities, before it is degraded.

    Args:
        options: probabilities and ranges.
        hr_spacing: mm per axis of the HR grid.
    """

    def __init__(self, options: AugmentationOptions, hr_spacing: Sequence[float]) -> None:
        brightness = MultiplicativeBrightnessTransform(
            BGContrast(options.brightness_range), synchronize_channels=False, p_per_channel=1
        )
        contrast = ContrastTransform(
            BGContrast(options.contrast_range),
            preserve_range=True,
            synchronize_channels=False,
            p_per_channel=1,
        )
        self._linear = [
            RandomTransform(brightness, options.brightness_probability),
            RandomTransform(contrast, options.contrast_probability),
        ]
        self._gamma = [
            RandomTransform(_gamma(options, inverted=True), options.gamma_inverted_probability),
            RandomTransform(_gamma(options, inverted=False), options.gamma_probability),
        ]
        self._options = options
        self._hr_spacing = tuple(hr_spacing)

    def __call__(
        self, hr_image: torch.Tensor, background: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the changed image; `hr_image` may be written into.

        Args:
            hr_image: (C, Z, Y, X), normalised.
            background: (C, 1, 1, 1), the normalised value of raw 0.
            generator: of the bias field. The rest draws from the global states.
        """
        sample = {"image": hr_image}
        for transform in self._linear:
            sample = transform(**sample)
        draw, strength = torch.rand(2, generator=generator).tolist()
        if draw < self._options.bias_field_probability:
            low, high = self._options.bias_field_strength
            field = bias_field(
                hr_image.shape, self._hr_spacing, low + (high - low) * strength, generator
            )
            sample["image"].sub_(background).mul_(field).add_(background)
        for transform in self._gamma:
            sample = transform(**sample)
        return sample["image"]


def _gamma(options: AugmentationOptions, *, inverted: bool) -> GammaTransform:
    return GammaTransform(
        BGContrast(options.gamma_range),
        p_invert_image=float(inverted),
        synchronize_channels=False,
        p_per_channel=1,
        p_retain_stats=1,
    )


def bias_field(
    shape: Sequence[int],
    hr_spacing: Sequence[float],
    strength: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return a smooth positive factor of `shape` (C, Z, Y, X) around 1, one field per channel.

    Its logarithm is a cubic through normal values of standard deviation `strength` at a few
    knots: two per axis, more where the image is long in mm, none along a single slice.
    """
    num_knots = [
        min(n, max(2, round(n * mm / _BIAS_KNOT_MM)))
        for n, mm in zip(shape[1:], hr_spacing, strict=True)
    ]
    knots = torch.randn(shape[0], *num_knots, generator=generator)
    matrices = [
        interpolation_matrix(n_knots, n, kind="cubic", antialias=False)
        for n_knots, n in zip(knots.shape[1:], shape[1:], strict=True)
    ]
    return apply_separable(knots * strength, matrices).exp_()


class LRAugmentation:
    """Blur and noise of the LR image, which the SR image shall not have."""

    def __init__(self, options: AugmentationOptions) -> None:
        noise = GaussianNoiseTransform(
            noise_variance=options.noise_range,  # used as a standard deviation
            p_per_channel=1,
            synchronize_channels=True,
        )
        self._noise = RandomTransform(noise, options.noise_probability)
        self._options = options

    def __call__(self, lr_image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the changed (C, z, y, x) image; `lr_image` may be written into.

        Args:
            lr_image: as degraded.
            generator: of the blur. The noise draws from the global state.
        """
        draw, *sigma_draws = torch.rand(4, generator=generator).tolist()
        if draw < self._options.blur_probability:
            low, high = self._options.blur_sigma_range
            sigmas = [low + (high - low) * value for value in sigma_draws]
            shape = lr_image.shape[1:]
            matrices = [gaussian_matrix(n, s) for n, s in zip(shape, sigmas, strict=True)]
            lr_image = apply_separable(lr_image, matrices)
        return self._noise(image=lr_image)["image"]


def gaussian_matrix(n: int, sigma: float) -> torch.Tensor | None:
    """Return the (n, n) matrix of a Gaussian of `sigma` voxels that repeats the edge.

    None for an axis with nothing to blur.
    """
    if n == 1 or sigma == 0:
        return None
    reach = max(1, math.ceil(4 * sigma))
    distances = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (distances / sigma) ** 2)
    columns = np.clip(np.arange(n)[:, None] + distances, 0, n - 1)
    matrix = np.zeros((n, n))
    np.add.at(matrix, (np.arange(n)[:, None], columns), weights / weights.sum())
    return torch.from_numpy(matrix)
