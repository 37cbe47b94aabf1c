"""The machine's offers are read with limits in mind; a folder variable that is wrong says so."""

import os

import pytest

from srseg import environment


def test_prepare_keeps_what_the_user_set(monkeypatch):
    monkeypatch.setenv("nnUNet_def_n_proc", "3")
    monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)
    environment.prepare()
    assert os.environ["nnUNet_def_n_proc"] == "3"
    assert os.environ["nnUNet_n_proc_DA"] == str(environment.available_cores())
    monkeypatch.delenv("nnUNet_n_proc_DA")


@pytest.mark.parametrize("before", [None, "7"])
def test_loader_processes_of_nnunets_trainer_are_set_for_a_while(monkeypatch, before):
    monkeypatch.setenv("nnUNet_n_proc_DA", "7")
    if before is None:
        monkeypatch.delenv("nnUNet_n_proc_DA")
    with environment.loader_processes(None):
        assert os.environ.get("nnUNet_n_proc_DA") == before
    with environment.loader_processes(0):
        assert os.environ["nnUNet_n_proc_DA"] == "0"
    assert os.environ.get("nnUNet_n_proc_DA") == before


def test_unset_folder_says_how_to_set_it(monkeypatch):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    with pytest.raises(ValueError, match="nnUNet_raw is not set"):
        environment.required_folder("nnUNet_raw")


def test_missing_raw_folder_is_an_error_but_results_are_made(monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    with pytest.raises(ValueError, match="not an existing folder"):
        environment.required_folder("nnUNet_raw")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    assert environment.required_folder("nnUNet_results").is_dir()


def test_child_sees_other_folders_and_we_keep_ours(monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_raw", "/ours")
    monkeypatch.setenv("KEPT", "yes")
    child = environment.child_environment(tmp_path)
    assert child["nnUNet_raw"] == str(tmp_path / "nnUNet_raw")
    assert child["nnUNet_results"] == str(tmp_path / "nnUNet_results")
    assert child["KEPT"] == "yes"
    assert str(environment.folder("nnUNet_raw")) == "/ours"


def test_cgroup_quota_limits_cores(monkeypatch):
    monkeypatch.setattr(environment, "_first_line", lambda file: "100000 100000")
    assert environment.available_cores() == 1


def test_cgroup_limit_limits_memory(monkeypatch):
    lines = {"/sys/fs/cgroup/memory.max": "1000", "/sys/fs/cgroup/memory.current": "400"}
    monkeypatch.setattr(environment, "_first_line", lines.get)
    assert environment.available_memory() == 600


def test_worker_count_follows_memory(monkeypatch):
    monkeypatch.setattr(environment, "available_memory", lambda: 1000)
    assert environment.worker_count(200, wanted=8) == 4
    assert environment.worker_count(2000, wanted=8) == 1


def test_unknown_device_lists_the_known():
    with pytest.raises(ValueError, match="known: auto, cpu, cuda, mps"):
        environment.resolve_device("gpu")


def test_auto_device_is_there():
    assert environment.resolve_device("auto") in ("cuda", "mps", "cpu")
