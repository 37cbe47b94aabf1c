"""The report is unpaired, goes on where it ended and says what failed."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
import robustness
import shifts
from robustness import halves, main
from robustness_tables import all_rows, table

from srseg.cli import evaluate, predict, simulate
from srseg.planning.raw_dataset import RawDataset
from srseg.preprocessing.case_files import CaseFiles
from tests.tiny_dataset import NUM_TRAINING, read_volume

COMMANDS = {"simulate": simulate.main, "predict": predict.main, "evaluate": evaluate.main}
CASES = {f"tiny_{number}" for number in range(NUM_TRAINING)}


def option(words, flag):
    return Path(words[words.index(flag) + 1])


def cases_in(folder):
    return {file.name.removesuffix("_0000.nii.gz") for file in folder.glob("*_0000.nii.gz")}


class Commands:
    """Runs srseg's commands in this process; plays srseg_adapt, which dims the images."""

    def __init__(self, monkeypatch):
        self.names: list[str] = []
        self.adapt: list[list[str]] = []
        self.broken: set[str] = set()
        monkeypatch.setattr(robustness, "run", self)

    def __call__(self, words, report):
        if Path(words[1]).name == "shifts.py":
            self.names.append("shift")
            shifts.main(words[2:])
            return
        name = words[2].split("srseg.cli.")[1].split()[0]
        self.names.append(name)
        if name == "adapt":
            self.play(words[3:])
        elif COMMANDS[name](words[3:]):
            raise RuntimeError(f"{name} failed")

    def play(self, words):
        self.adapt.append(words)
        output = option(words, "-o")
        if words[0] == "train":
            (output / "model").touch()
            if words[words.index("-method") + 1] in self.broken:
                raise RuntimeError("the adapter broke")
        else:
            assert (option(words, "-m") / "model").exists()
            for file in option(words, "-i").iterdir():
                shutil.copyfile(file, output / file.name)


@pytest.fixture
def commands(monkeypatch, trained_folders):
    return Commands(monkeypatch)


@pytest.fixture
def start(tmp_path, commands):
    """Return a function that runs the report with more options."""

    def start(*options):
        commands.names.clear()
        arguments = ["-d", "901", "-o", str(tmp_path / "report"), "--disable_tta", *options]
        return main(arguments)

    return start


def test_a_report_from_files_to_tables(start, commands, tmp_path):
    wished = ["-shifts", "none", "contrast", "-adapters", "none", "vama", "-num_steps", "3"]
    assert start(*wished) == 0
    report = tmp_path / "report"
    parts = {
        name: set(cases) for name, cases in json.loads((report / "cases.json").read_text()).items()
    }
    assert set.union(*parts.values()) == CASES
    assert sum(map(len, parts.values())) == len(CASES)  # no case is in two

    train, apply, _, _ = commands.adapt
    assert train[0] == "train"
    assert cases_in(option(train, "-source")) == parts["source"]
    assert cases_in(option(train, "-target")) == parts["target"]
    assert train[train.index("-method") + 1] == "vama"
    assert train[train.index("-num_steps") + 1] == "3"
    assert "-time_budget" not in train
    assert apply[0] == "apply"
    assert cases_in(option(apply, "-i")) == parts["val"]
    shifted_train, shifted_apply = commands.adapt[2:]
    (case,) = parts["val"]
    plain, changed = (
        read_volume(option(words, "-i") / f"{case}_0000.nii.gz")[0]
        for words in (apply, shifted_apply)
    )
    assert abs(plain - changed).max() > 10
    assert option(shifted_train, "-source") == option(train, "-source")  # the source is not shifted
    assert option(shifted_train, "-target") != option(train, "-target")

    with (report / "robustness.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["shift"], row["adapter"]) for row in rows] == [
        ("none", "none"), ("none", "vama"), ("contrast", "none"), ("contrast", "vama"),
    ]  # fmt: skip
    summary = report / "predictions" / "contrast__none"
    dice = json.loads((summary / "summary.json").read_text())["foreground_mean"]["Dice"]
    psnr = json.loads((summary / "sr" / "summary_sr.json").read_text())["mean"]["psnr_body_db"]
    assert float(rows[2]["dice"]) == dice
    assert float(rows[2]["sr_psnr_db"]) == psnr
    assert float(rows[0]["sr_psnr_db"]) > psnr
    assert (report / "robustness.md").read_text().count("\n| ") == 5

    # what is finished is not computed again, what is missing is
    assert start(*wished) == 0
    assert commands.names == []
    (report / "rows" / "none__vama.json").unlink()
    shutil.rmtree(report / "predictions" / "none__vama")
    assert start(*wished) == 0
    assert commands.names == ["predict", "evaluate"]
    # further combinations join the table
    assert start("-shifts", "bias", "-adapters", "none", "-num_steps", "3") == 0
    assert commands.names == ["shift", "predict", "evaluate"]
    assert len(all_rows(report)) == 5

    with pytest.raises(ValueError, match="other settings: num_steps 3 there, 4 now"):
        start("-num_steps", "4")


def test_a_failure_leaves_the_others_and_nothing_half_done(start, commands, tmp_path, capsys):
    commands.broken = {"unit"}
    assert start("-shifts", "none", "-adapters", "unit", "none") == 1
    assert "none, unit: the adapter broke" in capsys.readouterr().err
    report = tmp_path / "report"
    assert [row["adapter"] for row in all_rows(report)] == ["none"]
    assert not (report / "adapted" / "none__unit" / "model").exists()
    commands.broken.clear()
    assert start("-shifts", "none", "-adapters", "unit") == 0
    assert [row["adapter"] for row in all_rows(report)] == ["none", "unit"]


@pytest.mark.parametrize("count", [2, 7, 8])
def test_halves_share_nothing(count):
    cases = [f"case_{number}" for number in range(count)]
    source, target = halves(cases, 0)
    assert sorted(source + target) == cases
    assert abs(len(source) - len(target)) <= 1
    assert (source, target) == halves(list(reversed(cases)), 0)
    if count > 2:
        assert source != halves(cases, 1)[0]


def test_one_case_cannot_be_two_domains():
    with pytest.raises(ValueError, match="at least two training cases, the fold has 1"):
        halves(["a"], 0)


def test_real_pairs_are_not_simulated(tmp_path):
    for name in ("hr_0000", "lr_0000", "hr"):
        (tmp_path / f"{name}.nii.gz").write_text(name)
    files = CaseFiles(
        "a",
        (tmp_path / "hr_0000.nii.gz",),
        tmp_path / "hr.nii.gz",
        (tmp_path / "lr_0000.nii.gz",),
    )
    raw = RawDataset("Dataset001_A", tmp_path, {"file_ending": ".nii.gz"}, {"a": files})
    report = robustness.Report(
        tmp_path / "report", raw, tmp_path, "3d_fullres", argparse.Namespace()
    )
    folder = robustness.lr_images(report, "val", ["a"])
    assert [(file.name, file.read_text()) for file in folder.iterdir()] == [
        ("a_0000.nii.gz", "lr_0000")
    ]
    assert (report.folder / "hr" / "val" / "a_0000.nii.gz").read_text() == "hr_0000"


def test_a_command_that_fails_says_why_and_all_is_logged(tmp_path):
    report = robustness.Report(tmp_path, None, tmp_path, "", argparse.Namespace(threads=3))
    show = "import os; print('threads', os.environ['OMP_NUM_THREADS'])"
    robustness.run([sys.executable, "-c", show], report)
    fail = "import sys; print('error: no such thing', file=sys.stderr); sys.exit(4)"
    with pytest.raises(RuntimeError, match="ended with 4: error: no such thing$"):
        robustness.run([sys.executable, "-c", fail, "word"], report)
    log = (tmp_path / "log.txt").read_text()
    assert "threads 3" in log
    assert "error: no such thing" in log


def test_the_real_commands_are_found(tmp_path):
    report = robustness.Report(tmp_path, None, tmp_path, "", argparse.Namespace(threads=1))
    robustness.run(robustness.command("simulate", "--help"), report)
    assert "srseg_simulate" in (tmp_path / "log.txt").read_text()


def test_a_value_that_is_not_known_is_a_dash():
    row = {"shift": "none", "adapter": "vama", "num_cases": 3, "dice": 0.81239}
    row |= {"sr_psnr_db": None, "sr_ssim": 0.5, "gain_db": -0.128}
    text = table([row], {"dataset": "A", "num_steps": None})
    assert "| none | vama | 3 | 0.8124 | - | 0.5000 | -0.13 |" in text
    assert "dataset A\n" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-shifts", "rain"], "unknown -shifts 'rain'; known: none, contrast, .*, tissue"),
        (["-adapters", "magic"], "unknown -adapters 'magic'; known: none, histogram"),
        (["-max_cases", "0"], "-max_cases must be at least 1"),
    ],
)
def test_bad_wishes(start, options, message):
    with pytest.raises(ValueError, match=message):
        start(*options)
