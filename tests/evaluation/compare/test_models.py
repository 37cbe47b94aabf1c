"""What a model folder says of itself, and which models have no common truth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from srseg.evaluation.compare.models import (
    Model,
    check_models,
    read_model,
    times,
    trained_names,
)
from tests.evaluation.compare.model_folders import write_model
from tests.tiny_dataset import TINY_NAME

WHICH = {"plans": "srsegPlans", "configuration": "3d_fullres", "checkpoint_name": "c.pth"}


def test_trained_folds_are_found(tmp_path):
    for name, file in (
        ("B__srsegPlans__3d_fullres", "fold_0/c.pth"),
        ("A__srsegPlans__3d_fullres", "fold_0/c.pth"),
        ("C__srsegPlans__3d_fullres", "fold_1/c.pth"),
        ("D__other__3d_fullres", "fold_0/c.pth"),
        ("E__srsegPlans__2d", "fold_0/c.pth"),
    ):
        (tmp_path / name / file).parent.mkdir(parents=True)
        (tmp_path / name / file).touch()
        (tmp_path / name / "method.json").touch()
    (tmp_path / "A__srsegPlans__3d_fullres" / "fold_0" / "other.pth").touch()
    assert trained_names(tmp_path, fold=0, **WHICH) == ["A", "B"]
    assert trained_names(tmp_path, fold="1", **WHICH) == ["C"]
    assert trained_names(tmp_path / "none", fold=0, **WHICH) == []


def test_per_axis_values_as_text():
    assert times((1, 2, 2)) == "1x2x2"
    assert times((3.0, 0.8999999761581421, 0.8)) == "3x0.9x0.8"


@pytest.fixture(scope="module")
def model(models_root) -> Model:
    folder = models_root / "nnUNet_results" / TINY_NAME / "oracle__srsegPlans__3d_fullres"
    return read_model(folder, 0, "checkpoint_final.pth")


def test_a_model_that_reads_hr_keeps_the_grids_of_the_plans(model):
    assert model.name == "oracle"
    assert model.facts.reads == "hr"
    assert model.facts.scale == "1x2x2"
    assert len(model.facts.checkpoint) == 12
    assert model.checkpoint.is_file()


def test_models_without_common_truth_are_refused(model):
    check_models([model, replace(model, name="other")])
    for changes, message in (
        (
            {"facts": replace(model.facts, scale="1x4x4")},
            "oracle and other have different HR grids",
        ),
        (
            {"dataset_json": {**model.dataset_json, "labels": {"background": 0, "all": 1}}},
            "oracle and other have different labels: .*left.* and .*all",
        ),
        (
            {"dataset_json": {**model.dataset_json, "channel_names": {"0": "CT"}}},
            "different channel names",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            check_models([model, replace(model, name="other", **changes)])


def test_another_degradation_is_refused(folders, tmp_path, model):
    degradation = {**model.configuration_manager.degradation}
    degradation["axes"] = [{"operator": "area", "options": {}}] * 3
    (tmp_path / "nnUNet_preprocessed").symlink_to(folders / "nnUNet_preprocessed")
    folder = write_model(tmp_path, "other", plans={"degradation": degradation})
    other = read_model(folder, 0, "checkpoint_final.pth")
    with pytest.raises(ValueError, match="oracle and other were trained for different degradation"):
        check_models([model, other])
