"""A paired dataset: complete and checked, or not there at all."""

from __future__ import annotations

import json

import numpy as np
import pytest

from srseg.planning import pair_dataset
from srseg.planning.pair_content import PairWishes
from srseg.planning.pair_dataset import convert_pairs, new_dataset_name
from srseg.planning.pair_folders import PairFolders
from srseg.planning.raw_dataset import check_integrity, find_raw_dataset
from tests.pair_sides import write_sides
from tests.tiny_dataset import save_volume, tiny_affine, tiny_case

NAME = "Dataset905_Pairs"


@pytest.fixture
def raw_root(nnunet_folders):
    return nnunet_folders / "nnUNet_raw"


@pytest.fixture
def folders(tmp_path):
    # sorted, the names are in another order than the tiny cases
    return PairFolders(*write_sides(tmp_path / "sides", {"first": 3, "second": 0, "a_third": 2}))


def convert(folders, raw_root, **wishes):
    return convert_pairs(folders, raw_root / NAME, PairWishes(**wishes), num_processes=1)


def test_files_are_copied_unchanged_under_nnunets_names(folders, raw_root):
    dataset_json = convert(folders, raw_root)
    assert dataset_json == {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "label_1": 1, "label_2": 2},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    raw = find_raw_dataset(905)
    check_integrity(raw)
    assert raw.is_paired
    assert sorted(raw.cases) == ["a_third", "first", "second"]
    for case, files in raw.cases.items():
        sources = (folders.hr / f"{case}_0000.nii.gz", folders.labels / f"{case}.nii.gz")
        sources += (folders.lr / f"{case}_0000.nii.gz",)
        for file, source in zip(files.all_files, sources, strict=True):
            assert file.read_bytes() == source.read_bytes()
    assert {path.name for path in raw_root.iterdir()} == {NAME}


def test_labels_by_name_and_from_a_dataset_json(folders, raw_root):
    named = convert(folders, raw_root, label_names=["background", "left", "right", "rare"])
    assert named["labels"] == {"background": 0, "left": 1, "right": 2, "rare": 3}
    given = {
        "labels": {"background": 0, "both": [1, 2], "right": 2},
        "regions_class_order": [1, 2],
        "channel_names": {"0": "CT"},
        "licence": "none",
        "numTraining": 99,
        "dataset": {"listed": "elsewhere"},
    }
    from_file = convert(folders, raw_root, dataset_json=given)
    assert from_file == {k: v for k, v in given.items() if k != "dataset"} | {
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }


def test_several_channels(folders, raw_root):
    for folder in (folders.lr, folders.hr):
        for file in list(folder.iterdir()):
            second = file.with_name(file.name.replace("_0000", "_0001"))
            second.write_bytes(file.read_bytes())
    dataset_json = convert(folders, raw_root, channel_names=["T1", "T2"])
    assert dataset_json["channel_names"] == {"0": "T1", "1": "T2"}
    assert len(find_raw_dataset(905).cases["first"].lr_images) == 2


def bad_label(value):
    def change(folders):
        labels = tiny_case(3)[1].astype(np.float32)
        labels[4, 16, 15] = value
        save_volume(labels, folders.labels / "first.nii.gz")

    return change


def moved_labels(folders):
    affine = tiny_affine()
    affine[2, 3] += 1.6
    save_volume(tiny_case(3)[1], folders.labels / "first.nii.gz", affine)


def other_lr(shift_mm):
    def change(folders):
        write_sides(folders.lr.parent, {"first": 3}, shift_mm=shift_mm)

    return change


@pytest.mark.parametrize(
    ("change", "wishes", "message"),
    [
        (bad_label(1.5), {}, "case first: labels must be whole numbers .* holds 1.5"),
        (bad_label(-1), {}, "case first: labels must be whole numbers from 0 on, .* holds -1"),
        (bad_label(4), {}, "hold the values 0, 1, 2, 4, but .* without a gap"),
        (
            bad_label(3),
            {"label_names": ["background", "left", "right"]},
            "case first: the label map holds the value 3, which has no name; named: 0, 1, 2",
        ),
        (moved_labels, {}, "case first: image and label lie on different grids: origin"),
        (other_lr(20.0), {}, r"case first: the HR image covers \d\d% .* 50% is needed"),
        (other_lr(500.0), {}, "case first: the HR image covers 0% of the LR"),
        (None, {"label_names": ["lv", "rv", "myo"]}, "must be background, got 'lv'"),
        (None, {"label_names": ["background", "lv", "lv"]}, "label names must differ"),
        (None, {"channel_names": ["T1", "T2"]}, r"have 1 channel\(s\), but 2 name"),
    ],
)
def test_bad_pairs_leave_nothing_behind(folders, raw_root, change, wishes, message):
    if change is not None:
        change(folders)
    with pytest.raises((ValueError, RuntimeError), match=message):
        convert(folders, raw_root, **wishes)
    assert list(raw_root.iterdir()) == []


def test_half_an_overlap_is_enough(folders, raw_root):
    other_lr(7.0)(folders)
    convert(folders, raw_root)


def test_an_interrupted_run_keeps_the_dataset_that_was_there(folders, raw_root, monkeypatch):
    old = raw_root / NAME
    old.mkdir()
    (old / "mine").touch()
    copied = []

    def interrupted(source, target):
        copied.append(target)
        if len(copied) == 4:
            raise KeyboardInterrupt
        target.touch()

    monkeypatch.setattr(pair_dataset.shutil, "copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(folders, raw_root)
    assert len(copied) == 4
    assert [path.name for path in raw_root.iterdir()] == [NAME]
    assert (old / "mine").exists()
    monkeypatch.undo()
    convert_pairs(folders, old, PairWishes(), num_processes=1)
    assert not (old / "mine").exists()
    assert [path.name for path in raw_root.iterdir()] == [NAME]


def test_where_the_new_one_cannot_be_put_the_old_one_stays(folders, raw_root, monkeypatch):
    old = raw_root / NAME
    old.mkdir()
    (old / "mine").touch()
    rename = type(old).rename

    def fail(path, target):
        if path.suffix == ".tmp":
            raise PermissionError("the folder cannot be renamed")
        return rename(path, target)

    monkeypatch.setattr(type(old), "rename", fail)
    with pytest.raises(PermissionError):
        convert(folders, raw_root)
    assert (old / "mine").exists()
    assert [path.name for path in raw_root.iterdir()] == [NAME]


def test_formats_without_geometry(tmp_path, raw_root):
    import tifffile

    folders = PairFolders(*(tmp_path / name for name in ("lr", "hr", "labels")))
    shapes = {folders.lr: (4, 5, 7), folders.hr: (4, 10, 14), folders.labels: (4, 10, 14)}
    for folder, shape in shapes.items():
        folder.mkdir()
        values = np.arange(np.prod(shape)).reshape(shape) % 2
        tifffile.imwrite(folder / "a.tif", values.astype(np.uint8), photometric="minisblack")
        (folder / "a.json").write_text(json.dumps({"spacing": [3.0, 1.0, 1.0]}))
    convert(folders, raw_root)
    folder = raw_root / NAME
    assert (folder / "imagesLrTr" / "a.json").is_file()
    assert (folder / "imagesLrTr" / "a_0000.tif").is_file()
    assert (folder / "labelsTr" / "a.tif").is_file()
    tifffile.imwrite(folders.lr / "a.tif", np.zeros((4, 5, 6), np.uint8), photometric="minisblack")
    with pytest.raises(RuntimeError, match="case a: in a format without geometry"):
        convert_pairs(folders, raw_root / "Dataset906_X", PairWishes(), num_processes=1)


@pytest.mark.parametrize(
    ("dataset", "name", "expected"),
    [("5", "Heart", "Dataset005_Heart"), ("Dataset012_A_b", None, "Dataset012_A_b")],
)
def test_names(raw_root, dataset, name, expected):
    assert new_dataset_name(dataset, name, raw_root, overwrite=False) == expected


@pytest.mark.parametrize(
    ("dataset", "name", "message"),
    [
        ("5", None, "'5' cannot be the name of a dataset; give a number"),
        ("1000", "Heart", "'Dataset1000_Heart' cannot be the name"),
        ("5", "../x", "cannot be the name"),
        ("Dataset005_Heart", "Heart", "-name goes with a number"),
        ("7", "Other", "the number 007 is in use by Dataset007_There"),
        ("7", "There", "Dataset007_There exists; --overwrite replaces it"),
    ],
)
def test_bad_names(raw_root, dataset, name, message):
    (raw_root / "Dataset007_There").mkdir()
    with pytest.raises(ValueError, match=message):
        new_dataset_name(dataset, name, raw_root, overwrite=False)
    assert new_dataset_name("7", "There", raw_root, overwrite=True) == "Dataset007_There"
