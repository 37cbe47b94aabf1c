"""srseg_adapt train and apply, and srseg_predict -adapter, by their main(argv)."""

from __future__ import annotations

import json
import re
import shutil

import nibabel
import numpy as np
import pytest

from srseg.cli import predict
from srseg.cli.adapt import main
from tests.inference.adapters import write_adapter
from tests.inference.model_folders import write_model
from tests.preprocessing.hand_plans import hand_plans, write_plans
from tests.tiny_dataset import SPACING, TINY_NAME, read_volume, save_volume, tiny_affine
from tests.training.adaptation.domains import ball

METHODS = ("vama", "cyclegan", "munit", "bicyclegan", "unit", "histogram", "none")


@pytest.fixture
def scans(tmp_path):
    """Folders `source`, `target`, and `two` with two channels, of tiny scans."""
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
        for seed in range(2):
            volume = ball(seed + 10, target=name == "target")[0]
            save_volume(volume, tmp_path / name / f"{name}_{seed}_0000.nii.gz")
    (tmp_path / "two").mkdir()
    for channel in range(2):
        save_volume(ball(0, target=True)[0], tmp_path / f"two/a_{channel:04d}.nii.gz")
    return tmp_path


def train(scans, *more, method="cyclegan", output="model", source="source", target="target"):
    return main(
        ["train", "-source", str(source if source.isdecimal() else scans / source),
         "-target", str(target if str(target).isdecimal() else scans / target),
         "-o", str(scans / output), "-method", method, "-patch_size", "4", "8", "8",
         "-batch_size", "1", "-device", "cpu", *more]
    )  # fmt: skip


def error_of(capsys):
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("method", METHODS)
def test_train_then_apply_writes_the_same_names_and_headers(scans, method):
    assert train(scans, "-num_steps", "1", method=method) == 0
    description = json.loads((scans / "model/adapter.json").read_text())
    assert description["method"] == method
    given, made = str(scans / "target"), scans / "out"
    arguments = ["-i", given, "-o", str(made), "-m", str(scans / "model"), "-device", "cpu"]
    assert main(["apply", *arguments, "--no_pbar"]) == 0
    for file in sorted((scans / "target").iterdir()):
        before, after = nibabel.load(file), nibabel.load(made / file.name)
        np.testing.assert_allclose(before.affine, after.affine, atol=1e-5)
        assert before.shape == after.shape
        assert after.get_data_dtype() == np.float32
        is_same = np.array_equal(before.get_fdata(), after.get_fdata())
        assert is_same == (method == "none")
    assert len(list(made.iterdir())) == 2


def test_integers_are_adapted_to_floats_but_kept_by_none(scans):
    file = scans / "target/target_0_0000.nii.gz"
    save_volume((10 * read_volume(file)[0]).astype(np.int16), file)
    for method, dtype in (("histogram", np.float32), ("none", np.int16)):
        assert train(scans, method=method, output=method) == 0
        arguments = ["-i", str(scans / "target"), "-o", str(scans / f"{method}_out")]
        assert main(["apply", *arguments, "-m", str(scans / method), "-device", "cpu"]) == 0
        assert nibabel.load(scans / f"{method}_out" / file.name).get_data_dtype() == dtype


def test_a_network_of_slices(scans):
    assert train(scans, "-num_steps", "1", "-patch_size", "8", "8") == 0
    assert json.loads((scans / "model/adapter.json").read_text())["network"]["num_axes"] == 2


@pytest.mark.parametrize("method", ["vama", "histogram", "none"])
def test_predicting_with_an_adapter_is_applying_then_predicting(tmp_path, scans, method):
    model = write_model(tmp_path / "results")
    adapter = write_adapter(tmp_path / "adapter", method)
    file = scans / "target/target_0_0000.nii.gz"  # a border of zeros: cropped by preprocessing
    volume = np.pad(read_volume(file)[0] + 5, ((1, 0), (0, 2), (0, 0)))
    save_volume(volume, file, np.diag([0.5, 0.75, 4.0, 1.0]))
    save_volume(volume[::-1].copy(), scans / "target/target_1_0000.nii.gz", tiny_affine())
    common = ["-m", str(model), "-device", "cpu", "--no_pbar"]
    given, adapted = str(scans / "target"), str(tmp_path / "adapted")
    arguments = ["-i", given, "-o", str(tmp_path / "at_once"), "-adapter", str(adapter)]
    assert predict.main([*arguments, *common]) == 0
    assert main(["apply", "-i", given, "-o", adapted, "-m", str(adapter), "-device", "cpu"]) == 0
    assert predict.main(["-i", adapted, "-o", str(tmp_path / "after"), *common]) == 0
    assert predict.main(["-i", given, "-o", str(tmp_path / "without"), *common]) == 0
    for name in ("target_0", "target_1"):
        at_once, after, without = (
            nibabel.load(tmp_path / where / f"sr/{name}_0000.nii.gz")
            for where in ("at_once", "after", "without")
        )
        np.testing.assert_allclose(at_once.affine, after.affine, atol=1e-5)
        values = after.get_fdata()
        np.testing.assert_allclose(
            at_once.get_fdata(), values, rtol=1e-4, atol=1e-4 * np.ptp(values)
        )
        assert np.allclose(values, without.get_fdata()) == (method == "none")
        labels = (nibabel.load(tmp_path / w / f"{name}.nii.gz") for w in ("at_once", "after"))
        np.testing.assert_array_equal(*(np.asarray(label.dataobj) for label in labels))
    record = json.loads((tmp_path / "at_once/predict_from_raw_data_args.json").read_text())
    assert record.get("adapter") == (None if method == "none" else str(adapter))


def test_resuming(scans, capsys):
    assert train(scans, "-num_steps", "1", "-seed", "4") == 0
    assert train(scans, "-num_steps", "2", "-seed", "4") == 1
    assert "holds an adapter of method 'cyclegan' already; give --c" in error_of(capsys)
    assert train(scans, "-num_steps", "2", "--c", method="vama") == 1
    assert "was trained by method 'cyclegan', not by 'vama'" in error_of(capsys)
    assert train(scans, "-num_steps", "2", "--c", "-seed", "5") == 1
    assert "training.seed" in error_of(capsys)
    assert train(scans, "-num_steps", "2", "--c", "-seed", "4") == 0
    steps = (scans / "model/training_log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in steps] == [1, 2]


def test_a_method_without_checkpoint_is_not_replaced_by_another(scans, capsys):
    assert train(scans, method="histogram") == 0
    assert train(scans, "--c", method="none") == 1
    assert "was trained by method 'histogram', not by 'none'" in error_of(capsys)
    assert train(scans, "--c", method="histogram") == 0


def test_a_checkpoint_of_another_method_is_refused(scans, capsys):
    assert train(scans, "-num_steps", "1") == 0
    assert train(scans, "-num_steps", "1", method="unit", output="unit") == 0
    shutil.copy(scans / "unit/checkpoint_final.pth", scans / "model/checkpoint_final.pth")
    capsys.readouterr()
    assert train(scans, "-num_steps", "2", "--c") == 1
    assert "was trained by method 'unit', not by 'cyclegan'" in error_of(capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "nowhere"}, "the folder .*nowhere does not exist"),
        ({"target": "empty"}, "empty has no images: files named <case>_0000"),
        ({"target": "two"}, r"source has 1 channel\(s\), but the target .*two has 2"),
        ({"more": ["-num_steps", "0"]}, "-num_steps and -batch_size must be at least 1"),
        ({"more": ["-time_budget", "0"]}, "-time_budget must be above 0"),
        ({"more": ["-learning_rate", "0"]}, "-learning_rate must be above 0"),
        ({"more": ["-patch_size", "4"]}, "-patch_size takes Z Y X, or Y X"),
        ({"more": ["-weights", "cycle"]}, "-weights takes TERM=W"),
        ({"more": ["-weights", "cycle_source=-1"]}, "W >= 0, got 'cycle_source=-1'"),
        ({"more": ["-weights", "ssim=1"]}, "has no loss term ssim; it has: fool_source"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_adapter(scans, capsys, change, message):
    (scans / "empty").mkdir()
    (scans / "empty/notes.txt").write_text("no image")
    assert train(scans, *change.pop("more", []), **change) == 1
    line = error_of(capsys)
    assert line.startswith("error: ")
    assert re.search(message, line), line
    assert not (scans / "model/adapter.json").exists()


@pytest.mark.parametrize("kind", ["mixed", "channels", "nan"])
def test_images_that_do_not_go_together_are_named(scans, capsys, kind):
    if kind == "mixed":
        (scans / "source/a_0000.mha").write_bytes(b"")
        words = "different endings: .mha, .nii.gz"
    elif kind == "channels":
        for channel in range(2):
            file = scans / "target/target_1_0000.nii.gz"
            shutil.copy(file, scans / f"target/more_{channel:04d}.nii.gz")
        words = "more has 2, target_0 1"
    else:
        save_volume(np.full((4, 5, 6), np.nan, np.float32), scans / "source/bad_0000.nii.gz")
        words = "case bad"
    assert train(scans) == 1
    assert words in error_of(capsys)


def test_applying_to_other_channels_or_onto_the_input(scans, capsys):
    adapter = write_adapter(scans / "adapter")
    arguments = ["apply", "-m", str(adapter), "-device", "cpu"]
    assert main([*arguments, "-i", str(scans / "two"), "-o", str(scans / "out")]) == 1
    assert "case a: the adapter takes 1 channel(s)" in error_of(capsys)
    assert main([*arguments, "-i", str(scans / "target"), "-o", str(scans / "target")]) == 1
    assert "the output folder is the input folder" in error_of(capsys)


def test_a_dataset_stands_for_its_simulated_lr_images(tiny_copy, tmp_path):
    from srseg.cli import simulate

    root = tiny_copy.parent.parent
    write_plans(hand_plans(SPACING, (1, 2, 2)), tiny_copy, root / "nnUNet_preprocessed")
    lr_files = tmp_path / "lr"
    arguments = ["-i", str(tiny_copy / "imagesTr"), "-o", str(lr_files), "-d", "901", "-np", "1"]
    assert simulate.main(arguments) == 0
    for source, output in (("901", "a"), (str(lr_files), "b")):
        assert (
            train(tmp_path, source=source, target=lr_files, method="histogram", output=output) == 0
        )
    first, second = (json.loads((tmp_path / f"{o}/adapter.json").read_text()) for o in "ab")
    assert first["quantiles"] == second["quantiles"]
    assert first["training"]["source"] == TINY_NAME
    shutil.copytree(lr_files, tiny_copy / "imagesLrTr")
    assert train(tmp_path, source="901", target=lr_files, method="histogram", output="c") == 0
    third = json.loads((tmp_path / "c/adapter.json").read_text())
    assert third["training"]["source"].endswith("imagesLrTr")
    assert third["quantiles"] == second["quantiles"]


def test_an_unknown_dataset_lists_the_known_ones(tiny_copy, tmp_path, capsys):
    assert train(tmp_path, source="7", target=tiny_copy / "imagesTr") == 1
    assert "unknown dataset '7'" in error_of(capsys)


def test_a_folder_of_another_model_is_left_alone(scans, capsys):
    """A joint network's fold has checkpoints and logs of the same names."""
    fold = write_model(scans / "results") / "fold_0"
    (fold / "training_log.jsonl").write_text('{"epoch": 3}\n')
    before = {file: file.read_bytes() for file in fold.iterdir()}
    capsys.readouterr()
    for more in ((), ("--c",)):
        assert train(scans, "-num_steps", "1", *more, output=fold) == 1
        assert "holds a training of something else" in error_of(capsys)
    assert {file: file.read_bytes() for file in fold.iterdir()} == before


@pytest.mark.parametrize("command", ["train", "apply"])
def test_a_file_in_the_place_of_the_output_is_one_line(scans, capsys, command):
    (scans / "taken").write_text("a file")
    if command == "train":
        assert train(scans, method="none", output="taken") == 1
    else:
        adapter = write_adapter(scans / "adapter", "none")
        arguments = ["-i", str(scans / "target"), "-o", str(scans / "taken"), "-m", str(adapter)]
        assert main(["apply", *arguments, "-device", "cpu"]) == 1
    assert "taken" in error_of(capsys)
    assert (scans / "taken").read_text() == "a file"


def test_a_histogram_is_not_replaced_by_that_of_other_images(scans, capsys):
    assert train(scans, method="histogram") == 0
    before = (scans / "model/adapter.json").read_bytes()
    assert train(scans, "--c", method="histogram", source="target") == 1
    assert "begun with other settings or images: " in error_of(capsys)
    assert (scans / "model/adapter.json").read_bytes() == before


def test_an_adapter_whose_training_stopped_says_so(scans, capsys):
    adapter = write_adapter(scans / "adapter")
    (adapter / "checkpoint_final.pth").rename(adapter / "checkpoint_latest.pth")
    arguments = ["-i", str(scans / "target"), "-o", str(scans / "out"), "-m", str(adapter)]
    assert main(["apply", *arguments, "-device", "cpu"]) == 1
    assert "training is not finished; srseg_adapt train --c goes on" in error_of(capsys)


def test_a_dataset_needs_no_labels_but_plans(tiny_copy, tmp_path, capsys):
    """Of a target there are images only."""
    shutil.rmtree(tiny_copy / "labelsTr")
    images = tiny_copy / "imagesTr"
    assert train(tmp_path, source=str(images), target="901", method="none") == 1
    assert "or give a folder of LR images instead of the dataset" in error_of(capsys)
    root = tiny_copy.parent.parent
    write_plans(hand_plans(SPACING, (1, 2, 2)), tiny_copy, root / "nnUNet_preprocessed")
    assert train(tmp_path, source=str(images), target="901", method="none") == 0
    described = json.loads((tmp_path / "model/adapter.json").read_text())
    assert described["training"]["num_target"] == len(list(images.iterdir()))


def test_going_on_with_another_adapter_does_not_mix_predictions(tmp_path, scans, capsys):
    model, adapter = write_model(tmp_path / "results"), write_adapter(tmp_path / "adapter")
    (scans / "target/target_1_0000.nii.gz").unlink()
    arguments = ["-i", str(scans / "target"), "-o", str(tmp_path / "out"), "-m", str(model)]
    arguments += ["-device", "cpu", "--no_pbar", "--disable_tta", "--c"]
    assert predict.main(arguments) == 0
    capsys.readouterr()
    assert predict.main([*arguments, "-adapter", str(adapter)]) == 1
    assert "were predicted with no adapter, not with -adapter" in error_of(capsys)
    assert predict.main(arguments) == 0
