"""A random degradation around the nominal one, for training on a mixture of scanners.

A network trained on one simulated point spread function fails on others (PMB 66(20) 2021,
PMC8567745), so training varies it within what the modality can do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from srseg.degradation.operators import OPERATORS
from srseg.degradation.spec import AxisDegradation, DegradationSpec


def draw_spec(
    spec: DegradationSpec,
    scale: Sequence[int],
    hr_spacing: Sequence[float],
    generator: torch.Generator,
) -> DegradationSpec:
    """Return a fixed spec drawn from `spec.randomised`; `spec` itself if it has no such block.

    With `nominal_probability` the operators stay nominal. Else each axis that is not 'identity'
    draws an operator of its family: thicknesses are the nominal one (the LR spacing where the
    operator has none) times a uniform `fwhm_factor`, windows are drawn evenly, and operators
    without options come as they are. Noise is drawn either way, its std uniformly.

    Args:
        spec: nominal operators and the randomised block.
        scale: whole numbers per axis.
        hr_spacing: mm per axis.
        generator: the only source of randomness; each call takes the same number of draws.
    """
    if spec.randomised is None:
        return spec
    block = spec.randomised
    draws = torch.rand(11, generator=generator, device=generator.device)
    nominal, noise_std, *per_axis = draws.tolist()
    axes = spec.axes
    if nominal >= block["nominal_probability"]:
        axes = tuple(
            axis
            if axis.operator == "identity"
            else _draw_axis(axis, block, i, s * mm, per_axis[3 * i : 3 * i + 3])
            for i, (axis, s, mm) in enumerate(zip(spec.axes, scale, hr_spacing, strict=True))
        )
    noise = spec.noise
    if block["noise"] is not None:
        std = _between(*block["noise"]["std"], noise_std)
        noise = {"kind": block["noise"]["kind"], "std": std}
    return DegradationSpec(axes, None, noise)


def _draw_axis(
    axis: AxisDegradation, block: dict, index: int, lr_spacing_mm: float, draws: Sequence[float]
) -> AxisDegradation:
    """Return the axis' operator for three uniform draws from [0, 1)."""
    operator = _pick(block["families"][index], draws[0])
    nominal_mm = axis.options.get("thickness_mm", lr_spacing_mm)
    values = {
        "thickness_mm": nominal_mm * _between(*block["fwhm_factor"], draws[1]),
        "window": _pick(block["windows"], draws[2]),
    }
    return AxisDegradation(operator, {name: values[name] for name in OPERATORS[operator].options})


def _pick(choices: Sequence[str], draw: float) -> str:
    return choices[int(draw * len(choices))]


def _between(low: float, high: float, draw: float) -> float:
    return low + (high - low) * draw
