"""What is written can be read by us, by stock nnU-Net and in another process."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import (
    comp_blosc2_params,
    infer_dataset_class,
    nnUNetDatasetBlosc2,
)

from srseg.preprocessing.dataset import SRSegDataset, remove_training_case, save_training_case
from srseg.preprocessing.training_case import TrainingCase

PATCH, HR_PATCH = (4, 6, 5), (4, 12, 15)


def triplet(seed: int = 0, *, valid: bool = False) -> TrainingCase:
    generator = np.random.default_rng(seed)
    hr_shape = (1, 7, 16, 27)
    return TrainingCase(
        lr_image=generator.random((2, 7, 8, 9), dtype=np.float32),
        hr_image=generator.random((2, *hr_shape[1:]), dtype=np.float32),
        hr_seg=generator.integers(-1, 3, hr_shape).astype(np.int16),
        valid=generator.random(hr_shape) > 0.5 if valid else None,
        properties={"spacing": [1.0, 2.0, 3.0], "number": seed},
        resampled=seed % 2 == 1,
    )


def save(folder, name, case):
    save_training_case(case, folder, name, patch_size=PATCH, hr_patch_size=HR_PATCH)


@pytest.fixture
def folder(tmp_path):
    save(tmp_path, "case_b", triplet(1))
    save(tmp_path, "case_a.1", triplet(2, valid=True))
    return tmp_path


def test_all_three_arrays_come_back(folder):
    dataset = SRSegDataset(str(folder))
    assert dataset.identifiers == ["case_a.1", "case_b"]
    for name, case in (("case_b", triplet(1)), ("case_a.1", triplet(2, valid=True))):
        hr_image, hr_seg, _, properties = dataset.load_case(name)
        np.testing.assert_array_equal(hr_image[:], case.hr_image)
        np.testing.assert_array_equal(hr_seg[:], case.hr_seg)
        np.testing.assert_array_equal(dataset.load_lr(name)[:], case.lr_image)
        assert properties == case.properties == dataset.load_properties(name)
    assert dataset.load_valid("case_b") is None
    valid = dataset.load_valid("case_a.1")[:]
    assert valid.dtype == bool
    np.testing.assert_array_equal(valid, triplet(2, valid=True).valid)


def test_a_part_is_read_alone(folder):
    part = SRSegDataset(str(folder)).load_lr("case_b")[:, 2:4, 1:5, 3:]
    np.testing.assert_array_equal(part, triplet(1).lr_image[:, 2:4, 1:5, 3:])


def test_stock_nnunet_takes_the_folder_for_its_own(folder):
    assert infer_dataset_class(str(folder)) is nnUNetDatasetBlosc2
    stock = nnUNetDatasetBlosc2(str(folder))
    assert stock.identifiers == ["case_a.1", "case_b"]
    hr_image, hr_seg, previous, properties = stock.load_case("case_b")
    np.testing.assert_array_equal(hr_image[:], triplet(1).hr_image)
    np.testing.assert_array_equal(hr_seg[:], triplet(1).hr_seg)
    assert previous is None
    assert properties["number"] == 1


def test_chunks_follow_the_patch_of_their_grid(folder):
    dataset = SRSegDataset(str(folder))
    hr_image, hr_seg, *_ = dataset.load_case("case_b")
    for array, patch in (
        (hr_image, HR_PATCH),
        (hr_seg, HR_PATCH),
        (dataset.load_lr("case_b"), PATCH),
    ):
        blocks, chunks = comp_blosc2_params(array.shape, patch, array.dtype.itemsize)
        assert (array.blocks, array.chunks) == (blocks, chunks)


def test_the_dataset_pickles(folder):
    dataset = pickle.loads(pickle.dumps(SRSegDataset(str(folder), ["case_b"])))
    assert dataset.identifiers == ["case_b"]
    np.testing.assert_array_equal(dataset.load_lr("case_b")[:], triplet(1).lr_image)


def test_a_case_without_properties_is_not_there(folder):
    (folder / "case_b.pkl").unlink()
    assert SRSegDataset.get_identifiers(folder) == ["case_a.1"]


def test_the_properties_appear_last(tmp_path, monkeypatch):
    moved = []
    replace = type(tmp_path).replace
    monkeypatch.setattr(
        type(tmp_path), "replace", lambda self, target: (moved.append(self), replace(self, target))
    )
    save(tmp_path, "case", triplet(0, valid=True))
    assert [file.suffix for file in moved] == [".b2nd"] * 4 + [".pkl"]


def test_a_missing_lr_image_is_named(folder):
    (folder / "lr" / "case_b.b2nd").unlink()
    with pytest.raises(FileNotFoundError, match=r"case case_b has no .*lr.case_b.b2nd"):
        SRSegDataset(str(folder)).load_lr("case_b")


def test_a_case_is_removed_whole_and_alone(folder):
    remove_training_case(folder, "case_a.1")
    left = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    assert left == ["case_b.b2nd", "case_b.pkl", "case_b_seg.b2nd", "lr/case_b.b2nd"]
    remove_training_case(folder, "case_a.1")  # nothing left to do


def test_saving_again_replaces(folder):
    save(folder, "case_b", triplet(3))
    np.testing.assert_array_equal(
        SRSegDataset(str(folder)).load_lr("case_b")[:], triplet(3).lr_image
    )
