"""The planner: wishes, axis order, memory, pairs, what stays in the file, and mistakes."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from srseg.degradation.spec import DegradationSpec
from srseg.networks.build import build_network
from srseg.planning.fingerprint import SRSegFingerprintExtractor
from srseg.planning.planner import SRSegPlanner
from srseg.plans.managers import SRSegPlansManager, load_plans
from tests.golden.plan_fingerprint import GOLDEN, plans_of
from tests.planning.test_raw_dataset import change_json
from tests.tiny_dataset import read_volume, save_volume


def golden(name: str, root: Path, **wishes) -> SRSegPlansManager:
    return SRSegPlansManager(plans_of(name, root, **wishes)["srsegPlans"])


@pytest.fixture
def tiny(tiny_copy: Path, nnunet_folders: Path) -> Path:
    """The preprocessed folder of the tiny dataset, with its fingerprint."""
    SRSegFingerprintExtractor(901, 1).run()
    return nnunet_folders / "nnUNet_preprocessed/Dataset901_Tiny"


def test_plans_of_the_tiny_dataset(tiny: Path, capsys: pytest.CaptureFixture[str]):
    plans = SRSegPlanner(901).plan_experiment()
    assert plans == json.loads((tiny / "srsegPlans.json").read_text())
    assert list(plans["configurations"]) == ["3d_fullres", "3d_patchfree", "2d"]
    assert capsys.readouterr().out == ""  # nnU-Net prints its plans; ours go to the log
    cm = load_plans(tiny / "srsegPlans.json").get_configuration("3d_fullres")
    assert cm.scale == (1, 2, 2)
    assert (tiny / "dataset.json").is_file()
    assert {path.suffix for path in tiny.iterdir()} == {".json"}


def test_network_of_the_plans_can_be_built(tiny: Path):
    manager = SRSegPlansManager(SRSegPlanner(901).plan_experiment())
    for name in manager.available_configurations:
        cm = manager.get_configuration(name)
        network = build_network(cm.configuration["architecture"], 1, 3, device="meta")
        assert tuple(network.scale) == cm.scale


def test_resampling_is_ours(tiny: Path):
    cm = SRSegPlansManager(SRSegPlanner(901).plan_experiment()).get_configuration("2d")
    image = np.random.default_rng(0).standard_normal((1, 5, 8, 7)).astype(np.float32)
    assert cm.resampling_fn_data(image, (5, 4, 14), (3, 1, 1), (3, 2, 0.5)).shape == (1, 5, 4, 14)


def test_user_scale_is_in_the_readers_order(nnunet_folders: Path):
    manager = golden("isotropic_mr", nnunet_folders, scale=(1, 1, 4))
    assert manager.transpose_forward == [2, 0, 1]
    cm = manager.get_configuration("3d_fullres")
    assert cm.scale == (4, 1, 1)
    assert manager.native(cm.scale) == (1, 1, 4)
    assert [axis["operator"] for axis in cm.degradation["axes"]] == [
        "slice_gauss",
        "identity",
        "identity",
    ]
    assert cm.degradation["axes"][0]["options"] == {"thickness_mm": 4.0}
    assert "2d" not in manager.available_configurations


def test_all_ones_only_by_wish(nnunet_folders: Path):
    manager = golden("cine_10mm", nnunet_folders, scale=(1, 1, 1))
    cm = manager.get_configuration("3d_fullres")
    assert cm.scale == (1, 1, 1)
    assert cm.spacing == cm.hr_spacing
    assert "2d" in manager.available_configurations


def test_lr_spacing(nnunet_folders: Path):
    manager = golden("isotropic_mr", nnunet_folders, lr_spacing=(3.2, 1.6, 0.9))
    cm = manager.get_configuration("3d_fullres")
    assert manager.native(cm.scale) == (3, 2, 1)
    assert manager.native(cm.spacing) == pytest.approx((3.2, 1.6, 0.9))
    assert manager.native(cm.hr_spacing) == pytest.approx((3.2 / 3, 0.8, 0.9))


def test_target_spacing_is_the_hr_grid(nnunet_folders: Path):
    manager = golden("thick_slice_ct", nnunet_folders, overwrite_target_spacing=(4, 1.0, 1.1))
    cm = manager.get_configuration("3d_fullres")
    assert manager.native(cm.hr_spacing) == (4.0, 1.0, 1.1)
    assert manager.native(cm.spacing) == (4.0, 2.0, 2.2)
    oracle = json.loads(
        (nnunet_folders / "nnUNet_preprocessed/Dataset901_Golden/srsegOraclePlans.json").read_text()
    )
    assert oracle["configurations"]["3d_fullres"]["spacing"] == [4.0, 1.0, 1.1]


def test_less_memory_gives_a_smaller_patch(nnunet_folders: Path):
    usual = load_plans(GOLDEN / "isotropic_mr/srsegPlans.json").get_configuration("3d_fullres")
    manager = golden("isotropic_mr", nnunet_folders, gpu_memory_target_in_gb=3)
    cm = manager.get_configuration("3d_fullres")
    assert manager.available_configurations == ["3d_fullres"]
    assert np.prod(cm.patch_size) < np.prod(usual.patch_size)
    assert "times the memory target" in cm.rationale["patch_free"]
    assert manager.plans["gpu_memory_target_gb"] == 3


def test_more_memory_raises_the_scale_until_volumes_fit_as_a_whole(nnunet_folders: Path):
    manager = golden("thick_slice_ct", nnunet_folders, gpu_memory_target_in_gb=15)
    cm = manager.get_configuration("3d_fullres")
    assert manager.native(cm.scale) == (1, 4, 3)
    assert "raised from 1 x 2 x 2" in cm.rationale["scale"]


def test_hr_width_shrinks_where_the_hr_stage_would_leave_a_small_patch(nnunet_folders: Path):
    cm = golden("thin_slice_ct", nnunet_folders, scale=(4, 4, 4)).get_configuration("3d_fullres")
    assert cm.network_arch_init_kwargs["hr_width"] < 16
    assert "instead of 16" in cm.rationale["hr_width"]


def test_hr_width_stays_where_the_whole_volume_is_seen_anyway(nnunet_folders: Path):
    cm = golden("hippocampus", nnunet_folders, scale=(3, 3, 3)).get_configuration("3d_fullres")
    assert cm.network_arch_init_kwargs["hr_width"] == 16


def test_slices_are_planned_as_slices_only_if_they_are_not_refined(nnunet_folders: Path):
    manager = golden("thin_slice_ct", nnunet_folders)
    assert "2d" not in manager.available_configurations


def test_two_d_data_has_one_configuration(nnunet_folders: Path):
    manager = golden("two_d", nnunet_folders)
    assert manager.available_configurations == ["2d"]
    assert manager.get_configuration("2d").scale_3d == (1, 2, 2)


def test_own_configurations_stay_and_stale_ones_go(tiny: Path):
    SRSegPlanner(901).plan_experiment()
    file = tiny / "srsegPlans.json"
    plans = json.loads(file.read_text())
    mine = {"inherits_from": "3d_fullres", "batch_size": 5}
    plans["configurations"] |= {"mine": mine}
    file.write_text(json.dumps(plans))
    plans = SRSegPlanner(901, scale=(2, 1, 1)).plan_experiment()
    assert list(plans["configurations"]) == ["3d_fullres", "3d_patchfree", "mine"]
    assert plans["configurations"]["mine"] == mine


def test_other_plans_name(tiny: Path):
    plans = SRSegPlanner(901, plans_name="thickPlans").plan_experiment()
    assert plans["plans_name"] == "thickPlans"
    assert plans["configurations"]["3d_fullres"]["data_identifier"] == "thickPlans_3d_fullres"
    assert (tiny / "thickOraclePlans.json").is_file()
    assert not (tiny / "srsegPlans.json").exists()


def test_pairs(tiny_copy: Path, nnunet_folders: Path):
    folder = tiny_copy / "imagesLrTr"
    folder.mkdir()
    for file in (tiny_copy / "imagesTr").iterdir():
        image, affine = read_volume(file)
        save_volume(
            image[:, ::3, ::2].copy(), folder / file.name, affine @ np.diag((2.0, 3.0, 1.0, 1.0))
        )
    SRSegFingerprintExtractor(901, 1).run()
    manager = SRSegPlansManager(SRSegPlanner(901).plan_experiment())
    cm = manager.get_configuration("3d_fullres")
    assert cm.scale == (1, 3, 2)
    assert cm.spacing == pytest.approx([3.0, 2.7, 1.6])
    assert DegradationSpec.from_json(cm.degradation).paired
    assert "pairs" in cm.rationale["scale"]
    assert "real" in cm.rationale["degradation"]


def test_nnunets_words_go_to_the_log(tiny: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG):
        SRSegPlanner(901).plan_experiment()
    assert "nnU-Net: 2D U-Net configuration" in caplog.text


def test_numbers_of_cases_are_counted(tiny_copy: Path, tiny: Path):
    oracle = tiny / "srsegOraclePlans.json"
    planned, planned_oracle = SRSegPlanner(901).plan_experiment(), oracle.read_text()
    change_json(tiny_copy, numTraining=1000)
    assert SRSegPlanner(901).plan_experiment() == planned
    assert oracle.read_text() == planned_oracle


def test_splits_come_along_and_may_not_differ(tiny_copy: Path, tiny: Path):
    splits = [{"train": ["tiny_0", "tiny_1"], "val": ["tiny_2"]}]
    (tiny_copy / "splits_final.json").write_text(json.dumps(splits))
    SRSegPlanner(901)
    assert json.loads((tiny / "splits_final.json").read_text()) == splits
    (tiny_copy / "splits_final.json").write_text(json.dumps([{"train": [], "val": ["tiny_2"]}]))
    with pytest.raises(ValueError, match=r"splits_final\.json in .* differ"):
        SRSegPlanner(901)


def test_fingerprint_is_missing(tiny_copy: Path):
    with pytest.raises(FileNotFoundError, match="run srseg_extract_fingerprint"):
        SRSegPlanner(901)


@pytest.mark.parametrize(
    ("block", "words"), [({}, "nnU-Net's own"), ({"srseg": {"version": 0}}, "of version 0")]
)
def test_fingerprint_of_another_version(tiny_copy: Path, nnunet_folders: Path, block, words):
    folder = nnunet_folders / "nnUNet_preprocessed/Dataset901_Tiny"
    folder.mkdir()
    (folder / "dataset_fingerprint.json").write_text(json.dumps(block))
    with pytest.raises(ValueError, match=f"{words}, this srseg needs version 1"):
        SRSegPlanner(901)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"scale": (9, 1, 1)}, r"case tiny_0: the image of 7x.* smaller than the scale 9x1x1"),
        ({"scale": (1, 2)}, "three whole numbers"),
        ({"lr_spacing": (0, 1, 1)}, "three spacings in mm above 0"),
        ({"gpu_memory_target_in_gb": 0}, "must be above 0 GB"),
        ({"gpu_memory_target_in_gb": 1e-6}, "not even a patch of 4 LR voxels fits into 1e-06 GB"),
        ({"plans_name": "a__b"}, "'a__b' cannot be the name of plans"),
        ({"plans_name": "../x"}, "cannot be the name of plans"),
        ({"plans_name": "lans_naem=x"}, "cannot be the name of plans"),
        ({"plans_name": "srsegOraclePlans"}, "OraclePlans are written beside"),
    ],
)
def test_wishes_that_cannot_be_met(tiny: Path, wishes, message):
    with pytest.raises(ValueError, match=message):
        SRSegPlanner(901, **wishes).plan_experiment()
    assert sorted(path.name for path in tiny.iterdir())[-1] == "dataset_fingerprint.json"


def test_golden_files_are_there():
    assert len(list(GOLDEN.glob("*/srsegPlans.json"))) == 7
