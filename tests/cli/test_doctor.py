"""srseg_doctor tells what is there; its text and its JSON say the same."""

from __future__ import annotations

import builtins
import json
import platform
from pathlib import Path

import pytest

from srseg import environment
from srseg.cli import doctor

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FOLDERS:
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


def test_json_report_is_complete(folders: Path, capsys: pytest.CaptureFixture[str]):
    assert doctor.main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["versions"]["python"] == platform.python_version()
    assert all(report["versions"][name] for name in doctor.PACKAGES)
    assert report["machine"]["cores"] == environment.available_cores()
    assert report["machine"]["memory_bytes"] > 0
    assert report["device"]["best"] in ("cpu", "cuda", "mps")
    assert report["device"]["cpu_bf16"] is environment.cpu_has_bf16()
    for name in FOLDERS:
        entry = report["folders"][name]
        assert (entry["set"], entry["exists"], entry["writable"]) == (True, True, True)
        assert entry["path"] == str(folders / name)
    assert report["problems"] == []


def test_text_report_names_everything(folders: Path, capsys: pytest.CaptureFixture[str]):
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    for word in ("python", *doctor.PACKAGES, "CUDA", "bfloat16", "cores", "memory", *FOLDERS):
        assert word in text
    assert text.count("(writable") == 3
    assert text.rstrip().endswith("no problem found")


def test_unset_and_missing_folders_are_problems(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv("nnUNet_raw")
    monkeypatch.setenv("nnUNet_results", str(folders / "nowhere" / "results"))
    report = doctor.examine()
    assert report["folders"]["nnUNet_raw"]["set"] is False
    assert report["folders"]["nnUNet_results"]["exists"] is False
    assert len(report["problems"]) == 2
    assert "export nnUNet_raw=" in report["problems"][0]
    assert "nowhere/results' is not an existing folder" in report["problems"][1]
    doctor.main([])
    assert capsys.readouterr().out.count("problem: ") == 2


def test_folder_that_a_command_would_make_is_no_problem(
    folders: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("nnUNet_results", str(folders / "new"))
    report = doctor.examine()
    assert report["problems"] == []
    assert any("new (does not exist yet)" in line for line in doctor.as_lines(report))
    monkeypatch.setattr(doctor, "_is_writable", lambda folder: folder != folders)
    assert doctor.examine()["problems"] == [f"nnUNet_results: '{folders / 'new'}' cannot be made"]


def test_read_only_folder_matters_only_where_we_write(
    folders: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(doctor, "_is_writable", lambda folder: False)  # root may write anywhere
    problems = doctor.examine()["problems"]
    assert [problem.split(":")[0] for problem in problems] == list(FOLDERS[1:])
    assert all("cannot be written" in problem for problem in problems)


def test_writable_is_tried(tmp_path: Path):
    assert doctor._is_writable(tmp_path)
    assert not doctor._is_writable(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_broken_torch_is_a_problem_not_a_crash(folders: Path, monkeypatch: pytest.MonkeyPatch):
    real_import = builtins.__import__

    def without_torch(name: str, *args: object, **kwargs: object) -> object:
        if name == "torch":
            raise OSError("libtorch.so: cannot open\nshared object")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    report = doctor.examine()
    assert report["device"]["best"] is None
    assert report["problems"] == [
        "torch cannot be imported: libtorch.so: cannot open shared object"
    ]
    assert any("torch cannot be imported" in line for line in doctor.as_lines(report))
