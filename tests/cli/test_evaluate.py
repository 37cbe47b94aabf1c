"""srseg_evaluate by its main: files, table, and one line for each mistake."""

from __future__ import annotations

import json
import shutil

import pytest

from srseg.cli.evaluate import main
from tests.evaluation.pair_folders import part_pair
from tests.evaluation.prediction_folders import Folders, write_folders


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Folders:
    return write_folders(tmp_path_factory.mktemp("evaluate"))


@pytest.fixture
def folders(written, tmp_path) -> Folders:
    shutil.copytree(written.root, tmp_path / "copy")
    return Folders(tmp_path / "copy")


def arguments(folders: Folders, *more) -> list[str]:
    return ["-gt", str(folders.labels), "-pred", str(folders.out), "-np", "1", *map(str, more)]


def test_everything(folders, capsys):
    assert main(arguments(folders, "-hr_images", folders.hr_images)) == 0
    printed = capsys.readouterr().out
    assert "near (1)" in printed
    assert "srseg - cubic" in printed
    assert str(folders.out / "summary.json") in printed
    for file in ("summary.csv", "summary_mean.csv", "sr/summary_sr.csv"):
        assert (folders.out / file).is_file()
    summary = json.loads((folders.out / "summary.json").read_text(encoding="utf-8"))
    assert summary["num_cases"] == 2
    again = main(arguments(folders, "-hr_images", folders.hr_images))  # its own files do no harm
    assert again == 0


def test_every_option(folders, tmp_path):
    for name in ("plans.json", "dataset.json"):
        (folders.out / name).rename(tmp_path / name)
    (folders.out / "case_b.nii.gz").unlink()
    options = ["-hr_images", folders.hr_images, "-lr_images", folders.lr_images]
    options += ["-djfile", tmp_path / "dataset.json", "-pfile", tmp_path / "plans.json"]
    options += ["-c", "3d_fullres", "-o", tmp_path / "result.json", "--chill"]
    assert main(arguments(folders, *options)) == 0
    names = {p.name for p in tmp_path.glob("result*")}
    assert names == {
        "result.json",
        "result.csv",
        "result_mean.csv",
        "result_sr.json",
        "result_sr.csv",
        "result_sr_mean.csv",
    }
    assert not (folders.out / "summary.json").exists()
    result = json.loads((tmp_path / "result_sr.json").read_text(encoding="utf-8"))
    assert result["metric_per_case"][0]["lr_images"] == str(folders.lr_images)


def test_references_of_another_scan(tmp_path, capsys):
    """Refused by a line that names the switch, taken with it."""
    folders = part_pair(tmp_path)
    assert main(arguments(folders)) == 1
    assert "--resample_references brings references" in capsys.readouterr().err
    assert main(arguments(folders, "--resample_references")) == 0
    assert "references on the predicted grid" in capsys.readouterr().out
    summary = json.loads((folders.out / "summary.json").read_text(encoding="utf-8"))
    assert summary["metric_per_case"][0]["reference_coverage"] < 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("-np", "0"), "-np must be at least 1, got 0"),
        (("-o", "x.csv"), "-o must name a .json file, got 'x.csv'"),
        (("-gt", "nowhere"), "the folder nowhere (-gt) does not exist"),
        (("-pred", "nowhere"), "the folder nowhere (-pred) does not exist"),
        (("-hr_images", "nowhere"), "the folder nowhere does not exist"),
        (("-c", "3d_lowres"), "unknown configuration '3d_lowres'"),
        (("-pfile", "nowhere.json"), "the file 'nowhere.json' does not exist"),
    ],
)
def test_mistakes_are_one_line(folders, capsys, more, words):
    assert main(arguments(folders, *more)) == 1
    captured = capsys.readouterr().err.strip().splitlines()
    assert len(captured) == 1
    assert captured[0].startswith("error: ")
    assert words in captured[0]
    assert not (folders.out / "summary.json").exists()


@pytest.mark.parametrize("argv", [[], ["-gt", "a"], ["-gt", "a", "-pred", "b", "--chil_l"]])
def test_usage_errors(argv):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
