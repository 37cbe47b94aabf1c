"""Our managers add the HR grid to nnU-Net's and refuse what they do not know."""

import json

import pytest

from srseg.plans.managers import SRSegPlansManager, load_plans

CONFIGURATION = {
    "data_identifier": "srsegPlans_3d_fullres",
    "patch_size": [5, 8, 7],
    "spacing": [4.0, 1.4, 1.0],
    "scale": [1, 2, 4],
    "hr_spacing": [4.0, 0.7, 0.25],
    "degradation": {},
    "architecture": {},
    "resampling_fn_data": "srseg.preprocessing.resampling.resample_image",
    "resampling_fn_data_kwargs": {},
    "resampling_fn_seg": "os.path.join",
}
PLANS = {
    "plans_name": "srsegPlans",
    "transpose_forward": [2, 0, 1],
    "transpose_backward": [1, 2, 0],
    "configurations": {
        "3d_fullres": CONFIGURATION,
        "3d_patchfree": {"inherits_from": "3d_fullres", "patch_free": True},
        "2d": {**CONFIGURATION, "scale": [2, 4], "patch_size": [8, 7]},
        "stock": {"architecture": {}, "patch_size": [8, 8, 8]},
    },
}


def test_hr_patch_is_scale_times_the_patch():
    manager = SRSegPlansManager(PLANS).get_configuration("3d_fullres")
    assert manager.hr_patch_size == (5, 16, 28)
    assert manager.scale_3d == (1, 2, 4)
    assert not manager.patch_free


def test_a_2d_configuration_refines_no_slices():
    assert SRSegPlansManager(PLANS).get_configuration("2d").scale_3d == (1, 2, 4)


def test_inheritance_is_resolved():
    manager = SRSegPlansManager(PLANS).get_configuration("3d_patchfree")
    assert manager.patch_free
    assert manager.spacing == [4.0, 1.4, 1.0]


def test_native_and_planned_are_inverse():
    manager = SRSegPlansManager(PLANS)
    assert manager.planned(("z", "y", "x")) == ("x", "z", "y")
    assert manager.native(("x", "z", "y")) == ("z", "y", "x")


def test_unknown_configuration_lists_the_known():
    with pytest.raises(ValueError, match="known: 3d_fullres, 3d_patchfree, 2d, stock"):
        SRSegPlansManager(PLANS).get_configuration("3d_lowres")


def test_stock_plans_are_refused():
    with pytest.raises(ValueError, match="lacks scale, hr_spacing, degradation"):
        SRSegPlansManager(PLANS).get_configuration("stock")


def test_foreign_functions_are_not_loaded():
    manager = SRSegPlansManager(PLANS).get_configuration("3d_fullres")
    with pytest.raises(ValueError, match="only names under srseg.preprocessing"):
        _ = manager.resampling_fn_seg


def test_missing_plans_list_those_beside(tmp_path):
    (tmp_path / "srsegPlans.json").write_text(json.dumps(PLANS), encoding="utf-8")
    assert load_plans(tmp_path / "srsegPlans.json").plans_name == "srsegPlans"
    with pytest.raises(FileNotFoundError, match="known: srsegPlans"):
        load_plans(tmp_path / "otherPlans.json")
