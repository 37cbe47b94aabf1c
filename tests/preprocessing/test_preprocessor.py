"""The whole run: what lies on disk, what inference reads, and what survives a kill."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from srseg import environment
from srseg.images.properties import coarsen_properties
from srseg.images.write import write_image
from srseg.preprocessing.case_files import training_files
from srseg.preprocessing.dataset import TEMPORARY_FOLDER, SRSegDataset
from srseg.preprocessing.preprocessor import SRSegPreprocessor, _CaseWork, peak_bytes
from srseg.preprocessing.resume import RECORD_FILE
from srseg.preprocessing.simulate import simulate_native
from tests.preprocessing.hand_plans import (
    TRANSPOSES,
    hand_plans,
    managers,
    spec_json,
    write_plans,
)
from tests.tiny_dataset import SHAPES, SPACING, read_volume, save_volume, write_unlabelled

SCALES = ((1, 1, 1), (2, 1, 1), (1, 2, 2), (3, 2, 1))
MORE_3 = "imagesUnTr/more_3_0000.nii.gz"
READERS = ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient")


def write_tiny_plans(tiny_copy, **options) -> Path:
    """Return the preprocessed folder with plans for the tiny dataset in it."""
    options.setdefault("hr_spacing", SPACING)
    options.setdefault("scale", (1, 2, 2))
    plans = hand_plans(options.pop("hr_spacing"), options.pop("scale"), **options)
    return write_plans(plans, tiny_copy, tiny_copy.parent.parent / "nnUNet_preprocessed")


def run(folder: Path, num_processes: int = 1, configuration: str = "3d_fullres", **options) -> Path:
    preprocessor = SRSegPreprocessor()
    preprocessor.show_progress_bar = False
    preprocessor.run(folder.name, configuration, "srsegPlans", num_processes, **options)
    return folder / f"srsegPlans_{configuration}"


def contents(folder: Path) -> dict[str, object]:
    """Return all that a folder holds, arrays as arrays, for comparison."""
    dataset = SRSegDataset(str(folder))
    found = {}
    for case in dataset.identifiers:
        hr_image, hr_seg, _, properties = dataset.load_case(case)
        lr_image = dataset.load_lr(case)
        found[case] = (hr_image[:], hr_seg[:], lr_image[:], pickle.dumps(properties))
    return found


def assert_equal(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for case in left:
        for a, b in zip(left[case], right[case], strict=True):
            np.testing.assert_array_equal(a, b)


def files_of(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_run_writes_complete_triplets(tiny_copy):
    done = run(write_tiny_plans(tiny_copy))
    names = [f"tiny_{i}" for i in range(5)]
    expected = {f"lr/{name}.b2nd" for name in names} | {"lr/srseg_preprocessing.json"}
    expected |= {f"{name}{end}" for name in names for end in (".b2nd", "_seg.b2nd", ".pkl")}
    assert files_of(done) == expected
    assert not (done / TEMPORARY_FOLDER).exists()
    assert nnUNetDatasetBlosc2(str(done)).identifiers == names
    for name, (hr_image, hr_seg, lr_image, properties) in contents(done).items():
        assert hr_image.dtype == lr_image.dtype == np.float32, name
        assert hr_seg.dtype == np.int16
        n_lr = lr_image.shape[1:]
        hr_shape = tuple(n * s for n, s in zip(n_lr, (1, 2, 2), strict=True))
        assert hr_image.shape[1:] == hr_seg.shape[1:] == hr_shape
        assert pickle.loads(properties)["srseg"]["dtype"] == ["float32"]


def test_any_number_of_processes_gives_the_same(tiny_copy):
    folder = write_tiny_plans(tiny_copy)
    alone = contents(run(folder, 1))
    assert_equal(alone, contents(run(folder, 3, clean=True)))


def test_a_second_run_makes_only_what_is_missing(tiny_copy, caplog):
    folder = write_tiny_plans(tiny_copy)
    done = run(folder)
    before = contents(done)
    times = {file: (done / file).stat().st_mtime_ns for file in files_of(done)}
    (done / "tiny_1.pkl").unlink()
    with caplog.at_level("INFO"):
        run(folder)
    assert "4 of 5 cases are done, 1 to go." in caplog.text
    changed = {file for file in times if (done / file).stat().st_mtime_ns != times[file]}
    assert changed == {"tiny_1.b2nd", "tiny_1_seg.b2nd", "tiny_1.pkl", "lr/tiny_1.b2nd"}
    assert_equal(before, contents(done))


def test_other_plans_need_clean(tiny_copy):
    folder = write_tiny_plans(tiny_copy)
    run(folder)
    write_tiny_plans(tiny_copy, scale=(1, 3, 1))
    with pytest.raises(ValueError, match=r"plans: scale \[1, 2, 2\] -> \[1, 3, 1\].*--clean"):
        run(folder)
    done = run(folder, clean=True)
    assert pickle.loads(contents(done)["tiny_0"][3])["srseg"]["scale"] == (1, 3, 1)


KILLED_RUN = """
import sys, time
import srseg.preprocessing.preprocessor as module
save = module.save_training_case
def slow_save(*args, **options):
    time.sleep(0.4)
    save(*args, **options)
module.save_training_case = slow_save
module.SRSegPreprocessor().run(sys.argv[1], "3d_fullres", "srsegPlans", 2)
"""


def test_a_killed_run_is_continued(tiny_copy):
    """Kill -9 in the middle, then again: the result is that of a run nobody disturbed."""
    folder = write_tiny_plans(tiny_copy)
    undisturbed = contents(run(folder))
    done = folder / "srsegPlans_3d_fullres"
    for file in done.rglob("*.*"):
        if file.is_file() and file.suffix != ".json":
            file.unlink()
    # a process group of its own, so that the workers die with it
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_RUN, folder.name],
        env=dict(os.environ),
        start_new_session=True,
    )
    end = time.monotonic() + 120
    while not list(done.glob("*.pkl")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    os.killpg(process.pid, 9)
    process.wait()
    finished = SRSegDataset.get_identifiers(done)
    assert 0 < len(finished) < 5
    assert_equal(undisturbed, contents(run(folder)))


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_failing_case_is_named_and_leaves_nothing(tiny_copy, num_processes):
    folder = write_tiny_plans(tiny_copy)
    file = tiny_copy / "labelsTr" / "tiny_3.nii.gz"
    labels, affine = read_volume(file)
    save_volume((labels * 2).astype(np.uint8), file, affine)
    with pytest.raises(RuntimeError, match=r"^case tiny_3: .*4, which dataset.json does not"):
        run(folder, num_processes)
    done = folder / "srsegPlans_3d_fullres"
    assert not any("tiny_3" in name for name in files_of(done))
    assert not (done / TEMPORARY_FOLDER).exists()
    save_volume(labels, file, affine)  # corrected: the run goes on
    assert len(SRSegDataset(str(run(folder))).identifiers) == 5


def test_a_case_without_foreground_is_kept_with_a_warning(tiny_copy, caplog):
    file = tiny_copy / "labelsTr" / "tiny_2.nii.gz"
    labels, affine = read_volume(file)
    save_volume(np.zeros_like(labels), file, affine)
    done = run(write_tiny_plans(tiny_copy))
    assert "no foreground in: tiny_2" in caplog.text
    locations = pickle.loads(contents(done)["tiny_2"][3])["class_locations"]
    assert {label: len(voxels) for label, voxels in locations.items()} == {1: 0, 2: 0}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("scale", "transpose"), list(zip(SCALES, TRANSPOSES, strict=True)))
def test_inference_reads_what_training_stored(tiny_copy, tmp_path, reader, scale, transpose):
    """A simulated LR file goes through `run_case` to the very array that lies in `lr/`."""
    hr_spacing = [SPACING[axis] * 0.9 for axis in transpose]  # so that it is resampled, too
    folder = write_tiny_plans(
        tiny_copy, hr_spacing=hr_spacing, scale=scale, transpose=transpose, reader=reader,
        degradation=spec_json("kspace_crop"),
    )  # fmt: skip
    plans = json.loads((folder / "srsegPlans.json").read_text())
    plans_manager, configuration_manager = managers(plans)
    dataset_json = json.loads((folder / "dataset.json").read_text())

    files = training_files(tiny_copy, dataset_json)["tiny_1"]
    training_arguments = (tmp_path / "done", plans_manager, configuration_manager, dataset_json)
    SRSegPreprocessor().save_files(files, *training_arguments)

    rw = plans_manager.image_reader_writer_class()
    hr_image, hr_properties = rw.read_images([str(files.images[0])])
    lr_image = simulate_native(
        hr_image, hr_properties["spacing"], plans_manager, configuration_manager
    )
    (lr_file,) = write_image(
        lr_image, tmp_path / "tiny_1",
        coarsen_properties(hr_properties, plans_manager.native(scale)),
        reader_writer=rw, file_ending=".nii.gz",
    )  # fmt: skip
    image, seg, properties = SRSegPreprocessor().run_case(
        [str(lr_file)], None, plans_manager, configuration_manager, dataset_json
    )
    stored = SRSegDataset(str(tmp_path / "done"))
    np.testing.assert_allclose(image, stored.load_lr("tiny_1")[:], atol=1e-4)
    assert seg.shape == (1, *image.shape[1:])
    training = stored.load_properties("tiny_1")
    for key in ("slope", "intercept", "background"):
        np.testing.assert_allclose(properties["srseg"][key], training["srseg"][key], rtol=1e-4)
    for key in ("lr_shape", "hr_shape", "scale"):
        assert properties["srseg"][key] == training["srseg"][key]
    box = [[a * s, b * s] for (a, b), s in zip(properties["bbox_used_for_cropping"], scale)]  # noqa: B905
    assert box == training["bbox_used_for_cropping"]


def test_arrays_go_the_way_of_files(tiny_copy):
    folder = write_tiny_plans(tiny_copy)
    plans_manager, configuration_manager = managers(
        json.loads((folder / "srsegPlans.json").read_text())
    )
    file = str(tiny_copy / "imagesTr/tiny_0_0000.nii.gz")
    dataset_file = str(folder / "dataset.json")
    image, properties = plans_manager.image_reader_writer_class().read_images([file])
    by_array = SRSegPreprocessor().run_case_npy(
        image, None, properties, plans_manager, configuration_manager, dataset_file
    )
    by_file = SRSegPreprocessor().run_case(
        [file], None, plans_manager, configuration_manager, dataset_file
    )
    np.testing.assert_array_equal(by_array[0], by_file[0])
    native = [case[2]["srseg"].pop("native_lr", None) for case in (by_array, by_file)]
    np.testing.assert_array_equal(*native)
    assert by_array[2] == by_file[2]
    assert by_file[2]["shape_before_cropping"] == image.shape[1:]


def test_stock_driver_and_stock_manager_reach_the_same_triplet(tiny_copy):
    """nnU-Net's own `run` calls `run_case_save` with its own configuration manager."""
    folder = write_tiny_plans(tiny_copy)
    expected = contents(run(folder))["tiny_0"]
    plans_manager, configuration_manager = managers(
        json.loads((folder / "srsegPlans.json").read_text())
    )
    stock_manager = ConfigurationManager(configuration_manager.configuration)
    image_file = str(tiny_copy / "imagesTr/tiny_0_0000.nii.gz")
    seg_file = str(tiny_copy / "labelsTr/tiny_0.nii.gz")
    arguments = (plans_manager, stock_manager, str(folder / "dataset.json"))
    target = tiny_copy / "elsewhere" / "tiny_0"
    SRSegPreprocessor().run_case_save(str(target), [image_file], seg_file, *arguments)
    written = contents(target.parent)["tiny_0"]
    hr_image, hr_seg, _ = SRSegPreprocessor().run_case([image_file], seg_file, *arguments)
    for a, b in zip(written[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(hr_image, expected[0])
    np.testing.assert_array_equal(hr_seg, expected[1])


def test_the_work_on_a_case_pickles(tiny_copy, tmp_path):
    """Where processes are spawned (macOS, Windows) it travels to the workers."""
    folder = write_tiny_plans(tiny_copy)
    expected = contents(run(folder))["tiny_0"]
    plans = json.loads((folder / "srsegPlans.json").read_text())
    dataset_json = json.loads((folder / "dataset.json").read_text())
    work = _CaseWork(SRSegPreprocessor(), tmp_path / "out", *managers(plans), dataset_json)
    files = training_files(tiny_copy, dataset_json)["tiny_0"]
    work, files = pickle.loads(pickle.dumps((work, files)))
    assert work(files) is True  # it has foreground
    for a, b in zip(contents(tmp_path / "out")["tiny_0"][:3], expected[:3], strict=True):
        np.testing.assert_array_equal(a, b)


def test_real_pairs(tiny_copy):
    """LR files are taken as they are; what the HR scan does not cover is stored as not valid."""
    (tiny_copy / "imagesLrTr").mkdir()
    for number in range(5):
        image, affine = read_volume(tiny_copy / "imagesTr" / f"tiny_{number}_0000.nii.gz")
        lr_image = image[:, :28, :28].reshape(image.shape[0], 14, 2, 14, 2).mean((2, 4))
        coarser = np.diag([2.0, 2.0, 1.0, 1.0])
        coarser[:2, 3] = 0.5
        if number == 3:  # two more LR slices below the HR scan
            lr_image = np.concatenate((lr_image[:2], lr_image)) + 1
            coarser[2, 3] = -2
        save_volume(
            lr_image.astype(np.float32),
            tiny_copy / "imagesLrTr" / f"tiny_{number}_0000.nii.gz",
            affine @ coarser,
        )
    done = run(write_tiny_plans(tiny_copy, degradation=spec_json("paired")))
    dataset = SRSegDataset(str(done))
    assert dataset.load_valid("tiny_0") is None
    valid = dataset.load_valid("tiny_3")[:]
    assert valid.shape == (1, 11, 28, 28)
    assert not valid[:, :2].any()
    assert valid[:, 2:].all()
    lr_file, _ = read_volume(tiny_copy / "imagesLrTr" / "tiny_3_0000.nii.gz")
    expected = (lr_file - lr_file.mean()) / lr_file.std()
    np.testing.assert_allclose(dataset.load_lr("tiny_3")[0], expected, atol=1e-4)


def test_cases_without_labels_lie_where_stock_training_does_not_look(tiny_copy, caplog):
    folder = write_tiny_plans(tiny_copy)
    done = run(folder)
    before, record = contents(done), (done / RECORD_FILE).read_text()
    write_unlabelled(tiny_copy, 0, 3)
    with caplog.at_level("INFO"):
        run(folder)
    assert "5 of 5 cases are done, 0 to go." in caplog.text
    assert "no foreground" not in caplog.text
    assert_equal(contents(done), before)
    assert (done / RECORD_FILE).read_text() == record
    assert sorted(infer_dataset_class(str(done)).get_identifiers(str(done))) == sorted(before)
    unlabelled = contents(done / "unlabelled")
    assert sorted(unlabelled) == ["more_0", "more_3"]
    for name, (hr_image, hr_seg, lr_image, properties) in unlabelled.items():
        assert not (hr_seg > 0).any()
        assert pickle.loads(properties)["class_locations"] == {}
        # the same patient, 1.5 times as bright: the same after normalisation
        labelled = before[name.replace("more", "tiny")]
        np.testing.assert_allclose(hr_image, labelled[0], atol=1e-4)
        np.testing.assert_allclose(lr_image, labelled[2], atol=1e-4)


def test_cases_without_labels_are_resumed_and_hashed(tiny_copy, caplog):
    write_unlabelled(tiny_copy, 0, 1, 3)
    folder = write_tiny_plans(tiny_copy)
    done = run(folder) / "unlabelled"
    before = contents(done)
    (done / "more_1.pkl").unlink()
    with caplog.at_level("INFO"):
        run(folder)
    assert "2 of 3 unlabelled cases are done, 1 to go." in caplog.text
    assert_equal(contents(done), before)
    save_volume(read_volume(tiny_copy / "imagesTr/tiny_2_0000.nii.gz")[0], tiny_copy / MORE_3)
    with pytest.raises(
        ValueError, match=r"unlabelled was .* \(raw files of more_3 changed\).*--cl"
    ):
        run(folder)
    run(folder, clean=True)
    shutil.rmtree(tiny_copy / "imagesUnTr")
    with pytest.raises(ValueError, match=r"raw files of more_0 removed; raw files of more_1 rem"):
        run(folder)
    run(folder, clean=True)
    assert not done.exists()


def test_a_case_that_gets_labels_is_no_longer_without(tiny_copy, caplog):
    write_unlabelled(tiny_copy, 0, 3)
    folder = write_tiny_plans(tiny_copy)
    done = run(folder)
    (tiny_copy / MORE_3).rename(tiny_copy / "imagesTr/more_3_0000.nii.gz")
    shutil.copy(tiny_copy / "labelsTr/tiny_3.nii.gz", tiny_copy / "labelsTr/more_3.nii.gz")
    with caplog.at_level("INFO"):
        run(folder)
    assert "case more_3 has labels now" in caplog.text
    assert sorted(contents(done / "unlabelled")) == ["more_0"]
    assert not any("more_3" in file for file in files_of(done / "unlabelled"))
    assert (contents(done)["more_3"][1] > 0).any()


def test_a_bad_case_without_labels_is_named(tiny_copy):
    write_unlabelled(tiny_copy, 0, 3)
    image, affine = read_volume(tiny_copy / MORE_3)
    image = image.copy()
    image[3, 4, 5] = np.nan
    save_volume(image, tiny_copy / MORE_3, affine)
    with pytest.raises(RuntimeError, match=r"^case more_3: .* holds 1 NaN"):
        run(write_tiny_plans(tiny_copy))


def test_large_cases_without_labels_are_made_by_fewer_processes(tiny_copy, monkeypatch):
    write_unlabelled(tiny_copy, 0, 3)
    image, affine = read_volume(tiny_copy / MORE_3)
    save_volume(np.tile(image, (3, 1, 1)), tiny_copy / MORE_3, affine)
    asked = []
    count = environment.worker_count
    monkeypatch.setattr(
        environment, "worker_count", lambda *args: asked.append(args) or count(*args)
    )
    run(write_tiny_plans(tiny_copy), 1)
    (labelled, _), (unlabelled, _) = asked
    largest = max(np.prod(shape) for shape in SHAPES[:5])
    assert unlabelled == int(labelled * 3 * np.prod(SHAPES[3]) / largest)


def test_pairs_without_labels(tiny_copy):
    """The LR image is taken as it is, as of a pair with labels."""
    write_unlabelled(tiny_copy, 0)
    (tiny_copy / "imagesLrTr").mkdir()
    for name in ("more_0", *(f"tiny_{number}" for number in range(5))):
        part = "imagesUnTr" if name == "more_0" else "imagesTr"
        image, affine = read_volume(tiny_copy / part / f"{name}_0000.nii.gz")
        lr_image = image[:, :28, :28].reshape(image.shape[0], 14, 2, 14, 2).mean((2, 4))
        coarser = np.diag([2.0, 2.0, 1.0, 1.0])
        coarser[:2, 3] = 0.5
        file = tiny_copy / "imagesLrTr" / f"{name}_0000.nii.gz"
        save_volume(lr_image.astype(np.float32), file, affine @ coarser)
    done = run(write_tiny_plans(tiny_copy, degradation=spec_json("paired")))
    unlabelled, labelled = contents(done / "unlabelled")["more_0"], contents(done)["tiny_0"]
    np.testing.assert_allclose(unlabelled[2], labelled[2], atol=1e-4)
    assert not (unlabelled[1] > 0).any()


def test_2d_configuration(tiny_copy):
    folder = write_tiny_plans(
        tiny_copy, hr_spacing=SPACING[1:], scale=(2, 2),
        degradation=spec_json("identity", "kspace_crop", "kspace_crop"),
    )  # fmt: skip
    done = run(folder, configuration="2d")
    hr_image, _, lr_image, _ = contents(done)["tiny_0"]
    assert hr_image.shape[1:] == (7, 2 * lr_image.shape[2], 2 * lr_image.shape[3])
    assert lr_image.shape[1] == 7


def test_unknown_names_list_the_known(tiny_copy):
    folder = write_tiny_plans(tiny_copy)
    preprocessor = SRSegPreprocessor()
    with pytest.raises(ValueError, match="unknown dataset '7' .*known: Dataset901_Tiny"):
        preprocessor.run(7, "3d_fullres", "srsegPlans", 1)
    with pytest.raises(ValueError, match="unknown configuration '3d_lowres' .*known: 3d_fullres"):
        preprocessor.run(901, "3d_lowres", "srsegPlans", 1)
    with pytest.raises(FileNotFoundError, match="known: srsegPlans"):
        preprocessor.run(folder.name, "3d_fullres", "otherPlans", 1)


def test_memory_grows_with_the_largest_case(tmp_path):
    arguments = managers(hand_plans((2.0, 0.5, 0.5), (1, 2, 2)))
    fingerprint = {"shapes_after_crop": [[10, 20, 30], [20, 40, 60]], "spacings": [[2, 1, 1]] * 2}
    file = tmp_path / "dataset_fingerprint.json"
    without = peak_bytes(file, *arguments)
    file.write_text(json.dumps(fingerprint))
    refined = 20 * 40 * 60 * 4  # the plan's grid is 4 times finer than the largest case's
    assert peak_bytes(file, *arguments) == 400 * 2**20 + refined * 104
    assert without > 400 * 2**20
