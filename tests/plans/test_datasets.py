from __future__ import annotations

import pytest

from srseg.plans.datasets import dataset_name


@pytest.fixture
def raw_folder(tmp_path):
    for name in ("Dataset004_Hippocampus", "Dataset027_ACDC", "Dataset030_A", "Dataset030_B"):
        (tmp_path / name).mkdir()
    (tmp_path / "scratch").mkdir()
    return tmp_path


@pytest.mark.parametrize("dataset", [4, "4", "004", "Dataset004", "Dataset004_Hippocampus"])
def test_every_spelling_finds_the_dataset(raw_folder, dataset):
    assert dataset_name(dataset, raw_folder) == "Dataset004_Hippocampus"


def test_the_known_ones_are_listed(raw_folder):
    with pytest.raises(ValueError, match=r"unknown dataset '5' .*known: Dataset004_Hippocampus, "):
        dataset_name(5, raw_folder)


def test_one_number_with_several_names(raw_folder):
    with pytest.raises(ValueError, match=r"'30' means several: Dataset030_A, Dataset030_B"):
        dataset_name(30, raw_folder)
    assert dataset_name("Dataset030_B", raw_folder) == "Dataset030_B"
