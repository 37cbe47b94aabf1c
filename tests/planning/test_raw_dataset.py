"""A raw dataset's files and dataset.json: each mistake gives one sentence that names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from srseg.planning.raw_dataset import (
    check_integrity,
    find_raw_dataset,
    read_dataset_json,
    reader_writer_class,
)
from tests.tiny_dataset import write_unlabelled


def change_json(folder: Path, **entries: object) -> None:
    """Overwrite entries of dataset.json; None removes one."""
    file = folder / "dataset.json"
    content = {**json.loads(file.read_text()), **entries}
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def test_dataset_by_number_and_name(tiny_copy: Path):
    for dataset in (901, "901", "Dataset901", "Dataset901_Tiny"):
        raw = find_raw_dataset(dataset)
        assert (raw.name, raw.folder, raw.num_channels) == ("Dataset901_Tiny", tiny_copy, 1)
    assert raw.num_classes == 3
    assert list(raw.cases) == [f"tiny_{i}" for i in range(5)]
    assert not raw.is_paired
    assert reader_writer_class(raw).__name__ == "SimpleITKIO"


def test_unknown_dataset_lists_the_known_ones(tiny_copy: Path):
    with pytest.raises(ValueError, match=r"unknown dataset '7' .*known: Dataset901_Tiny"):
        find_raw_dataset(7)


def test_raw_folder_not_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(ValueError, match="nnUNet_raw is not set"):
        find_raw_dataset(4)


def test_dataset_json_is_missing(tiny_copy: Path):
    (tiny_copy / "dataset.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no dataset\.json"):
        find_raw_dataset(901)


def test_dataset_json_is_no_json(tiny_copy: Path):
    (tiny_copy / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        find_raw_dataset(901)


def test_dataset_json_lacks_a_key(tiny_copy: Path):
    change_json(tiny_copy, channel_names=None, labels=None)
    with pytest.raises(ValueError, match="lacks channel_names, labels"):
        read_dataset_json(tiny_copy)


@pytest.mark.parametrize(
    "labels",
    [{"left": 1, "right": 2}, {"background": 1, "left": 0}, {"background": 0, "both": [1, 2]}],
    ids=["no background", "background not 0", "regions without an order"],
)
def test_labels_that_nnunet_cannot_use(tiny_copy: Path, labels):
    change_json(tiny_copy, labels=labels)
    with pytest.raises(ValueError, match="the labels of .* cannot be used: "):
        read_dataset_json(tiny_copy)


def test_labels_with_a_gap(tiny_copy: Path):
    change_json(tiny_copy, labels={"background": 0, "left": 1, "right": 3})
    with pytest.raises(ValueError, match=r"without a gap, got 0, 1, 3"):
        read_dataset_json(tiny_copy)


def test_regions_and_ignore_are_counted_as_nnunet_does(tiny_copy: Path):
    labels = {"background": 0, "both": [1, 2], "right": 2, "ignore": 3}
    change_json(tiny_copy, labels=labels, regions_class_order=[1, 2])
    assert find_raw_dataset(901).num_classes == 2


def test_no_cases(tiny_copy: Path):
    for file in (tiny_copy / "imagesTr").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="no training cases"):
        find_raw_dataset(901)


def test_missing_channel_file_is_named(tiny_copy: Path):
    change_json(tiny_copy, channel_names={"0": "T1", "1": "T2"})
    for i in (0, 1, 3, 4):
        (tiny_copy / f"imagesTr/tiny_{i}_0001.nii.gz").touch()
    with pytest.raises(FileNotFoundError, match=r"case tiny_2 has 1 of the 2 .* tiny_2_0001\.nii"):
        find_raw_dataset(901)


def test_images_without_labels_are_kept_apart(tiny_copy: Path):
    assert find_raw_dataset(901).unlabelled == {}
    names = write_unlabelled(tiny_copy, 0, 2)
    raw = find_raw_dataset(901)
    assert list(raw.unlabelled) == names
    assert list(raw.cases) == [f"tiny_{i}" for i in range(5)]
    check_integrity(raw)  # numTraining counts labels
    change_json(tiny_copy, channel_names={"0": "T1", "1": "T2"})
    for i in range(5):
        (tiny_copy / f"imagesTr/tiny_{i}_0001.nii.gz").touch()
    (tiny_copy / "imagesUnTr/more_0_0001.nii.gz").touch()
    with pytest.raises(FileNotFoundError, match=r"case more_2 has 1 of the 2 .* more_2_0001\.nii"):
        find_raw_dataset(901)


def test_missing_label_file_is_named(tiny_copy: Path):
    (tiny_copy / "labelsTr/tiny_3.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"case tiny_3 has no file .*tiny_3\.nii\.gz"):
        find_raw_dataset(901)


def test_unknown_file_ending(tiny_copy: Path):
    change_json(tiny_copy, file_ending=".xyz")
    for part in ("imagesTr", "labelsTr"):
        for file in (tiny_copy / part).iterdir():
            file.rename(file.with_name(file.name.replace(".nii.gz", ".xyz")))
    with pytest.raises(ValueError, match=r"'\.xyz', which nnU-Net cannot read; known: .*\.nii\.gz"):
        reader_writer_class(find_raw_dataset(901))


def test_reader_is_found_although_the_first_file_is_broken(
    tiny_copy: Path, capfd: pytest.CaptureFixture[str]
):
    (tiny_copy / "imagesTr/tiny_0_0000.nii.gz").write_bytes(b"no image")
    assert reader_writer_class(find_raw_dataset(901)).__name__ == "SimpleITKIO"
    assert "Traceback" not in "".join(capfd.readouterr())


def test_integrity_counts_the_cases(tiny_copy: Path):
    check_integrity(find_raw_dataset(901))
    change_json(tiny_copy, numTraining=6)
    with pytest.raises(ValueError, match="numTraining 6, but there are 5"):
        check_integrity(find_raw_dataset(901))
