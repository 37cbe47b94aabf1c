"""The tiny dataset with three models, and what `srseg_compare` makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from srseg.cli import compare
from tests.conftest import FOLDER_VARIABLES
from tests.evaluation.compare.model_folders import write_model
from tests.tiny_dataset import TINY_ID


@pytest.fixture(scope="module")
def models_root(trained_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `trained_root` with two models more: one reads LR, one HR images."""
    root = tmp_path_factory.mktemp("models") / "root"
    shutil.copytree(trained_root, root)
    write_model(root, "lr_then_upsample", seed=1)
    write_model(root, "oracle", input="hr", seed=2)
    return root


@pytest.fixture
def folders(models_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`models_root`, with the folder variables pointing into it for this test."""
    for variable in FOLDER_VARIABLES:
        monkeypatch.setenv(variable, str(models_root / variable))
    return models_root


@pytest.fixture(scope="module")
def compared(models_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of one comparison of everything there is."""
    output = tmp_path_factory.mktemp("compared") / "out"
    with pytest.MonkeyPatch.context() as patch:
        for variable in FOLDER_VARIABLES:
            patch.setenv(variable, str(models_root / variable))
        argv = ["-d", TINY_ID, "-f", "0", "-o", str(output), "-device", "cpu", "-np", "1"]
        assert compare.main(argv) == 0
    return output
