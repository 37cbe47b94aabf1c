"""A method laid over plans: its network in place, its memory inside the planned one."""

from pathlib import Path

import pytest
from batchgenerators.utilities.file_and_folder_operations import load_json

from srseg.planning.memory_model import MemoryModel
from srseg.plans.managers import load_plans
from srseg.training.merge import merged_plans
from srseg.training.method import load_method, method_from_json


@pytest.fixture
def plans(trained_folders):
    folder: Path = next((trained_folders / "nnUNet_preprocessed").iterdir())
    return load_plans(folder / "srsegPlans.json"), load_json(str(folder / "dataset.json"))


def method_with(**arch_kwargs):
    content = load_method("SRSegTrainer").to_json()
    return method_from_json({**content, "network": {"arch_kwargs": arch_kwargs}})


def test_the_default_method_changes_nothing(plans):
    manager, dataset_json = plans
    before = manager.get_configuration("3d_fullres").configuration
    merged = merged_plans(manager, "3d_fullres", load_method("SRSegTrainer"), dataset_json)
    assert merged["configurations"]["3d_fullres"] == before


def test_a_wider_network_gets_a_smaller_batch_within_the_budget(plans):
    manager, dataset_json = plans
    planned = manager.get_configuration("3d_fullres").configuration
    merged = merged_plans(manager, "3d_fullres", method_with(hr_width=64), dataset_json)
    configuration = merged["configurations"]["3d_fullres"]

    def elements(c):
        return c["batch_size"] * MemoryModel(1, 3).elements(c["architecture"], c["patch_size"])

    assert configuration["batch_size"] < planned["batch_size"]
    assert elements(configuration) <= elements(planned)
    assert "batch" in configuration["rationale"]["method"]


def test_the_planned_plans_stay_as_they_are(plans):
    manager, dataset_json = plans
    merged_plans(manager, "3d_fullres", method_with(hr_width=64), dataset_json)
    kwargs = manager.get_configuration("3d_fullres").configuration["architecture"]["arch_kwargs"]
    assert kwargs["hr_width"] != 64


def test_an_sr_loss_needs_an_sr_head(plans):
    manager, dataset_json = plans
    with pytest.raises(ValueError, match="no SR head"):
        merged_plans(manager, "3d_fullres", method_with(sr_head=False), dataset_json)


def test_an_unknown_option_is_named(plans):
    manager, dataset_json = plans
    with pytest.raises(ValueError, match="hr_widht"):
        merged_plans(manager, "3d_fullres", method_with(hr_widht=8), dataset_json)
