"""srseg_convert_pairs by its main(argv), up to a preprocessed dataset."""

from __future__ import annotations

import json

import pytest

from srseg.cli import plan_and_preprocess
from srseg.cli.convert_pairs import main
from srseg.plans.managers import load_plans
from srseg.preprocessing.dataset import SRSegDataset
from tests.pair_sides import SCALE, write_sides

CASES = {"a": 0, "b": 1}


@pytest.fixture
def sides(tmp_path):
    return [str(folder) for folder in write_sides(tmp_path / "sides", CASES, suffix="")]


def test_what_it_builds_is_preprocessed(sides, nnunet_folders):
    options = ["-d", "905", "-name", "Pairs", "-labels", "background", "left", "right", "-np", "1"]
    assert main([*sides, *options]) == 0
    dataset_json = nnunet_folders / "nnUNet_raw" / "Dataset905_Pairs" / "dataset.json"
    assert json.loads(dataset_json.read_text())["labels"] == {
        "background": 0, "left": 1, "right": 2,
    }  # fmt: skip
    assert (
        plan_and_preprocess.main(["-d", "905", "-c", "3d_fullres", "-np", "1", "-npfp", "1"]) == 0
    )
    folder = nnunet_folders / "nnUNet_preprocessed" / "Dataset905_Pairs"
    plans_manager = load_plans(folder / "srsegPlans.json")
    configuration = plans_manager.get_configuration("3d_fullres")
    assert plans_manager.native(configuration.scale_3d) == SCALE
    dataset = SRSegDataset(str(folder / "srsegPlans_3d_fullres"))
    assert sorted(dataset.identifiers) == ["a", "b"]
    hr_image, hr_seg, _, _ = dataset.load_case("a")
    lr_image = dataset.load_lr("a")
    assert set(hr_seg[:].ravel()) >= {1, 2}
    assert hr_image.size == lr_image.size * 4


def test_bad_input_is_one_line(sides, nnunet_folders, tmp_path, capsys):
    def error(*options):
        assert main([*sides, *options]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "cannot be the name of a dataset" in error("-d", "905")
    assert "-np must be at least 1" in error("-d", "905", "-name", "P", "-np", "0")
    djfile = tmp_path / "some.json"
    wished = ("-d", "905", "-name", "P", "-djfile", str(djfile))
    assert "(-djfile) does not exist" in error(*wished)
    djfile.write_text("{}")
    assert "declares no labels" in error(*wished)
    djfile.write_text("{")
    assert "not valid JSON" in error(*wished)
    assert "leave out one" in error(*wished, "-labels", "background")
    assert list((nnunet_folders / "nnUNet_raw").iterdir()) == []


def test_overwriting_must_be_asked_for(sides, nnunet_folders, capsys):
    options = ["-d", "Dataset905_Pairs", "-np", "1"]
    assert main([*sides, *options]) == 0
    capsys.readouterr()
    assert main([*sides, *options]) == 1
    assert "--overwrite replaces it" in capsys.readouterr().err
    (nnunet_folders / "nnUNet_preprocessed" / "Dataset905_Pairs").mkdir()
    assert main([*sides, *options, "--overwrite"]) == 0


def test_overwriting_does_not_remove_what_is_to_be_read(sides, nnunet_folders, capsys):
    options = ["-d", "905", "-name", "Pairs", "-np", "1"]
    assert main([*sides, *options]) == 0
    raw = nnunet_folders / "nnUNet_raw" / "Dataset905_Pairs"
    before = sorted(raw.rglob("*"))
    capsys.readouterr()
    inside = [str(raw / "imagesLrTr"), *sides[1:]]
    assert main([*inside, *options, "--overwrite"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "imagesLrTr lies in the dataset that --overwrite replaces" in line
    assert sorted(raw.rglob("*")) == before
