"""Draws around the nominal degradation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srseg.degradation.randomised import draw_spec
from srseg.degradation.spec import AxisDegradation, DegradationSpec, default_degradation

SCALE, SPACING = (3, 2, 1), (2.0, 0.7, 0.5)


def block_with(**changes):
    block = default_degradation("MR", SPACING, SCALE, multislice=True).randomised
    return {**block, **changes}


def draws(spec, count=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [draw_spec(spec, SCALE, SPACING, generator) for _ in range(count)]


def test_draws_stay_in_the_family_and_in_range():
    axes = default_degradation("MR", SPACING, SCALE, multislice=True).axes
    drawn = draws(DegradationSpec(axes, block_with(nominal_probability=0.0)))
    assert {spec.axes[0].operator for spec in drawn} == {"slice_gauss", "slab_mean"}
    assert {spec.axes[1].operator for spec in drawn} == {"kspace_crop", "slice_gauss"}
    assert {spec.axes[2].operator for spec in drawn} == {"identity"}
    windows = {spec.axes[1].options.get("window") for spec in drawn} - {None}
    assert windows == {"none", "hamming", "tukey"}
    for i, nominal_mm in ((0, 6.0), (1, 1.4)):  # an operator without thickness: the LR spacing
        thickness = [s.axes[i].options.get("thickness_mm", np.nan) for s in drawn]
        factor = np.asarray(thickness) / nominal_mm
        assert 0.8 <= np.nanmin(factor) < 0.83
        assert 1.27 < np.nanmax(factor) <= 1.3
        assert np.nanmean(factor) == pytest.approx(1.05, abs=0.03)
    assert all(spec.randomised is None for spec in drawn)


def test_thickness_is_drawn_around_the_nominal_one():
    axes = (AxisDegradation("slab_mean", {"thickness_mm": 4.0}),) * 3
    block = block_with(nominal_probability=0.0, families=[["slab_mean"]] * 3)
    thickness = [
        spec.axes[0].options["thickness_mm"] for spec in draws(DegradationSpec(axes, block))
    ]
    assert 3.2 <= min(thickness) < 3.3
    assert 5.1 < max(thickness) <= 5.2


def test_nominal_operators_come_with_their_probability():
    spec = default_degradation("MR", SPACING, SCALE, multislice=True)
    nominal = [drawn.axes == spec.axes for drawn in draws(spec, 1000)]
    assert np.mean(nominal) == pytest.approx(0.5, abs=0.05)
    always = DegradationSpec(spec.axes, block_with(nominal_probability=1.0))
    assert all(drawn.axes == spec.axes for drawn in draws(always, 20))


def test_noise_is_drawn_with_nominal_operators_too():
    axes = default_degradation("MR", SPACING, SCALE, multislice=True).axes
    noise = {"kind": "rician", "std": [0.01, 0.05]}
    spec = DegradationSpec(axes, block_with(nominal_probability=1.0, noise=noise))
    std = [drawn.noise["std"] for drawn in draws(spec)]
    assert {drawn.noise["kind"] for drawn in draws(spec)} == {"rician"}
    assert 0.01 <= min(std) < 0.012
    assert 0.048 < max(std) <= 0.05


def test_fixed_noise_stays():
    axes = default_degradation("MR", SPACING, SCALE, multislice=True).axes
    noise = {"kind": "gaussian", "std": 0.02}
    assert draws(DegradationSpec(axes, block_with(), noise), 1)[0].noise == noise


def test_same_seed_same_draws_and_the_global_generator_is_left_alone():
    spec = default_degradation("MR", SPACING, SCALE, multislice=True)
    before = torch.get_rng_state()
    np_before = np.random.get_state()[1].copy()
    assert draws(spec, 20, seed=3) == draws(spec, 20, seed=3)
    assert draws(spec, 20, seed=3) != draws(spec, 20, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], np_before)


def test_every_draw_takes_as_many_numbers():
    spec = default_degradation("MR", SPACING, SCALE, multislice=True)
    fixed = DegradationSpec(spec.axes, block_with(nominal_probability=1.0))
    states = []
    for one in (spec, fixed):
        generator = torch.Generator().manual_seed(1)
        draw_spec(one, SCALE, SPACING, generator)
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_a_spec_without_the_block_is_returned_as_it_is():
    spec = DegradationSpec((AxisDegradation("area"),) * 3)
    assert draws(spec, 1)[0] is spec
