"""`3d_patchfree` is offered exactly where the largest case fits."""

from __future__ import annotations

import numpy as np
import pytest

from srseg.planning.architecture import whole_volume_architecture
from srseg.planning.memory_model import MemoryModel
from srseg.planning.patch_free import patch_free_configuration, whole_volume_patch

LR_SHAPES = np.array([[9, 30, 20], [11, 26, 25], [10, 28, 22]])


@pytest.fixture(scope="module")
def fullres() -> dict:
    architecture, _ = whole_volume_architecture((3.0, 1.0, 1.2), (10, 28, 22), (1, 2, 2))
    return {"architecture": architecture, "rationale": {"scale": "because."}}


def memory_for(fullres: dict, num_samples: float, num_cases: int = 3) -> MemoryModel:
    shapes = LR_SHAPES[np.arange(num_cases) % 3]
    patch = whole_volume_patch(shapes, fullres["architecture"]["arch_kwargs"]["strides"])
    unit = MemoryModel(1, 3, 8)
    needed = unit.elements(fullres["architecture"], patch)
    return MemoryModel(1, 3, 8 * num_samples * needed / unit.budget(3))


def test_patch_holds_every_case_and_is_divided_by_the_strides():
    assert whole_volume_patch(LR_SHAPES, [[1, 1, 1], [1, 2, 2], [2, 2, 2]]) == (12, 32, 28)


def test_offered_where_the_largest_case_fits(fullres: dict):
    configuration, reason = patch_free_configuration(fullres, LR_SHAPES, memory_for(fullres, 1.05))
    strides = fullres["architecture"]["arch_kwargs"]["strides"]
    assert configuration["patch_size"] == list(whole_volume_patch(LR_SHAPES, strides))
    assert configuration["batch_size"] == 1
    assert configuration["patch_free"] is True
    assert configuration["inherits_from"] == "3d_fullres"
    assert configuration["rationale"]["scale"] == "because."
    assert configuration["rationale"]["patch_free"] == reason
    assert "11 x 30 x 25" in reason


def test_not_offered_where_it_does_not(fullres: dict):
    configuration, reason = patch_free_configuration(fullres, LR_SHAPES, memory_for(fullres, 0.5))
    assert configuration is None
    assert "would take 2.0 times the memory target" in reason


def test_batch_is_two_where_memory_allows_and_grows_with_the_dataset(fullres: dict):
    memory = memory_for(fullres, 10.5)
    few, _ = patch_free_configuration(fullres, LR_SHAPES, memory)
    assert few["batch_size"] == 2
    many, _ = patch_free_configuration(fullres, LR_SHAPES[np.arange(120) % 3], memory)
    assert 2 < many["batch_size"] <= 6  # 5 % of 120 cases that are smaller than the patch
    huge, _ = patch_free_configuration(fullres, LR_SHAPES[np.arange(900) % 3], memory)
    assert huge["batch_size"] == 10
