"""One affine intensity map per case and channel: `normalised = slope * raw + intercept`.

The LR image defines it (or the dataset, for CT), LR and HR both use it, and it is stored, so
that a super-resolved image goes back to the input's units exactly. Nothing is clipped here: the
network itself clips what its trunk reads (`clip_bounds`), and its SR image is added to the image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

EPSILON = 1e-8  # nnU-Net's: below it an image counts as constant


@dataclass(frozen=True)
class IntensityMap:
    """The affine map of one channel.

    Attributes:
        slope: normalised units per raw unit, > 0.
        intercept: the normalised value of raw 0.
    """

    slope: float
    intercept: float

    @property
    def centre(self) -> float:
        """The raw value that becomes 0."""
        return -self.intercept / self.slope

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """Return the normalised float32 values."""
        # the centre goes first: slope * raw would round where the mean is many deviations from 0
        normalised = np.subtract(raw, np.float32(self.centre), dtype=np.float32)
        normalised *= np.float32(self.slope)
        return normalised

    def invert(self, normalised: np.ndarray) -> np.ndarray:
        """Return raw float32 values."""
        raw = np.divide(normalised, np.float32(self.slope), dtype=np.float32)
        raw += np.float32(self.centre)
        return raw


def _from_mean_and_std(mean: float, std: float) -> IntensityMap:
    # a constant image maps to 0; its slope stays 1, as 1 / EPSILON would blow up the HR image
    slope = 1.0 if std < EPSILON else 1.0 / std
    return IntensityMap(slope, -mean * slope)


def _zscore(values: np.ndarray, _: Mapping[str, float]) -> IntensityMap:
    return _from_mean_and_std(
        float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    )


def _ct(_: np.ndarray, dataset: Mapping[str, float]) -> IntensityMap:
    return _from_mean_and_std(float(dataset["mean"]), float(dataset["std"]))


def _none(_: np.ndarray, __: Mapping[str, float]) -> IntensityMap:
    return IntensityMap(1.0, 0.0)


def _rescale_to_01(values: np.ndarray, _: Mapping[str, float]) -> IntensityMap:
    low, high = float(values.min()), float(values.max())
    slope = 1.0 if high - low < EPSILON else 1.0 / (high - low)
    return IntensityMap(slope, -low * slope)


def _rgb_to_01(values: np.ndarray, _: Mapping[str, float]) -> IntensityMap:
    # half a range of slack: a band-limited LR image overshoots the range of its HR image
    low, high = float(values.min()), float(values.max())
    if low < -128 or high > 383:
        raise ValueError(
            f"RGBTo01Normalization takes values from 0 to 255, got {low:g} to {high:g}."
        )
    return IntensityMap(1 / 255, 0.0)


# nnU-Net's scheme names; the second argument of each is the dataset's foreground statistics
SCHEMES: dict[str, Callable[[np.ndarray, Mapping[str, float]], IntensityMap]] = {
    "ZScoreNormalization": _zscore,
    "CTNormalization": _ct,
    "NoNormalization": _none,
    "RescaleTo01Normalization": _rescale_to_01,
    "RGBTo01Normalization": _rgb_to_01,
}


def intensity_maps(
    lr_image: np.ndarray,
    nonzero: np.ndarray,
    *,
    schemes: Sequence[str],
    use_mask: Sequence[bool],
    dataset_statistics: Mapping[str, Mapping[str, float]],
) -> list[IntensityMap]:
    """Return the map of each channel, from the LR image's own voxels where the scheme asks.

    Unlike nnU-Net's z-score, voxels outside the mask are mapped too: one affine map holds
    everywhere.

    Args:
        lr_image: (C, z, y, x) raw, cropped to non-zero.
        nonzero: (z, y, x) bool; where `use_mask` is set, statistics come from inside it.
        schemes: nnU-Net's name per channel.
        use_mask: per channel.
        dataset_statistics: per channel ("0", "1", ...) the foreground statistics of the plans.

    Raises:
        ValueError: for an unknown scheme, a wrong number of channels, or RGB out of its range.
    """
    if not len(lr_image) == len(schemes) == len(use_mask):
        raise ValueError(
            f"the image has {len(lr_image)} channels, the plans normalise {len(schemes)}."
        )
    maps = []
    for channel, (values, scheme, masked) in enumerate(
        zip(lr_image, schemes, use_mask, strict=True)
    ):
        if scheme not in SCHEMES:
            raise ValueError(
                f"unknown normalisation '{scheme}' in the plans; known: {', '.join(SCHEMES)}."
            )
        inside = values[nonzero] if masked and nonzero.any() else values
        maps.append(SCHEMES[scheme](inside, dataset_statistics.get(str(channel), {})))
    return maps


def clip_bounds(
    schemes: Sequence[str], dataset_statistics: Mapping[str, Mapping[str, float]]
) -> list[tuple[float, float] | None]:
    """Return per channel the normalised values that the network's trunk clips to, None for none.

    As nnU-Net, CT is clipped to the 0.5th and 99.5th percentile of the dataset's foreground, the
    same ones for every case.

    Args:
        schemes: nnU-Net's name per channel.
        dataset_statistics: per channel ("0", "1", ...) the foreground statistics of the plans.
    """
    bounds: list[tuple[float, float] | None] = []
    for channel, scheme in enumerate(schemes):
        if scheme != "CTNormalization":
            bounds.append(None)
            continue
        statistics = dataset_statistics[str(channel)]
        to_normalised = _ct(np.empty(0), statistics)
        low, high = (
            to_normalised.slope * float(statistics[name]) + to_normalised.intercept
            for name in ("percentile_00_5", "percentile_99_5")
        )
        bounds.append((low, high))
    return bounds


def apply_maps(image: np.ndarray, maps: Sequence[IntensityMap]) -> np.ndarray:
    """Return the (C, Z, Y, X) image with each channel normalised by its map, float32."""
    return np.stack([m.apply(channel) for m, channel in zip(maps, image, strict=True)])


def maps_of(properties: Mapping) -> list[IntensityMap]:
    """Return the maps a preprocessed case stores in `properties["srseg"]`."""
    stored = properties["srseg"]
    return [
        IntensityMap(slope, intercept)
        for slope, intercept in zip(stored["slope"], stored["intercept"], strict=True)
    ]
