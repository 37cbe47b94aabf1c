"""Which cases are compared, and what is said of missing ones."""

from __future__ import annotations

import json
import shutil

import pytest

from srseg.evaluation.compare.cases import fold_cases, folder_cases
from tests.evaluation.prediction_folders import ENDING, SHAPES, Folders, write_folders


@pytest.fixture
def raw(tiny_dataset, tmp_path):
    """A raw dataset with two folds."""
    folder = shutil.copytree(tiny_dataset, tmp_path / "raw")
    splits = [{"train": [], "val": ["tiny_3", "tiny_1"]}, {"train": [], "val": ["tiny_9"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")
    return folder


def wanted(raw, fold):
    description = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    return fold_cases(raw, raw.parent / "splits_final.json", fold, description)


def test_a_fold_has_its_validation_cases(raw):
    cases = wanted(raw, "0")
    assert [case.name for case in cases] == ["tiny_1", "tiny_3"]
    assert cases[0].label == raw / "labelsTr" / f"tiny_1{ENDING}"
    assert cases[0].hr_images == (raw / "imagesTr" / f"tiny_1_0000{ENDING}",)
    assert cases[0].lr_images == ()


def test_pairs_have_their_own_lr_images(raw):
    shutil.copytree(raw / "imagesTr", raw / "imagesLrTr")
    assert wanted(raw, "0")[1].lr_images == (raw / "imagesLrTr" / f"tiny_3_0000{ENDING}",)


def test_folds_that_cannot_be_compared(raw):
    with pytest.raises(ValueError, match="fold all has no validation cases of its own"):
        wanted(raw, "all")
    with pytest.raises(ValueError, match="unknown fold '7'; known: 0, 1"):
        wanted(raw, "7")
    with pytest.raises(FileNotFoundError, match=r"1 validation case\(s\) of fold 1 .*tiny_9"):
        wanted(raw, "1")
    (raw.parent / "splits_final.json").unlink()
    with pytest.raises(FileNotFoundError, match="which says what is in fold 0"):
        wanted(raw, "0")


def test_a_test_folder(tmp_path):
    folders = write_folders(tmp_path)
    cases = folder_cases(folders.lr_images, folders.labels, folders.hr_images, ENDING)
    assert [case.name for case in cases] == list(SHAPES)
    assert cases[0].hr_images == (folders.hr_images / f"case_a_0000{ENDING}",)
    assert folder_cases(folders.lr_images, folders.labels, None, ENDING)[0].hr_images == ()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f.labels), "the folder .*labels does not exist"),
        (lambda f: (f.labels / f"case_b{ENDING}").unlink(), "case case_b has no label map"),
        (lambda f: (f.hr_images / f"case_b_0000{ENDING}").unlink(), "case_b has no HR image in"),
        (lambda f: [x.unlink() for x in f.lr_images.iterdir()], "has no files named <case>_0000"),
    ],
)
def test_missing_files_are_named(tmp_path, spoil, message):
    folders: Folders = write_folders(tmp_path)
    spoil(folders)
    with pytest.raises(FileNotFoundError, match=message):
        folder_cases(folders.lr_images, folders.labels, folders.hr_images, ENDING)
