"""A folder remembers what it was made from and says in words what is different now."""

from __future__ import annotations

import copy
import gzip
import json
import shutil

import pytest

from srseg.preprocessing.case_files import training_files
from srseg.preprocessing.dataset import TEMPORARY_FOLDER
from srseg.preprocessing.resume import RECORD_FILE, inputs_of, missing_cases
from tests.preprocessing.hand_plans import hand_plans, managers
from tests.tiny_dataset import SPACING, read_volume, save_volume

NAMES = ["tiny_0", "tiny_1", "tiny_2"]


def started(folder, inputs):
    """Make `folder` one in which a run with these inputs finished the first case."""
    missing_cases(folder, inputs, NAMES)
    (folder / "tiny_0.pkl").touch()


def inputs(folder, change=lambda plans, dataset_json: None):
    plans = hand_plans(SPACING, (1, 2, 2))
    dataset_json = json.loads((folder / "dataset.json").read_text())
    change(plans, dataset_json)
    cases = training_files(folder, dataset_json)
    return inputs_of(*managers(plans), dataset_json, cases)


def test_a_new_folder_misses_all_cases(tiny_dataset, tmp_path):
    assert missing_cases(tmp_path / "new", inputs(tiny_dataset), NAMES) == NAMES
    assert (tmp_path / "new" / RECORD_FILE).is_file()


def test_complete_cases_are_left_out_and_temporaries_removed(tiny_dataset, tmp_path):
    missing_cases(tmp_path, inputs(tiny_dataset), NAMES)
    (tmp_path / "tiny_1.pkl").touch()
    (tmp_path / "tiny_0.b2nd").touch()  # begun, not complete
    (tmp_path / TEMPORARY_FOLDER / "123").mkdir(parents=True)
    assert missing_cases(tmp_path, inputs(tiny_dataset), NAMES) == ["tiny_0", "tiny_2"]
    assert not (tmp_path / TEMPORARY_FOLDER).exists()


def configure(key, value):
    def change(plans, _):
        plans["configurations"]["3d_fullres"][key] = value

    return change


def declare(labels):
    return lambda _, dataset_json: dataset_json.update(labels=labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (configure("scale", [1, 2, 3]), r"plans: scale \[1, 2, 2\] -> \[1, 2, 3\]"),
        (configure("hr_spacing", [3, 1, 1]), "plans: hr_spacing"),
        (configure("degradation", {"version": 1}), "plans: degradation"),
        (configure("normalization_schemes", ["NoNormalization"]), "plans: normalization_schemes"),
        (lambda plans, _: plans.update(transpose_forward=[1, 0, 2]), "plans: transpose_forward"),
        (declare({"background": 0, "all": 1}), "dataset.json: labels"),
    ],
)
def test_what_changed_is_said(tiny_dataset, tmp_path, change, message):
    started(tmp_path, inputs(tiny_dataset))
    with pytest.raises(ValueError, match=rf"other inputs \({message}.*--clean"):
        missing_cases(tmp_path, inputs(tiny_dataset, change), NAMES)


@pytest.mark.parametrize(
    "change",
    [
        configure("patch_size", [99, 98, 97]),
        configure("batch_size", 17),
        configure("patch_free", True),
        declare({"background": 0, "left": 1, "right": 2}),
    ],
)
def test_what_shapes_no_array_does_not_count(tiny_dataset, tmp_path, change):
    started(tmp_path, inputs(tiny_dataset))
    assert missing_cases(tmp_path, inputs(tiny_dataset, change), NAMES) == NAMES[1:]


def test_ct_statistics_count_where_they_are_used(tiny_dataset, tmp_path):
    def with_mean(mean, scheme):
        def change(plans, _):
            plans["configurations"]["3d_fullres"]["normalization_schemes"] = [scheme]
            statistics = copy.deepcopy(plans["foreground_intensity_properties_per_channel"])
            statistics["0"]["mean"] = mean
            plans["foreground_intensity_properties_per_channel"] = statistics

        return inputs(tiny_dataset, change)

    assert with_mean(1.0, "ZScoreNormalization") == with_mean(2.0, "ZScoreNormalization")
    assert with_mean(1.0, "CTNormalization") != with_mean(2.0, "CTNormalization")


def brighten(folder, case):
    file = folder / "imagesTr" / f"{case}_0000.nii.gz"
    image, affine = read_volume(file)
    image = image.copy()
    image[3, 16, 15] += 1
    save_volume(image, file, affine)


def test_another_image_of_a_finished_case_is_noticed_but_not_a_copy(tiny_copy, tmp_path):
    before = inputs(tiny_copy)
    started(tmp_path / "out", before)
    copied = shutil.copytree(tiny_copy, tmp_path / "copy", copy_function=shutil.copyfile)
    assert inputs(copied) == before
    brighten(tiny_copy, "tiny_0")
    with pytest.raises(ValueError, match=r"\(raw files of tiny_0 changed\)"):
        missing_cases(tmp_path / "out", inputs(tiny_copy), NAMES)


def test_a_case_that_is_not_done_may_be_corrected(tiny_copy, tmp_path):
    started(tmp_path / "out", inputs(tiny_copy))
    brighten(tiny_copy, "tiny_2")
    assert missing_cases(tmp_path / "out", inputs(tiny_copy), NAMES) == NAMES[1:]
    recorded = json.loads((tmp_path / "out" / RECORD_FILE).read_text())
    assert recorded["inputs"] == inputs(tiny_copy)


def test_an_empty_folder_takes_any_inputs(tiny_dataset, tmp_path):
    missing_cases(tmp_path, inputs(tiny_dataset), NAMES)
    other = inputs(tiny_dataset, configure("scale", [1, 2, 3]))
    assert missing_cases(tmp_path, other, NAMES) == NAMES


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz"])
def test_other_content_of_the_same_size_is_noticed(tmp_path, ending):
    def write(content):
        if ending.endswith(".gz"):
            content = gzip.compress(content, compresslevel=0, mtime=0)
        (tmp_path / "imagesTr" / f"a_0000{ending}").write_bytes(content)

    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "labelsTr").mkdir()
    (tmp_path / "labelsTr" / f"a{ending}").write_bytes(b"0")
    (tmp_path / "dataset.json").write_text(
        json.dumps({"file_ending": ending, "labels": {}, "channel_names": {}})
    )
    write(b"12345")
    before = inputs(tmp_path)
    write(b"12355")
    assert inputs(tmp_path) != before


def test_new_cases_are_made_and_removed_ones_an_error(tiny_copy, tmp_path):
    started(tmp_path, inputs(tiny_copy))
    for folder, suffix in (("imagesTr", "_0000"), ("labelsTr", "")):
        file = tiny_copy / folder / f"tiny_0{suffix}.nii.gz"
        shutil.copy(file, tiny_copy / folder / f"new{suffix}.nii.gz")
    assert missing_cases(tmp_path, inputs(tiny_copy), ["new", *NAMES]) == ["new", *NAMES[1:]]
    for file in tiny_copy.rglob("tiny_0*.nii.gz"):
        file.unlink()
    with pytest.raises(ValueError, match=r"\(raw files of tiny_0 removed\)"):
        missing_cases(tmp_path, inputs(tiny_copy), NAMES[1:])


def test_long_lists_of_changes_are_cut(tiny_dataset, tmp_path):
    def change(plans, _):
        keys = ("scale", "spacing", "hr_spacing", "degradation", "use_mask_for_norm")
        plans["configurations"]["3d_fullres"].update(dict.fromkeys(keys, 5))

    changed = inputs(tiny_dataset, change)
    started(tmp_path, inputs(tiny_dataset))
    with pytest.raises(ValueError, match=r"; and 1 more\)"):
        missing_cases(tmp_path, changed, NAMES)


def test_cases_without_a_record_are_an_error(tiny_dataset, tmp_path):
    (tmp_path / "tiny_0.pkl").touch()
    with pytest.raises(ValueError, match="holds 1 cases without a record"):
        missing_cases(tmp_path, inputs(tiny_dataset), NAMES)
