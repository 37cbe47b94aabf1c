"""The spec's values: strict reading, exact round trip, sensible defaults."""

from __future__ import annotations

import json

import pytest

from srseg.degradation.spec import (
    AxisDegradation,
    DegradationSpec,
    default_degradation,
    paired_spec,
)

MR_CINE = ("MR", (9.0, 1.25, 1.5), (1, 2, 2))


def operators_of(spec):
    return tuple(axis.operator for axis in spec.axes)


def test_json_round_trip_is_exact():
    specs = [
        default_degradation(*MR_CINE, multislice=True),
        default_degradation("CT", (1.25, 0.7, 0.8), (4, 1, 2), multislice=True),
        paired_spec(),
        DegradationSpec(
            (AxisDegradation("slab_mean", {"thickness_mm": 3}),) * 3,
            noise={"kind": "rician", "std": 0.02},
        ),
    ]
    for spec in specs:
        written = json.loads(json.dumps(spec.to_json()))
        assert written["version"] == 1
        assert DegradationSpec.from_json(written) == spec
        assert DegradationSpec.from_json(written).to_json() == written


def test_reading_does_not_share_values_with_the_plans():
    content = default_degradation(*MR_CINE, multislice=True).to_json()
    spec = DegradationSpec.from_json(content)
    content["randomised"]["windows"].clear()
    content["axes"][1]["options"].clear()
    assert spec == default_degradation(*MR_CINE, multislice=True)


def test_3d_mr_crops_kspace_everywhere():
    spec = default_degradation("MR", (1.0, 0.9, 1.1), (2, 2, 3), multislice=False)
    assert operators_of(spec) == ("kspace_crop",) * 3
    assert spec.noise is None
    assert spec.randomised["fwhm_factor"] == [0.8, 1.3]


def test_multislice_mr_has_a_slice_profile_across_slices():
    spec = default_degradation("MR", (0.9, 0.9, 2.0), (1, 2, 4), multislice=True)
    assert operators_of(spec) == ("identity", "kspace_crop", "slice_gauss")
    assert spec.axes[2].options == {"thickness_mm": 8.0}


def test_slices_that_are_not_refined_stay_as_they_are():
    spec = default_degradation(*MR_CINE, multislice=True)
    assert operators_of(spec) == ("identity", "kspace_crop", "kspace_crop")


def test_among_equal_spacings_the_most_refined_axis_is_through_plane():
    spec = default_degradation("MR", (1.0, 1.0005, 1.0), (2, 2, 4), multislice=True)
    assert operators_of(spec) == ("kspace_crop", "kspace_crop", "slice_gauss")


def test_ct_averages_over_the_slice():
    for multislice in (True, False):
        spec = default_degradation("CT", (1.5, 0.7, 0.8), (4, 2, 1), multislice=multislice)
        assert operators_of(spec) == ("slab_mean", "area", "identity")
        assert spec.axes[0].options == {"thickness_mm": 6.0}


def test_of_other_images_nothing_is_assumed():
    spec = default_degradation("other", (1.5, 0.7, 0.8), (4, 2, 1), multislice=True)
    assert operators_of(spec) == ("area", "area", "identity")


def test_unknown_modality():
    with pytest.raises(ValueError, match="unknown modality 'US'; known: MR, CT, other"):
        default_degradation("US", (1, 1, 1), (2, 2, 2), multislice=False)


def test_transposed_moves_axes_and_families_together():
    spec = default_degradation("MR", (0.9, 0.8, 2.0), (1, 2, 4), multislice=True)
    moved = spec.transposed((2, 0, 1))
    assert operators_of(moved) == ("slice_gauss", "identity", "kspace_crop")
    assert moved.randomised["families"][0] == spec.randomised["families"][2]
    assert moved.transposed((1, 2, 0)) == spec
    with pytest.raises(ValueError, match=r"permutation of 0, 1, 2, got \(0, 0, 1\)"):
        spec.transposed((0, 0, 1))


def test_paired_is_all_or_nothing():
    assert paired_spec().paired
    with pytest.raises(ValueError, match="all three axes or of none"):
        DegradationSpec((AxisDegradation("paired"),) * 2 + (AxisDegradation("area"),))
    block = default_degradation(*MR_CINE, multislice=True).randomised
    with pytest.raises(ValueError, match="'paired' degradation cannot be 'randomised'"):
        DegradationSpec((AxisDegradation("paired"),) * 3, block)


@pytest.mark.parametrize(
    ("operator", "options", "match"),
    [
        ("kspace_corp", {}, "unknown degradation 'kspace_corp'; known: kspace_crop, slice_gauss"),
        ("kspace_crop", {}, "'kspace_crop' has the missing key 'window'"),
        ("kspace_crop", {"window": "hann"}, "unknown window 'hann'; known: none, hamming, tukey"),
        ("area", {"thickness_mm": 2.0}, "'area' has the unknown key 'thickness_mm'"),
        ("slab_mean", {"thickness": 2.0}, "unknown key 'thickness'; its keys are 'thickness_mm'"),
        ("slab_mean", {"thickness_mm": 0}, "above 0 in mm, got 0"),
        ("slice_gauss", {"thickness_mm": "2"}, "above 0 in mm, got '2'"),
        ("slice_gauss", {"thickness_mm": float("nan")}, "above 0 in mm, got nan"),
        ("slice_gauss", {"thickness_mm": True}, "above 0 in mm, got True"),
        ("slice_gauss", None, "must be a mapping"),
    ],
)
def test_axis_errors(operator, options, match):
    with pytest.raises(ValueError, match=match):
        AxisDegradation(operator, options)


def edited(path, value):
    """Return a spec's JSON with one value replaced, or removed for `...`."""
    content = default_degradation(*MR_CINE, multislice=True).to_json()
    content["noise"] = {"kind": "gaussian", "std": 0.1}
    content["randomised"]["noise"] = {"kind": "rician", "std": [0.0, 0.1]}
    block = content
    for key in path[:-1]:
        block = block[key]
    if value is ...:
        del block[path[-1]]
    else:
        block[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (["noise"], ..., "'degradation' has the missing key 'noise'"),
        (["nosie"], None, "'degradation' has the unknown key 'nosie'"),
        (["version"], 2, "version 2, this srseg reads 1"),
        (["axes"], 3, "must be a list, got 3"),
        (["axes"], [], "three axes, got 0"),
        (["axes", 0, "operator"], ..., "an axis of 'degradation' has the missing key 'operator'"),
        (["noise", "std"], ..., "'noise' has the missing key 'std'"),
        (["noise", "std"], 1.5, "fraction from 0 to 1, got 1.5"),
        (["noise", "kind"], "poisson", "unknown noise kind 'poisson' in 'noise'"),
        (["randomised", "windows"], [], "'windows' must name some of none, hamming, tukey"),
        (["randomised", "windows"], ["hann"], "'windows' must name some of"),
        (["randomised", "families"], [["area"]], "'families' must have three entries"),
        (["randomised", "families", 1], ["paired"], "a family must name some of kspace_crop"),
        (["randomised", "families", 1], [], "a family must name some of"),
        (["randomised", "nominal_probability"], 1.1, "from 0 to 1, got 1.1"),
        (["randomised", "fwhm_factor"], [1.3, 0.8], "must rise and lie between"),
        (["randomised", "fwhm_factor"], 1.3, "two numbers"),
        (["randomised", "fwhm_factor"], ..., "missing key 'fwhm_factor'"),
        (["randomised", "noise", "std"], 0.1, "two numbers"),
    ],
)
def test_plans_are_read_strictly(path, value, match):
    with pytest.raises(ValueError, match=match):
        DegradationSpec.from_json(edited(path, value))
