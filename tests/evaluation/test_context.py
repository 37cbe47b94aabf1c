"""What is known of a folder of predictions, and where it is found."""

from __future__ import annotations

import shutil

import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from srseg.evaluation.context import find_context
from tests.evaluation.prediction_folders import (
    DATASET_JSON,
    plans_of,
    write_folders,
    write_json,
)
from tests.preprocessing.hand_plans import spec_json

RECORD = "predict_from_raw_data_args.json"


@pytest.fixture
def folders(tmp_path):
    return write_folders(tmp_path)


def two_configurations() -> dict:
    plans = plans_of()
    planar = plans_of(degradation=spec_json("identity", "area", "area"))
    plans["configurations"]["2d"] = {
        **planar["configurations"]["3d_fullres"],
        "scale": [2, 2],
        "hr_spacing": [0.75, 0.8],
    }
    return plans


def test_everything_stands_in_the_folder(folders):
    context = find_context(folders.out, folders.labels)
    assert context.scale == (1, 2, 2)
    assert context.labels == [1, 2, 3]
    assert context.label_names == {1: "near", 2: "far", 3: "never"}
    assert context.ignore_label is None
    assert context.can_degrade
    assert type(context.reader_writer) is SimpleITKIO
    assert context.file_ending == ".nii.gz"
    assert context.recorded_input is None


def test_named_files_come_first(folders, tmp_path):
    write_json(plans_of(reader="NibabelIO"), tmp_path / "other.json")
    write_json({**DATASET_JSON, "labels": {"background": 0, "one": 1}}, tmp_path / "labels.json")
    context = find_context(
        folders.out,
        folders.labels,
        plans_file=tmp_path / "other.json",
        dataset_json_file=tmp_path / "labels.json",
    )
    assert type(context.reader_writer) is NibabelIO
    assert context.labels == [1]


def test_validation_folders_take_the_model_s_files(folders):
    model = folders.root / "SRSegTrainer__srsegPlans__3d_fullres"
    validation = model / "fold_0" / "validation"
    shutil.copytree(folders.out, validation)
    for name in ("plans.json", "dataset.json"):
        (validation / name).rename(model / name)
    assert find_context(validation, folders.labels).scale == (1, 2, 2)


def test_dataset_json_beside_the_references(folders):
    (folders.out / "dataset.json").rename(folders.root / "dataset.json")
    assert find_context(folders.out, folders.labels).labels == [1, 2, 3]
    (folders.root / "dataset.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no dataset.json in .*out or beside .*; name it by"
    ):
        find_context(folders.out, folders.labels)


def test_the_configuration_predicted_with(folders):
    write_json(two_configurations(), folders.out / "plans.json")
    with pytest.raises(
        ValueError, match=r"do not say which configuration .*; known: 3d_fullres, 2d"
    ):
        find_context(folders.out, folders.labels)
    chosen = find_context(folders.out, folders.labels, configuration="2d")
    assert chosen.configuration_manager.scale == (2, 2)
    assert chosen.scale == (1, 2, 2)
    write_json({"model_folder": "/models/M__srsegPlans__2d"}, folders.out / RECORD)
    assert find_context(folders.out, folders.labels).configuration_manager.scale == (2, 2)
    with pytest.raises(ValueError, match=r"unknown configuration 'x' .*known: 3d_fullres, 2d"):
        find_context(folders.out, folders.labels, configuration="x")


def test_the_recorded_input(folders):
    write_json({"inputs": str(folders.lr_images)}, folders.out / RECORD)
    assert find_context(folders.out, folders.labels).recorded_input == folders.lr_images
    for gone in ("/nowhere/at/all", [["a_0000.nii.gz"]], None):
        write_json({"inputs": gone}, folders.out / RECORD)
        assert find_context(folders.out, folders.labels).recorded_input is None


def test_stock_plans_are_no_plans_unless_named(folders):
    plans = plans_of()
    del plans["configurations"]["3d_fullres"]["scale"]
    write_json(plans, folders.out / "plans.json")
    context = find_context(folders.out, folders.labels)
    assert context.scale is None
    assert not context.can_degrade
    with pytest.raises(ValueError, match="lacks scale: these are not srseg plans"):
        find_context(folders.out, folders.labels, plans_file=folders.out / "plans.json")


@pytest.mark.parametrize("which", ["plans_file", "dataset_json_file"])
def test_named_files_must_exist(folders, which):
    with pytest.raises(FileNotFoundError, match=r"the file '.*nowhere.json' does not exist"):
        find_context(folders.out, folders.labels, **{which: folders.root / "nowhere.json"})


def test_broken_json_is_named(folders):
    (folders.out / "dataset.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"'.*dataset.json' is not valid JSON"):
        find_context(folders.out, folders.labels)
