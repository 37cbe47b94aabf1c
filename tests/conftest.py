"""Folders, real data and a tiny dataset for all tests.

The three nnU-Net folders point into a temporary folder from the first moment on, so that no test
can touch a user's own, and nnU-Net's search for trainer classes (it imports torchvision) raises.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nnunetv2.utilities.find_objects
import pytest

from tests.tiny_dataset import TINY_ID, TINY_NAME, write_tiny_dataset

PROJECT = Path(__file__).resolve().parent.parent
_TRAIN_ALONE = """
import sys
from srseg.cli.train import main
status = main(sys.argv[1:])
assert "torchvision" not in sys.modules, "nnU-Net's trainers were searched"
sys.exit(status)
"""
FOLDER_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def _refuse_to_search(trainer_name: str) -> None:
    raise AssertionError(f"srseg must never search nnU-Net's folders for trainer {trainer_name}")


# Before any module that says `from ... import recursive_find_trainer_class_by_name` is loaded.
nnunetv2.utilities.find_objects.recursive_find_trainer_class_by_name = _refuse_to_search


def pytest_configure(config: pytest.Config) -> None:
    """Point the nnU-Net folders to a new temporary folder for the whole run."""
    root = Path(tempfile.mkdtemp(prefix="srseg_tests_"))
    config.add_cleanup(lambda: shutil.rmtree(root, ignore_errors=True))
    for variable in FOLDER_VARIABLES:
        (root / variable).mkdir()
        os.environ[variable] = str(root / variable)
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        _take_one_core(int(worker.removeprefix("gw")))
    os.environ.setdefault("OMP_NUM_THREADS", "2" if worker is None else "1")


def _take_one_core(number: int) -> None:
    """Give this process a core of its own: threads of two test processes wait for each other."""
    if hasattr(os, "sched_setaffinity"):  # Linux
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[number % len(cores)]})


@pytest.fixture(scope="session")
def real_data_folder() -> Path:
    """The nnUNet_raw folder with the real datasets; skips where there is none."""
    folder = Path(os.environ.get("SRSEG_TEST_DATA", PROJECT.parent / "shared/data/nnUNet_raw"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist (SRSEG_TEST_DATA names another folder)")
    return folder


@pytest.fixture
def nnunet_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of this test's own that holds the three nnU-Net folders, all empty."""
    for variable in FOLDER_VARIABLES:
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return tmp_path


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny raw dataset, written once; treat it as read-only and copy it to change it."""
    return write_tiny_dataset(tmp_path_factory.mktemp("tiny") / TINY_NAME)


@pytest.fixture
def tiny_copy(tiny_dataset: Path, nnunet_folders: Path) -> Path:
    """A copy of the tiny dataset in this test's own nnUNet_raw, free to be spoilt."""
    return shutil.copytree(tiny_dataset, nnunet_folders / "nnUNet_raw" / TINY_NAME)


@pytest.fixture(scope="session")
def trained_root(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    """A folder with the three nnU-Net folders: the tiny dataset planned, preprocessed, trained.

    Made once with the real commands; treat it as read-only.
    """
    from srseg.cli import plan_and_preprocess, train

    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        for variable in FOLDER_VARIABLES:
            (root / variable).mkdir()
            patch.setenv(variable, str(root / variable))
        shutil.copytree(tiny_dataset, root / "nnUNet_raw" / TINY_NAME)
        argv = ["-d", TINY_ID, "-c", "3d_fullres", "-np", "1", "-npfp", "1"]
        assert plan_and_preprocess.main(argv) == 0
        options = "-device cpu -num_epochs 2 -iterations_per_epoch 2 -num_workers 0"
        assert train.main([TINY_ID, "3d_fullres", "0", *options.split()]) == 0
    return root


@pytest.fixture
def trained_folders(trained_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`trained_root`, with the folder variables pointing into it for this test."""
    for variable in FOLDER_VARIABLES:
        monkeypatch.setenv(variable, str(trained_root / variable))
    return trained_root


@pytest.fixture(scope="session")
def stock_root(tmp_path_factory: pytest.TempPathFactory, trained_root: Path) -> Path:
    """A copy of `trained_root` with nnU-Net's own trainer trained beside ours, for 1 x 3 steps.

    In a process of its own: nnU-Net reads the size of its process pools when it is imported.
    """
    from srseg import environment

    root = tmp_path_factory.mktemp("stock") / "root"
    shutil.copytree(trained_root, root)
    options = "-tr nnUNetTrainer -device cpu -num_epochs 1 -iterations_per_epoch 3 -num_workers 0"
    subprocess.run(
        [sys.executable, "-c", _TRAIN_ALONE, TINY_ID, "3d_fullres", "0", *options.split()],
        env={**environment.child_environment(root), "nnUNet_def_n_proc": "1"},
        check=True,
    )
    return root
