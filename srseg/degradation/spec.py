"""What degradation a configuration uses: small frozen values with an exact JSON round trip.

The three axes are in the order of the arrays the spec is for (plan order inside plans).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from srseg.degradation.operators import OPERATORS, PAIRED, WINDOWS

SPEC_VERSION = 1
MODALITIES = ("MR", "CT", "other")
NOISE_KINDS = ("gaussian", "rician")

# HR spacings closer than this count as equal when the through-plane axis is looked for
_SPACING_TOLERANCE = 0.01


def _check_keys(given: object, required: Collection[str], what: str) -> None:
    if not isinstance(given, Mapping):
        raise ValueError(f"{what} must be a mapping with {_listed(required)}, got {given!r}.")
    for problem, names in (
        ("unknown", [str(k) for k in given if k not in required]),
        ("missing", [k for k in required if k not in given]),
    ):
        if names:
            raise ValueError(
                f"{what} has the {problem} key {_listed(names)}; its keys are {_listed(required)}."
            )


def _listed(names: Collection[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) if names else "none"


def _check_interval(values: object, lowest: float, highest: float, what: str) -> None:
    fits = isinstance(values, (list, tuple)) and len(values) == 2
    if not fits or not all(_is_number(v) for v in values):
        raise ValueError(f"{what} must be two numbers [low, high], got {values!r}.")
    if not lowest <= values[0] <= values[1] <= highest:
        raise ValueError(
            f"{what} must rise and lie between {lowest:g} and {highest:g}, got {values!r}."
        )


def _is_number(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _check_noise(noise: object, what: str, *, interval: bool) -> None:
    """Check {"kind": ..., "std": fraction of the mean signal, or an interval of them}."""
    _check_keys(noise, ("kind", "std"), what)
    if noise["kind"] not in NOISE_KINDS:
        raise ValueError(
            f"unknown noise kind {noise['kind']!r} in {what}; known: {', '.join(NOISE_KINDS)}."
        )
    if interval:
        _check_interval(noise["std"], 0.0, 1.0, f"'std' of {what}")
    elif not _is_number(noise["std"]) or not 0 <= noise["std"] <= 1:
        raise ValueError(f"'std' of {what} must be a fraction from 0 to 1, got {noise['std']!r}.")


def _check_randomised(block: object) -> None:
    keys = ("nominal_probability", "fwhm_factor", "windows", "families", "noise")
    _check_keys(block, keys, "'randomised'")
    probability = block["nominal_probability"]
    if not _is_number(probability) or not 0 <= probability <= 1:
        raise ValueError(f"'nominal_probability' must be from 0 to 1, got {probability!r}.")
    _check_interval(block["fwhm_factor"], 0.1, 10.0, "'fwhm_factor'")
    windows = block["windows"]
    listed = isinstance(windows, (list, tuple)) and len(windows) > 0
    if not listed or any(name not in WINDOWS for name in windows):
        raise ValueError(f"'windows' must name some of {', '.join(WINDOWS)}, got {windows!r}.")
    if not isinstance(block["families"], (list, tuple)) or len(block["families"]) != 3:
        raise ValueError(f"'families' must have three entries, got {block['families']!r}.")
    drawable = [name for name in OPERATORS if name not in (PAIRED, "identity")]
    for family in block["families"]:
        if not family or any(name not in drawable for name in family):
            raise ValueError(f"a family must name some of {', '.join(drawable)}, got {family!r}.")
    if block["noise"] is not None:
        _check_noise(block["noise"], "'noise' of 'randomised'", interval=True)


@dataclass(frozen=True)
class AxisDegradation:
    """The operator of one axis.

    Attributes:
        operator: a key of `OPERATORS`.
        options: exactly the operator's options, for instance {"thickness_mm": 5.0}.

    Raises:
        ValueError: for an unknown operator, or an option unknown, missing or out of range.
    """

    operator: str
    options: Mapping[str, float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.operator not in OPERATORS:
            raise ValueError(
                f"unknown degradation '{self.operator}'; known: {', '.join(OPERATORS)}."
            )
        checks = OPERATORS[self.operator].options
        _check_keys(self.options, tuple(checks), f"the degradation '{self.operator}'")
        for name, check in checks.items():
            check(self.options[name])


@dataclass(frozen=True)
class DegradationSpec:
    """How HR images of a configuration become LR images.

    Attributes:
        axes: one operator per axis; 'paired' on all three or on none.
        randomised: how training varies the operators (see `draw_spec`), None for not at all.
            {"nominal_probability": p, "fwhm_factor": [low, high], "windows": [...],
            "families": [names per axis], "noise": None or {"kind", "std": [low, high]}}.
        noise: {"kind": "gaussian" | "rician", "std": fraction of the mean signal} or None.

    Raises:
        ValueError: for anything unknown, missing or out of range.
    """

    axes: tuple[AxisDegradation, AxisDegradation, AxisDegradation]
    randomised: Mapping[str, Any] | None = None
    noise: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if len(self.axes) != 3:
            raise ValueError(f"a degradation has three axes, got {len(self.axes)}.")
        paired = [axis.operator == PAIRED for axis in self.axes]
        if any(paired) and not all(paired):
            raise ValueError("'paired' must be the degradation of all three axes or of none.")
        if self.randomised is not None:
            if self.paired:
                raise ValueError("a 'paired' degradation cannot be 'randomised'.")
            _check_randomised(self.randomised)
        if self.noise is not None:
            _check_noise(self.noise, "'noise'", interval=False)

    @property
    def paired(self) -> bool:
        """Whether LR images come from files, so that nothing is simulated."""
        return all(axis.operator == PAIRED for axis in self.axes)

    def transposed(self, order: Sequence[int]) -> DegradationSpec:
        """Return the spec for arrays whose axis i is axis `order[i]` of this spec's arrays.

        Raises:
            ValueError: if `order` is no permutation of 0, 1, 2.
        """
        if sorted(order) != [0, 1, 2]:
            raise ValueError(f"the order must be a permutation of 0, 1, 2, got {tuple(order)}.")
        randomised = self.randomised
        if randomised is not None:
            families = [randomised["families"][i] for i in order]
            randomised = {**randomised, "families": families}
        return DegradationSpec(tuple(self.axes[i] for i in order), randomised, self.noise)

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` turns back into an equal spec."""
        return {
            "version": SPEC_VERSION,
            "axes": [{"operator": a.operator, "options": dict(a.options)} for a in self.axes],
            "randomised": _plain(self.randomised),
            "noise": _plain(self.noise),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> DegradationSpec:
        """Return the spec written by `to_json`.

        Raises:
            ValueError: for another version, or a key or value unknown, missing or out of range.
        """
        _check_keys(content, ("version", "axes", "randomised", "noise"), "'degradation'")
        if content["version"] != SPEC_VERSION:
            raise ValueError(
                f"'degradation' has version {content['version']!r}, this srseg reads "
                f"{SPEC_VERSION}; plan the dataset again."
            )
        if not isinstance(content["axes"], (list, tuple)):
            raise ValueError(f"'axes' of 'degradation' must be a list, got {content['axes']!r}.")
        for axis in content["axes"]:
            _check_keys(axis, ("operator", "options"), "an axis of 'degradation'")
        axes = tuple(AxisDegradation(a["operator"], dict(a["options"])) for a in content["axes"])
        return cls(axes, _plain(content["randomised"]), _plain(content["noise"]))


def _plain(block: Any) -> Any:
    """Return a copy of JSON-like values with tuples as lists."""
    if isinstance(block, Mapping):
        return {key: _plain(value) for key, value in block.items()}
    if isinstance(block, (list, tuple)):
        return [_plain(value) for value in block]
    return block


def paired_spec() -> DegradationSpec:
    """Return the spec of datasets with real LR files: nothing is simulated."""
    return DegradationSpec((AxisDegradation(PAIRED),) * 3)


def default_degradation(
    modality: str, hr_spacing: Sequence[float], scale: Sequence[int], *, multislice: bool
) -> DegradationSpec:
    """Return the degradation that fits how the images were acquired, randomised for training.

    MR samples k-space, except across the slices of a 2-D multislice sequence, which see the
    slice profile; CT averages over the slice thickness; of other images nothing is known, so
    their voxels are averaged. Slices are as thick as the LR spacing (no gap). Axes of scale 1
    keep their values. The randomised block draws no noise: training adds noise to LR images as
    augmentation.

    Args:
        modality: "MR", "CT" or "other".
        hr_spacing: mm per axis of the HR grid.
        scale: whole numbers per axis.
        multislice: whether slices were acquired one by one. The through-plane axis is the one
            with the coarsest HR spacing; among equal ones (within 1 %) the one with the largest
            scale, then the first. CT always has such an axis.

    Raises:
        ValueError: for an unknown modality.
    """
    if modality not in MODALITIES:
        raise ValueError(f"unknown modality {modality!r}; known: {', '.join(MODALITIES)}.")
    through_plane = _through_plane_axis(hr_spacing, scale)
    axes, families = [], []
    for i, (spacing_mm, s) in enumerate(zip(hr_spacing, scale, strict=True)):
        lr_spacing_mm = float(spacing_mm * s)
        if modality == "MR" and multislice and i == through_plane:
            axis = AxisDegradation("slice_gauss", {"thickness_mm": lr_spacing_mm})
            family = ["slice_gauss", "slab_mean"]
        elif modality == "MR":
            axis = AxisDegradation("kspace_crop", {"window": "none"})
            family = ["kspace_crop", "slice_gauss"]
        elif modality == "CT" and i == through_plane:
            axis = AxisDegradation("slab_mean", {"thickness_mm": lr_spacing_mm})
            family = ["slab_mean", "slice_gauss"]
        else:
            axis = AxisDegradation("area")
            family = ["area", "slice_gauss"]
        axes.append(AxisDegradation("identity") if s == 1 else axis)
        families.append(family)
    randomised = {
        "nominal_probability": 0.5,
        "fwhm_factor": [0.8, 1.3],
        "windows": list(WINDOWS),
        "families": families,
        "noise": None,
    }
    return DegradationSpec(tuple(axes), randomised)


def _through_plane_axis(hr_spacing: Sequence[float], scale: Sequence[int]) -> int:
    coarsest = max(hr_spacing)
    equal_mm = coarsest * (1 - _SPACING_TOLERANCE)
    candidates = [i for i, mm in enumerate(hr_spacing) if mm >= equal_mm]
    return max(candidates, key=lambda i: scale[i])  # the first of equal ones
