"""The copy has few labels, all images and the same validation cases."""

from __future__ import annotations

import json

import pytest

from benchmarks.few_labels import SPLITS_FILE, fold_of, keep_labels, main
from srseg.planning.raw_dataset import check_integrity, find_raw_dataset
from tests.planning.test_raw_dataset import change_json
from tests.tiny_dataset import TINY_NAME, write_unlabelled

COPY = "Dataset904_Few"
CASES = [f"tiny_{number}" for number in range(5)]


def make(*options: str) -> None:
    main(["-d", "901", "-o", COPY, *options])


def splits_of(nnunet_folders, name=COPY):
    return json.loads((nnunet_folders / "nnUNet_preprocessed" / name / SPLITS_FILE).read_text())


def test_only_a_share_of_the_training_cases_keeps_labels(tiny_copy, nnunet_folders, capsys):
    nnunet_fold = fold_of(nnunet_folders / "none.json", CASES, 1)
    make("-share", "0.5", "-fold", "1")
    assert "2 training cases with labels, 2 without, 1 validation cases" in capsys.readouterr().out
    raw = find_raw_dataset(904)
    check_integrity(raw)
    (only_fold,) = splits_of(nnunet_folders)
    assert only_fold["val"] == nnunet_fold["val"]
    assert set(only_fold["train"]) < set(nnunet_fold["train"])
    assert sorted(raw.cases) == sorted((*only_fold["train"], *only_fold["val"]))
    assert sorted((*raw.cases, *raw.unlabelled)) == CASES
    for case, files in {**raw.cases, **raw.unlabelled}.items():
        for file in files.all_files:
            folder = "imagesTr" if file.parent.name == "imagesUnTr" else file.parent.name
            assert file.read_bytes() == (tiny_copy / folder / file.name).read_bytes(), case


def test_the_datasets_own_splits_are_used(tiny_copy, nnunet_folders, tmp_path):
    own = [{"train": ["tiny_0", "tiny_2", "tiny_3"], "val": ["tiny_4"]}]
    folder = nnunet_folders / "nnUNet_preprocessed" / TINY_NAME
    folder.mkdir()
    (folder / SPLITS_FILE).write_text(json.dumps(own))
    make("-share", "0.1")
    raw = find_raw_dataset(904)
    assert splits_of(nnunet_folders)[0]["val"] == ["tiny_4"]
    assert len(raw.cases) == len(raw.unlabelled) == 2
    assert "tiny_1" not in {*raw.cases, *raw.unlabelled}  # in neither side of the fold

    other = tmp_path / "other.json"
    other.write_text(json.dumps([{"train": ["tiny_1", "tiny_2"], "val": ["tiny_3"]}]))
    main(["-d", "901", "-o", "Dataset905_Other", "-splits", str(other)])
    assert splits_of(nnunet_folders, "Dataset905_Other")[0]["val"] == ["tiny_3"]


def test_pairs_listed_files_and_what_has_no_labels_already(tiny_copy, nnunet_folders):
    write_unlabelled(tiny_copy, 3)
    (tiny_copy / "imagesLrTr").mkdir()
    for case in (*CASES, "more_3"):
        (tiny_copy / "imagesLrTr" / f"{case}_0000.nii.gz").write_text(case)
    (tiny_copy / "labelsTr/tiny_1.nii.gz").rename(tiny_copy / "labelsTr/other.nii.gz")
    (tiny_copy / "labelsTr/tiny_1.json").touch()
    listed = {
        case: {"images": [f"imagesTr/{case}_0000.nii.gz"], "label": f"labelsTr/{case}.nii.gz"}
        for case in CASES
    }
    listed["tiny_1"]["label"] = "labelsTr/other.nii.gz"
    change_json(tiny_copy, dataset=listed)
    splits = tiny_copy / "mine.json"
    splits.write_text(json.dumps([{"train": ["tiny_0", "tiny_2"], "val": ["tiny_1"]}]))
    make("-splits", str(splits))
    raw = find_raw_dataset(904)
    assert "more_3" in raw.unlabelled
    assert raw.is_paired
    assert [file.name for file in raw.cases["tiny_1"].all_files][-1] == "tiny_1.json"
    unlabelled = next(case for case in raw.unlabelled if case != "more_3")
    assert raw.unlabelled[unlabelled].lr_images[0].read_text() == unlabelled


def test_a_larger_share_holds_the_smaller_one():
    cases = [f"case_{number}" for number in range(166)]
    few, more = keep_labels(cases, 0.1, 0), keep_labels(cases, 0.2, 0)
    assert (len(few), len(more)) == (17, 33)
    assert set(few) < set(more)
    assert few == sorted(few) != keep_labels(cases, 0.1, 1)
    assert len(keep_labels(cases, 0.0001, 0)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-share", "1"), "-share 1 leaves none of 4 cases without labels"),
        (("-share", "0"), "-share 0 leaves none of 4"),
        (("-fold", "5"), "unknown fold 5; known: 0 to 4"),
        (("-splits", "nowhere.json"), "-splits nowhere.json is not a file"),
        (("-o", "Few"), "-o Few must be DatasetXXX_Name"),
        (("-o", "Dataset901_Few"), "with a number that is not in use"),
    ],
)
def test_bad_wishes(tiny_copy, options, message):
    with pytest.raises(ValueError, match=message):
        make(*options)


def test_a_fold_of_another_dataset(tmp_path):
    file = tmp_path / SPLITS_FILE
    file.write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}]))
    with pytest.raises(ValueError, match="fold 0 has cases that the dataset lacks: b, c"):
        fold_of(file, ["a"], 0)
