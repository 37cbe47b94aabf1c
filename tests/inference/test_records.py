"""Weights are read with what they were trained with, whatever the folder's files say by now."""

import json

import numpy as np
import pytest
import torch

from srseg.inference.model_folder import open_model
from srseg.inference.predictor import Predictor
from tests.inference.model_folders import rewrite_record, write_model

CONFIGURATION = "3d_fullres"


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def retrained(folder, **changes):
    """Rewrite plans.json as a later training with other plans does when it begins."""
    plans = read(folder, "plans.json")
    plans["configurations"][CONFIGURATION] |= changes
    write(folder, "plans.json", plans)
    return plans


def predicted(folder):
    image = np.random.default_rng(0).normal(size=(1, 5, 9, 7)).astype(np.float32)
    predictor = Predictor.from_model_folder(folder, device="cpu")
    return predictor.predict(image, (4.0, 0.75, 0.5)).segmentation


def test_a_retraining_that_was_killed_changes_no_prediction(tmp_path, caplog):
    folder = write_model(tmp_path)
    before = predicted(folder)
    assert not caplog.records
    retrained(folder, spacing=[8.0, 1.5, 1.0], hr_spacing=[8.0, 0.75, 0.5], rationale={"a": "b"})
    write(folder, "method.json", {"name": "New"})
    assert np.array_equal(predicted(folder), before)
    (record,) = caplog.records
    message = record.getMessage()
    assert record.levelname == "WARNING"
    assert "the checkpoint's own are used" in message
    assert "(plans.configurations.3d_fullres.hr_spacing, plans.conf" in message
    assert "rationale" not in message
    assert str(folder) in message
    assert "\n" not in message
    model = open_model(folder)
    assert model.configuration_manager.spacing == [4.0, 0.75, 0.5]
    assert model.method["name"] == "SRSegTrainer"


def test_words_and_tuples_are_no_difference(tmp_path, caplog):
    folder = write_model(tmp_path)
    plans = retrained(folder, rationale={"scale": "because"}, batch_size=9)
    plans["transpose_forward"] = tuple(plans["transpose_forward"])
    rewrite_record(folder, plans=plans)
    open_model(folder)
    assert not caplog.records


def test_labels_and_channels_are_the_checkpoints_and_the_file_ending_the_folders(tmp_path, caplog):
    folder = write_model(tmp_path)
    labels = {"background": 0, "other": 1}
    later = {**read(folder, "dataset.json"), "labels": labels, "regions_class_order": [1]}
    write(folder, "dataset.json", {**later, "file_ending": ".nrrd", "numTraining": 7})
    dataset_json = open_model(folder).dataset_json
    assert dataset_json["labels"] == {"background": 0, "organ": 1}
    assert "regions_class_order" not in dataset_json
    assert (dataset_json["file_ending"], dataset_json["numTraining"]) == (".nrrd", 7)
    names = "dataset.labels.organ, dataset.labels.other, dataset.regions_class_order differ"
    assert names in caplog.text


def test_many_differences_are_not_all_listed(tmp_path, caplog):
    folder = write_model(tmp_path)
    retrained(folder, **{f"key{number}": number for number in range(7)})
    open_model(folder)
    assert "3d_fullres.key3 and 3 more differ" in caplog.text


def test_folds_of_different_plans_make_no_ensemble(tmp_path):
    folder = write_model(tmp_path, folds=(0, 1, 2))
    rewrite_record(folder, fold=2, plans=retrained(folder, spacing=[8.0, 1.5, 1.0]))
    with pytest.raises(ValueError, match=r"folds 0 and 2 of .*\(plans\.conf.*spacing\), so they"):
        open_model(folder)
    assert open_model(folder, [0, 1]).configuration_manager.spacing == [4.0, 0.75, 0.5]
    assert open_model(folder, [2]).configuration_manager.spacing == [8.0, 1.5, 1.0]
    rewrite_record(folder, fold=0, plans=None)  # then it has those of plans.json
    with pytest.raises(ValueError, match="folds 0 and 1 of .* different plans"):
        open_model(folder)


def test_folds_of_different_labels_make_no_ensemble(tmp_path):
    folder = write_model(tmp_path, folds=(0, 1))
    labels = {**read(folder, "dataset.json"), "labels": {"background": 0, "other": 1}}
    rewrite_record(folder, fold=1, dataset_json=labels)
    with pytest.raises(ValueError, match=r"folds 0 and 1 .*dataset\.labels\.organ"):
        open_model(folder)


def test_a_checkpoint_without_a_record_has_the_folders_plans(tmp_path, caplog):
    folder = write_model(tmp_path)
    file = folder / "fold_0/checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=True)
    del checkpoint["init_args"], checkpoint["srseg"]
    torch.save(checkpoint, file)
    assert open_model(folder).configuration_manager.scale == (1, 2, 2)
    plans = read(folder, "plans.json")
    plans["configurations"]["2d"] = {"inherits_from": CONFIGURATION}
    write(folder, "plans.json", plans)
    assert open_model(folder).configuration_manager.scale == (1, 2, 2)  # by the folder's name
    unnamed = folder.rename(folder.with_name("model"))
    with pytest.raises(ValueError, match="do not say which configuration .*: 3d_fullres, 2d;"):
        open_model(unnamed)
    assert not caplog.records


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"plans": ["3d_fullres"]}, "records plans or labels that are no object"),
        ({"plans": {"weights": torch.zeros(1)}}, "must be plain JSON values"),
    ],
)
def test_a_record_that_is_no_plans_is_refused(tmp_path, record, message):
    folder = write_model(tmp_path)
    rewrite_record(folder, **record)
    with pytest.raises(ValueError, match=message):
        open_model(folder)
