"""Preprocessing and its plans: each folder preprocessed once, labels copied, names checked."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from srseg.planning.fingerprint import extract_fingerprint
from srseg.planning.plan import plan, summary
from srseg.planning.preprocessing import preprocess
from srseg.preprocessing.preprocessor import SRSegPreprocessor
from tests.planning.test_raw_dataset import change_json


@pytest.fixture
def tiny(tiny_copy: Path, nnunet_folders: Path) -> Path:
    """The preprocessed folder of the planned tiny dataset."""
    extract_fingerprint(901, num_processes=1, show_progress=False)
    plan(901)
    return nnunet_folders / "nnUNet_preprocessed/Dataset901_Tiny"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Calls of the preprocessor, which does nothing."""
    calls: list[tuple] = []

    def run(self, dataset, configuration, plans_name, num_processes=None, *, clean=False):
        calls.append((dataset, configuration, plans_name, num_processes, clean))
        assert self.show_progress_bar is False

    monkeypatch.setattr(SRSegPreprocessor, "run", run)
    return calls


def run(**options) -> None:
    preprocess(901, "srsegPlans", show_progress=False, **options)


def test_every_folder_once(tiny: Path, runs: list, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        run()
    name = "Dataset901_Tiny"
    assert runs == [
        (name, "3d_fullres", "srsegPlans", None, False),
        (name, "2d", "srsegPlans", None, False),
    ]
    assert "3d_patchfree shares the folder srsegPlans_3d_fullres." in caplog.text


def test_chosen_configurations_and_processes(tiny: Path, runs: list):
    run(configurations=["2d", "3d_fullres"], num_processes=[3, 2], clean=True)
    assert [run[1:] for run in runs] == [
        ("2d", "srsegPlans", 3, True),
        ("3d_fullres", "srsegPlans", 2, True),
    ]
    runs.clear()
    run(num_processes=[4])
    assert {run[3] for run in runs} == {4}


def test_configuration_that_is_not_planned_is_left_out(
    tiny: Path, runs: list, caplog: pytest.LogCaptureFixture
):
    plan(901, scale=(2, 1, 1))
    run(configurations=["2d", "3d_fullres"])
    assert [run[1] for run in runs] == ["3d_fullres"]
    assert "2d is not planned for Dataset901_Tiny; left out." in caplog.text
    with pytest.raises(ValueError, match="2d is not planned for .* planned: 3d_fullres"):
        run(configurations=["2d"])


def test_unknown_configuration(tiny: Path, runs: list):
    with pytest.raises(ValueError, match="unknown configuration '3d_lowres'; known: 3d_fullres, "):
        run(configurations=["3d_fullres", "3d_lowres"])
    assert not runs


def test_wrong_number_of_processes(tiny: Path, runs: list):
    with pytest.raises(ValueError, match=r"-np takes one number .*: got 2 for 3"):
        run(num_processes=[1, 2])


def test_plans_are_missing(tiny: Path):
    with pytest.raises(FileNotFoundError, match="no plans 'thick' in .*known: .*srsegPlans"):
        preprocess(901, "thick")


def test_labels_are_copied_and_corrected_ones_again(tiny: Path, tiny_copy: Path, runs: list):
    run()
    folder = tiny / "gt_segmentations"
    sources = sorted((tiny_copy / "labelsTr").iterdir())
    assert sorted(path.name for path in folder.iterdir()) == [path.name for path in sources]
    copy = folder / "tiny_1.nii.gz"
    assert copy.read_bytes() == (tiny_copy / "labelsTr/tiny_1.nii.gz").read_bytes()
    unchanged = copy.stat().st_ino
    run()
    assert copy.stat().st_ino == unchanged
    corrected = tiny_copy / "labelsTr/tiny_1.nii.gz"
    shutil.copyfile(tiny_copy / "labelsTr/tiny_2.nii.gz", corrected)
    older = copy.stat().st_mtime - 10  # as unzip and cp -p leave it
    os.utime(corrected, (older, older))
    run()
    assert copy.read_bytes() == corrected.read_bytes()


def test_labels_of_listed_files_get_the_cases_name(tiny: Path, tiny_copy: Path, runs: list):
    """dataset.json may list files of any name; TIFF labels have a JSON file beside them."""
    (tiny_copy / "labelsTr/tiny_0.json").write_text("{}")
    listed = {
        f"tiny_{i}": {
            "images": [f"imagesTr/tiny_{i}_0000.nii.gz"],
            "label": f"labelsTr/tiny_{i}.nii.gz",
        }
        for i in range(5)
    }
    (tiny_copy / "labelsTr/tiny_1.nii.gz").rename(tiny_copy / "labelsTr/other.nii.gz")
    listed["tiny_1"]["label"] = "labelsTr/other.nii.gz"
    change_json(tiny_copy, dataset=listed)
    run()
    names = {path.name for path in (tiny / "gt_segmentations").iterdir()}
    assert names == {*(f"tiny_{i}.nii.gz" for i in range(5)), "tiny_0.json"}


def test_verify_reads_the_cases_again(tiny: Path, tiny_copy: Path):
    change_json(tiny_copy, numTraining=9)
    extract_fingerprint(901, num_processes=1)  # the fingerprint is there
    with pytest.raises(ValueError, match="numTraining 9"):
        extract_fingerprint(901, num_processes=1, verify=True)
    change_json(tiny_copy, numTraining=5)
    (tiny_copy / "imagesTr/tiny_4_0000.nii.gz").write_bytes(b"broken")
    with pytest.raises(RuntimeError, match="case tiny_4: cannot read"):
        extract_fingerprint(901, num_processes=1, verify=True)


def test_summary_speaks_the_readers_order(tiny: Path):
    plans = json.loads((tiny / "srsegPlans.json").read_text())
    lines = summary(plans)
    assert lines[0].startswith("Plans of Dataset901_Tiny (")
    assert any("3d_fullres: scale 1 x 2 x 2, LR patch" in line for line in lines)
    assert any("  scale: 2 along axes" in line for line in lines)
    plans = plan(901, scale=(1, 1, 2), hr_spacing=(1.0, 1.0, 1.0))
    assert any("axes of scale and patch: X, Z, Y of the files" in s for s in summary(plans))
