"""Fingerprints of several kinds of datasets to plans, number by number as reviewed by eye."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import srseg
from srseg.planning.fingerprint import SRSegFingerprintExtractor
from srseg.plans.managers import load_plans
from tests.golden.plan_fingerprint import GOLDEN, NAMES, PLANS, plans_of, read_plans

SCALES = {
    "acdc": (1, 2, 2),
    "cine_10mm": (1, 2, 2),
    "hippocampus": (2, 2, 2),
    "isotropic_mr": (2, 2, 2),
    "thick_slice_ct": (1, 2, 2),
    "thin_slice_ct": (2, 2, 2),
    "two_d": (1, 2, 2),
}
REAL = {"hippocampus": "Dataset004_Hippocampus", "acdc": "Dataset027_ACDC"}


@pytest.mark.parametrize("name", NAMES)
def test_plans_are_the_reviewed_ones(name: str, nnunet_folders: Path):
    made = plans_of(name, nnunet_folders)
    for plans_name in PLANS:
        expected = read_plans(GOLDEN / name / f"{plans_name}.json")
        difference = "\n".join(differences(expected, made[plans_name]))
        assert not difference, (
            f"{difference}\nLook at it; if it is right: python -m tests.golden.plan_fingerprint"
        )


def differences(expected: object, found: object, path: str = "") -> list[str]:
    """Return what differs between two JSON values, one line each."""
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = [*expected, *(key for key in found if key not in expected)]
        return [
            line
            for key in keys
            for line in differences(expected.get(key), found.get(key), f"{path}/{key}")
        ]
    return [] if expected == found else [f"{path}: {expected!r} -> {found!r}"]


def test_every_golden_dataset_has_its_expected_scale():
    assert set(NAMES) == set(SCALES)


@pytest.mark.parametrize("name", NAMES)
def test_laws_of_all_plans(name: str):
    manager = load_plans(GOLDEN / name / "srsegPlans.json")
    for configuration_name in manager.available_configurations:
        cm = manager.get_configuration(configuration_name)
        assert manager.native(cm.scale_3d) == SCALES[name]
        for mm, hr_mm, s in zip(cm.spacing, cm.hr_spacing, cm.scale, strict=True):
            assert mm == pytest.approx(hr_mm * s)
        strides = cm.network_arch_init_kwargs["strides"]
        for axis, n in enumerate(cm.patch_size):
            divisor = 1
            for stride in strides:
                divisor *= stride[axis]
            assert n % divisor == 0
        assert tuple(cm.network_arch_init_kwargs["scale"]) == cm.scale
        assert all(cm.rationale[key] for key in ("scale", "patch_size", "batch_size", "hr_width"))
        assert all(cm.rationale[key] for key in ("spacing", "degradation", "patch_free"))
        refined = [axis["operator"] != "identity" for axis in cm.degradation["axes"]]
        assert refined == [s > 1 for s in cm.scale_3d]


@pytest.mark.parametrize("name", sorted(REAL))
def test_fingerprints_of_the_real_datasets(
    name: str, real_data_folder: Path, nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch
):
    """Numbers alone are kept in the repository; here they are measured again."""
    monkeypatch.setenv("nnUNet_raw", str(real_data_folder))
    extractor = SRSegFingerprintExtractor(REAL[name], 2)
    extractor.show_progress_bar = False
    found = extractor.run()
    expected = json.loads((GOLDEN / name / "dataset_fingerprint.json").read_text())
    cases = expected["srseg"].pop("cases")
    assert list(found["srseg"].pop("cases")) == list(cases)
    assert_close(found, expected)


def assert_close(found: object, expected: object, path: str = "") -> None:
    if isinstance(expected, dict):
        assert list(found) == list(expected), path
        for key, value in expected.items():
            assert_close(found[key], value, f"{path}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), path
        for i, value in enumerate(expected):
            assert_close(found[i], value, f"{path}/{i}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-4), path
    else:
        assert found == expected, path


def test_version_of_the_code_stands_in_the_plans(nnunet_folders: Path):
    plans_of("two_d", nnunet_folders)
    file = nnunet_folders / "nnUNet_preprocessed/Dataset901_Golden/srsegPlans.json"
    assert json.loads(file.read_text())["srseg_version"] == srseg.__version__
