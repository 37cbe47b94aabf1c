"""Opening a model folder: what is found, what is refused, and that nothing in it is run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from srseg.inference.model_folder import find_model, load_checkpoint, open_model
from srseg.inference.predictor import Predictor
from tests.inference.model_folders import rewrite_record, write_model


class Malicious:
    """Unpickling it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_stock_checkpoint_with_numpy_scalars_loads(tmp_path):
    content = {
        "network_weights": {"w": torch.arange(3.0)},
        "_best_ema": np.float64(0.5),
        "logging": {"lrs": [np.float32(0.1), np.int64(3), np.bool_(True)]},
        "init_args": {"configuration": "3d_fullres", "device": torch.device("cuda")},
    }
    torch.save(content, tmp_path / "checkpoint.pth")
    loaded = load_checkpoint(tmp_path / "checkpoint.pth")
    torch.testing.assert_close(loaded["network_weights"]["w"], torch.arange(3.0))
    assert loaded["_best_ema"] == 0.5
    assert loaded["logging"]["lrs"][1] == 3


def test_a_checkpoint_never_runs_code(tmp_path):
    made = tmp_path / "made"
    torch.save({"network_weights": {}, "extra": Malicious(made)}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="could run code"):
        load_checkpoint(tmp_path / "evil.pth")
    assert not made.exists()


@pytest.mark.parametrize("where", ["checkpoint", "plans.json"])
def test_a_network_outside_the_allow_list_is_refused(tmp_path, where):
    folder = write_model(tmp_path)
    plans = json.loads((folder / "plans.json").read_text())
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["network_class_name"] = "os.system"
    if where == "checkpoint":
        rewrite_record(folder, plans=plans)
    else:
        rewrite_record(folder, plans=None)
        (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ValueError, match="not allowed"):
        Predictor.from_model_folder(folder, device="cpu")


@pytest.mark.parametrize("damage", ["empty", "truncated", "text"])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    file = write_model(tmp_path) / "fold_0/checkpoint_final.pth"
    content = {"empty": b"", "truncated": file.read_bytes()[:1000], "text": b"hello"}[damage]
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"fold_0.checkpoint_final\.pth is damaged"):
        load_checkpoint(file)


def test_a_file_without_weights_is_refused(tmp_path):
    torch.save({"weights": 1}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no network_weights"):
        load_checkpoint(tmp_path / "other.pth")
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "absent.pth")


def test_a_model_is_rebuilt_from_its_folder_alone(tmp_path):
    folder = write_model(tmp_path, folds=(0, 2))
    model = open_model(folder)
    assert model.folds == (0, 2)
    assert model.mirroring_axes == (0, 1, 2)
    assert model.configuration_manager.scale == (1, 2, 2)
    assert model.method["name"] == "SRSegTrainer"
    assert not any(isinstance(value, nn.Module) for value in vars(model).values())


def test_folds_are_those_asked_for(tmp_path):
    folder = write_model(tmp_path, folds=(0, 2, "all"))
    assert open_model(folder).folds == (0, 2)
    assert open_model(folder, ["2"]).folds == (2,)
    assert open_model(folder, ["all"]).folds == ("all",)
    assert open_model(write_model(tmp_path / "other", folds=("all",))).folds == ("all",)


@pytest.mark.parametrize(("folds", "checkpoint"), [([1], "final"), (None, "best")])
def test_missing_folds_and_checkpoints_list_what_there_is(tmp_path, folds, checkpoint):
    folder = write_model(tmp_path, folds=(0, 2))
    with pytest.raises(FileNotFoundError, match=r"there is: fold_0/checkpoint_final.*fold_2/"):
        open_model(folder, folds, checkpoint_name=f"checkpoint_{checkpoint}.pth")


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        open_model(tmp_path / "absent")
    folder = write_model(tmp_path)
    (folder / "method.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks method\.json"):
        open_model(folder)


def test_folds_of_different_configurations_are_refused(tmp_path):
    folder = write_model(tmp_path, folds=(0, 1))
    rewrite_record(folder, fold=1, configuration="2d")
    with pytest.raises(ValueError, match="different configurations"):
        open_model(folder)


def test_weights_of_another_network_are_refused(tmp_path):
    folder = write_model(tmp_path)
    file = folder / "fold_0/checkpoint_final.pth"
    checkpoint = load_checkpoint(file)
    checkpoint["network_weights"].popitem()
    torch.save(checkpoint, file)
    with pytest.raises(ValueError, match="weights of fold 0 .* do not fit"):
        Predictor.from_model_folder(folder, device="cpu")


class TestFindModel:
    def test_the_one_model_there_is(self, tmp_path):
        folder = write_model(tmp_path)
        assert find_model(tmp_path) == folder
        assert find_model(tmp_path, dataset=901, configuration="3d_fullres") == folder
        assert find_model(tmp_path, dataset="Dataset901_Tiny", method="SRSegTrainer") == folder

    def test_stock_models_do_not_count(self, tmp_path):
        folder = write_model(tmp_path)
        stock = folder.with_name("nnUNetTrainer__nnUNetPlans__3d_fullres")
        (stock / "fold_0").mkdir(parents=True)
        (stock / "plans.json").write_text("{}")
        assert find_model(tmp_path) == folder

    def test_models_begun_and_never_saved_do_not_count(self, tmp_path):
        folder = write_model(tmp_path)
        begun = write_model(tmp_path, name="Begun__srsegPlans__3d_fullres")
        (begun / "fold_0/checkpoint_final.pth").unlink()
        assert find_model(tmp_path) == folder
        with pytest.raises(FileNotFoundError, match="no trained model for -tr Begun"):
            find_model(tmp_path, method="Begun")

    def test_several_are_listed(self, tmp_path):
        write_model(tmp_path)
        write_model(tmp_path, name="Mine__srsegPlans__3d_fullres")
        with pytest.raises(ValueError, match=r"2 trained models .*Mine__.*; .*SRSegTrainer__"):
            find_model(tmp_path)
        assert find_model(tmp_path, method="Mine").name.startswith("Mine")

    def test_none_says_what_was_searched(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=f"no trained model in {tmp_path}.*none"):
            find_model(tmp_path)
        write_model(tmp_path)
        with pytest.raises(FileNotFoundError, match=r"for -c 2d in .*Dataset901_Tiny/SRSegTrainer"):
            find_model(tmp_path, configuration="2d")

    def test_an_unknown_dataset_lists_the_known_ones(self, tmp_path):
        write_model(tmp_path)
        with pytest.raises(ValueError, match=r"unknown dataset '5'.*Dataset901_Tiny"):
            find_model(tmp_path, dataset=5)
