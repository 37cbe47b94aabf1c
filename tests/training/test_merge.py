"""A method laid over plans: its network in place, its memory inside the planned one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json

from srseg.networks.build import build_network
from srseg.planning.memory_model import MemoryModel
from srseg.plans.managers import SRSegPlansManager, load_plans
from srseg.training.merge import merged_plans
from srseg.training.method import load_method, method_from_json
from srseg.training.topology import hr_topology


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


def test_slices_as_channels_are_as_many_as_the_planned_patch_has(plans):
    manager, dataset_json = plans
    class_name = "srseg.networks.slices_as_channels.SlicesAsChannels"
    content = load_method("SRSegTrainer").to_json()
    method = method_from_json({**content, "network": {"network_class_name": class_name}})
    merged = merged_plans(manager, "3d_fullres", method, dataset_json)
    kwargs = merged["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    assert kwargs["num_slices"] == manager.get_configuration("3d_fullres").patch_size[0]


def hr_method(**changes):
    content = load_method("SRSegTrainer").to_json()
    content |= {"input": "hr", "losses": {"dice_ce": {"weight": 1.0}}, **changes}
    return method_from_json(content)


def test_a_method_that_reads_hr_images_gets_the_trunk_on_their_grid(plans):
    manager, dataset_json = plans
    planned = manager.get_configuration("3d_fullres")
    plans_dict = merged_plans(manager, "3d_fullres", hr_method(), dataset_json)
    merged = SRSegPlansManager(plans_dict).get_configuration("3d_fullres")
    assert (merged.input, merged.scale) == ("hr", planned.scale)
    kwargs = merged.configuration["architecture"]["arch_kwargs"]
    before = planned.configuration["architecture"]["arch_kwargs"]
    assert kwargs["n_stages"] == before["n_stages"] + 1
    assert kwargs["strides"] == [[1, 1, 1], list(planned.scale), *before["strides"][1:]]
    assert kwargs["features_per_stage"][0] == before["features_per_stage"][0]
    assert (kwargs["scale"], kwargs["sr_head"]) == ([1, 1, 1], False)

    read = merged.as_read()
    assert read.scale == (1, 1, 1)
    assert tuple(read.patch_size) == merged.hr_patch_size
    assert list(read.spacing) == merged.hr_spacing
    network = build_network(merged.configuration["architecture"], 1, 3)
    image = torch.zeros(1, 1, *read.patch_size)
    assert network(image).seg[0].shape == (1, 3, *merged.hr_patch_size)


def test_a_configuration_that_reads_lr_images_is_read_as_it_is(plans):
    manager = plans[0].get_configuration("3d_fullres")
    assert manager.input == "lr"
    assert manager.as_read() is manager


@pytest.mark.parametrize("scale", [(2, 2, 2), (1, 2, 2), (3, 1, 1)])
def test_every_lr_patch_fits_the_hr_topology(scale):
    lr = {
        "n_stages": 3, "features_per_stage": [32, 64, 128], "n_conv_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2], "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    }  # fmt: skip
    hr = hr_topology(lr, scale, (3.0, 1.4, 1.4))
    assert hr["n_stages"] == 4 == len(hr["strides"]) == len(hr["kernel_sizes"])
    assert hr["features_per_stage"] == [32, 64, 128, 256]
    assert hr["kernel_sizes"][0] == [1, 3, 3]
    below = np.prod(lr["strides"], axis=0) * scale
    assert np.prod(hr["strides"], axis=0).tolist() == below.tolist()
    assert len(hr["n_conv_per_stage_decoder"]) == 3


def test_no_refinement_needs_no_other_topology():
    assert hr_topology({"n_stages": 3}, (1, 1, 1), (1.0, 1.0, 1.0)) == {"n_stages": 3}


def test_a_shrunk_patch_is_predicted_in_tiles(plans):
    """An untiled prediction would normalise over more than the network was trained on."""
    manager, dataset_json = plans
    configuration = manager.plans["configurations"]["3d_fullres"]
    before = dict(configuration)
    configuration |= {"patch_free": True, "batch_size": 1}
    try:
        merged = merged_plans(manager, "3d_fullres", method_with(hr_width=96), dataset_json)
    finally:
        configuration |= before
    entry = merged["configurations"]["3d_fullres"]
    assert entry["patch_size"] != before["patch_size"]
    assert entry["patch_free"] is False
