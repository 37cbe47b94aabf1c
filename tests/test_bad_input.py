"""Every mistake of a user ends in one line that names what was got, what is allowed and where."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.tiny_dataset import TINY_ID, TINY_NAME, read_volume, save_volume, tiny_affine

Run = Callable[[str, Sequence[str]], tuple[int, str]]
PREPARE = ["-d", TINY_ID, "-c", "3d_fullres", "-np", "1", "-npfp", "1"]
SHORT = ["-device", "cpu", "-num_epochs", "1", "-iterations_per_epoch", "1", "-num_workers", "0"]
MODEL = "SRSegTrainer__srsegPlans__3d_fullres"


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command; return its status and its one line on stderr ("" for none)."""

    def run_command(command: str, argv: Sequence[str]) -> tuple[int, str]:
        main = importlib.import_module(f"srseg.cli.{command}").main
        capfd.readouterr()
        status = main([str(argument) for argument in argv])
        lines = capfd.readouterr().err.strip().splitlines()
        assert len(lines) <= 1, lines
        return status, lines[0] if lines else ""

    return run_command


def assert_refused(outcome: tuple[int, str], *words: str) -> None:
    status, line = outcome
    assert status == 1, line
    assert line.startswith("error: ")
    for word in words:
        assert word in line, f"'{word}' is not in: {line}"


def assert_nothing_half_written(folder: Path) -> None:
    left = [f for f in folder.rglob("*") if f.is_file() and (".tmp" in str(f.relative_to(folder)))]
    assert not left


def image_file(dataset: Path, case: int = 2, part: str = "Tr", channel: int = 0) -> Path:
    return dataset / f"images{part}" / f"tiny_{case}_{channel:04d}.nii.gz"


def label_file(dataset: Path, case: int = 2) -> Path:
    return dataset / "labelsTr" / f"tiny_{case}.nii.gz"


def change(file: Path, change_voxels: Callable[[np.ndarray], np.ndarray]) -> None:
    array, affine = read_volume(file)
    save_volume(change_voxels(array.copy()), file, affine)


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_folder_variable_not_set(
    run: Run, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch, variable: str
):
    monkeypatch.delenv(variable)
    assert_refused(run("plan_and_preprocess", PREPARE), variable, "not set")


def test_results_variable_not_set(run: Run, trained_folders: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("nnUNet_results")
    assert_refused(run("train", [TINY_ID, "3d_fullres", "0", *SHORT]), "nnUNet_results", "not set")


def test_unknown_dataset(run: Run, tiny_copy: Path):
    assert_refused(run("plan_and_preprocess", ["-d", "77"]), "'77'", TINY_NAME)
    assert_refused(run("train", ["77", "3d_fullres", "0"]), "'77'")


def test_unknown_configuration(run: Run, trained_folders: Path, tiny_copy_of_trained: Path):
    assert_refused(run("train", [TINY_ID, "3d_fulres", "0", *SHORT]), "'3d_fulres'", "3d_fullres")
    argv = ["-d", TINY_ID, "-c", "3d_fulres"]
    assert_refused(run("preprocess", argv), "'3d_fulres'", "3d_fullres")


def test_unknown_method(run: Run, trained_folders: Path):
    argv = [TINY_ID, "3d_fullres", "0", "-tr", "SRSegTrainr", *SHORT]
    assert_refused(run("train", argv), "'SRSegTrainr'", "SRSegTrainer")


def test_unknown_plans(run: Run, trained_folders: Path):
    argv = [TINY_ID, "3d_fullres", "0", "-p", "srsegPlan", *SHORT]
    assert_refused(run("train", argv), "srsegPlan", "srsegPlans")


@pytest.mark.parametrize("fold", ["5", "-1", "first"])
def test_unknown_fold_in_training(run: Run, trained_folders: Path, fold: str):
    assert_refused(
        run("train", [TINY_ID, "3d_fullres", fold, *SHORT]), f"'{fold}'", "0", "4", "all"
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-c", "2dd"], ["2dd", "3d_fullres"]),
        (["-tr", "Other"], ["Other", "SRSegTrainer"]),
        (["-p", "otherPlans"], ["otherPlans", "srsegPlans"]),
        (["-f", "3"], ["3", "0"]),
        (["-chk", "checkpoint_bets.pth"], ["checkpoint_bets.pth", "checkpoint_final.pth"]),
        (["-device", "gpu"], ["'gpu'", "cpu"]),
    ],
)
def test_unknown_names_in_prediction(
    run: Run, trained_folders: Path, tmp_path: Path, flags: list[str], words: list[str]
):
    images = trained_folders / "nnUNet_raw" / TINY_NAME / "imagesTs"
    outcome = run("predict", ["-i", images, "-o", tmp_path / "out", "-d", TINY_ID, *flags])
    assert_refused(outcome, *words)
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


@pytest.fixture
def tiny_copy_of_trained(
    trained_root: Path, nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of everything made for the tiny dataset, free to be spoilt."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        shutil.rmtree(nnunet_folders / variable)
        shutil.copytree(trained_root / variable, nnunet_folders / variable)
        monkeypatch.setenv(variable, str(nnunet_folders / variable))
    return nnunet_folders


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("plan_and_preprocess", ["-d", "901", "-skale", "2"]),
        ("train", ["901", "3d_fullres", "0", "--continue_training_now"]),
        ("predict", ["-i", "in", "-o", "out", "--disable_ttta"]),
        ("evaluate", ["-gt", "a", "-pred", "b", "--chilll"]),
        ("simulate", ["-i", "in", "-o", "out", "-z", "1"]),
        ("doctor", ["--jsn"]),
        ("demo", ["-minuets", "1"]),
    ],
)
def test_misspelt_flag(command: str, argv: list[str], capsys: pytest.CaptureFixture[str]):
    main = importlib.import_module(f"srseg.cli.{command}").main
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"srseg_{command}: error:")


# --- raw data ----------------------------------------------------------------------------------


def spoil_channel(dataset: Path) -> None:
    description = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
    description["channel_names"] = {"0": "MRI", "1": "MRI2"}
    (dataset / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    for file in sorted((dataset / "imagesTr").iterdir()):
        if "tiny_2" not in file.name:
            shutil.copy(file, file.with_name(file.name.replace("_0000", "_0001")))


def spoil_grid(dataset: Path) -> None:
    array, affine = read_volume(label_file(dataset))
    affine = affine.copy()
    affine[:3, 3] += 5.0
    save_volume(array, label_file(dataset), affine)


def spoil_label(dataset: Path) -> None:
    def add_seven(array: np.ndarray) -> np.ndarray:
        array[array == 2] = 7
        return array

    change(label_file(dataset), add_seven)


def spoil_with(value: float) -> Callable[[Path], None]:
    def spoil(dataset: Path) -> None:
        def put(array: np.ndarray) -> np.ndarray:
            array[3, 4:6, 5] = value
            return array

        change(image_file(dataset), put)

    return spoil


def spoil_truncated(dataset: Path) -> None:
    content = image_file(dataset).read_bytes()
    image_file(dataset).write_bytes(content[: len(content) // 2])


def spoil_corrupt(dataset: Path) -> None:
    image_file(dataset).write_bytes(b"this is no image")


def spoil_too_small(dataset: Path) -> None:
    for file in (image_file(dataset), label_file(dataset)):
        change(file, lambda array: array[:, :1, :])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(spoil_channel, ["tiny_2", "2"], id="missing channel"),
        pytest.param(spoil_grid, ["tiny_2", "grid"], id="image and label on different grids"),
        pytest.param(spoil_label, ["tiny_2", "7", "0, 1, 2"], id="label value not declared"),
        pytest.param(spoil_with(np.nan), ["tiny_2", "NaN"], id="NaN"),
        pytest.param(spoil_with(np.inf), ["tiny_2", "infinite"], id="infinite"),
        pytest.param(spoil_truncated, ["tiny_2"], id="truncated file"),
        pytest.param(spoil_corrupt, ["tiny_2"], id="corrupt file"),
        pytest.param(spoil_too_small, ["tiny_2", "smaller", "scale"], id="smaller than the scale"),
    ],
)
def test_bad_case_stops_planning_and_preprocessing(
    run: Run, tiny_copy: Path, nnunet_folders: Path, spoil: Callable[[Path], None], words: list[str]
):
    spoil(tiny_copy)
    assert_refused(run("plan_and_preprocess", PREPARE), *words)
    assert_nothing_half_written(nnunet_folders / "nnUNet_preprocessed")


def test_pair_that_hardly_overlaps(run: Run, tiny_copy: Path):
    (tiny_copy / "imagesLrTr").mkdir()
    for file in sorted((tiny_copy / "imagesTr").iterdir()):
        array, affine = read_volume(file)
        coarse = affine @ np.diag([2, 2, 1, 1.0])
        coarse[:3, 3] = affine[:3, 3] + affine[:3, :3] @ (0.5, 0.5, 0)
        if "tiny_2" in file.name:
            coarse[:3, 3] += affine[:3, :3] @ (20, 20, 0)
        rows, columns = (n - n % 2 for n in array.shape[1:])
        blocks = array[:, :rows, :columns].reshape(-1, rows // 2, 2, columns // 2, 2)
        save_volume(blocks.mean(axis=(2, 4)), tiny_copy / "imagesLrTr" / file.name, coarse)
    assert_refused(run("plan_and_preprocess", PREPARE), "tiny_2", "%", "pair")


def test_case_without_foreground_is_used_with_a_warning(
    run: Run, tiny_copy: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    change(label_file(tiny_copy), np.zeros_like)
    caplog.set_level("WARNING")
    status, _ = run("plan_and_preprocess", PREPARE)
    assert status == 0
    assert "tiny_2" in caplog.text
    assert run("train", [TINY_ID, "3d_fullres", "all", *SHORT])[0] == 0


# --- trained models and prediction -------------------------------------------------------------


def predict_argv(root: Path, out: Path) -> list[str | Path]:
    return ["-i", root / "nnUNet_raw" / TINY_NAME / "imagesTs", "-o", out, "-device", "cpu"]


def test_no_trained_model(run: Run, tiny_copy: Path, nnunet_folders: Path, tmp_path: Path):
    outcome = run("predict", predict_argv(nnunet_folders, tmp_path / "out"))
    assert_refused(outcome, "model", "nnUNet_results")
    assert not (tmp_path / "out").exists()


def test_several_trained_models_must_be_chosen_from(
    run: Run, tiny_copy_of_trained: Path, tmp_path: Path
):
    models = tiny_copy_of_trained / "nnUNet_results" / TINY_NAME
    second = MODEL.replace("SRSegTrainer", "Second")
    shutil.copytree(models / MODEL, models / second)
    outcome = run("predict", predict_argv(tiny_copy_of_trained, tmp_path / "out"))
    assert_refused(outcome, MODEL, second)
    assert not (tmp_path / "out").exists()


def test_one_trained_model_needs_no_choice(run: Run, trained_folders: Path, tmp_path: Path):
    status, line = run("predict", predict_argv(trained_folders, tmp_path / "out"))
    assert (status, line) == (0, "")
    assert (tmp_path / "out" / "tiny_5.nii.gz").is_file()


@pytest.mark.parametrize("command", ["predict", "simulate"])
def test_output_folder_that_cannot_be_made(
    run: Run, trained_folders: Path, tmp_path: Path, command: str
):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    argv = predict_argv(trained_folders, tmp_path / "file" / "out")
    argv = argv if command == "predict" else [*argv[:4], "-d", TINY_ID]
    assert_refused(run(command, argv), str(tmp_path / "file"))


def test_wrong_number_of_channels_at_prediction(run: Run, trained_folders: Path, tmp_path: Path):
    (tmp_path / "in").mkdir()
    source = trained_folders / "nnUNet_raw" / TINY_NAME / "imagesTs" / "tiny_5_0000.nii.gz"
    for channel in range(2):
        shutil.copy(source, tmp_path / "in" / f"tiny_5_{channel:04d}.nii.gz")
    argv = ["-i", tmp_path / "in", "-o", tmp_path / "out", "-d", TINY_ID, "-device", "cpu"]
    assert_refused(run("predict", argv), "tiny_5", "2", "1", "channel")
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


@pytest.mark.parametrize("kind", ["nan", "truncated"])
def test_bad_image_at_prediction(run: Run, trained_folders: Path, tmp_path: Path, kind: str):
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "tiny_9_0000.nii.gz"
    save_volume(np.full((7, 20, 18), np.nan, np.float32), file, tiny_affine())
    if kind == "truncated":
        save_volume(np.random.default_rng(0).random((7, 20, 18)), file, tiny_affine())
        file.write_bytes(file.read_bytes()[:5000])
    argv = ["-i", tmp_path / "in", "-o", tmp_path / "out", "-d", TINY_ID, "-device", "cpu"]
    assert_refused(run("predict", argv), "tiny_9")
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def test_missing_input_folder(run: Run, trained_folders: Path, tmp_path: Path):
    argv = ["-i", tmp_path / "nowhere", "-o", tmp_path / "out", "-d", TINY_ID]
    assert_refused(run("predict", argv), "nowhere")
    assert_refused(run("simulate", argv), "nowhere")
    assert not (tmp_path / "out").exists()


def test_evaluation_of_other_grids(run: Run, trained_folders: Path, tmp_path: Path):
    labels = trained_folders / "nnUNet_raw" / TINY_NAME / "labelsTs"
    shutil.copytree(labels, tmp_path / "pred")
    file = tmp_path / "pred" / "tiny_5.nii.gz"
    image = nibabel.load(file)
    moved = image.affine.copy()
    moved[:3, 3] += 2.0
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), moved), file)
    assert_refused(run("evaluate", ["-gt", labels, "-pred", tmp_path / "pred"]), "tiny_5")
