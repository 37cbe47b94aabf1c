"""Training what is missing: which commands are run, and how they end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from srseg.evaluation.compare import training
from srseg.evaluation.compare.training import TrainingBudget, method_names, train_missing


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """What would have been run."""
    run: list[list[str]] = []
    monkeypatch.setattr(training, "_run", lambda command: run.append(list(command)) or 0)
    return run


def trained(tmp_path, methods, budget, **options):
    folder = tmp_path / "Dataset901_Tiny"
    known = {"plans": "srsegPlans", "configuration": "3d_fullres", "fold": "0", "device": "cpu"}
    return train_missing(methods, folder, budget=budget, **{**known, **options})


def checkpoint(tmp_path, method, name):
    folder = tmp_path / "Dataset901_Tiny" / f"{method}__srsegPlans__3d_fullres" / "fold_0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()


def test_only_what_is_missing_is_trained_and_goes_on_where_it_was(tmp_path, commands):
    checkpoint(tmp_path, "done", "checkpoint_final.pth")
    checkpoint(tmp_path, "begun", "checkpoint_latest.pth")
    methods = {"done": "done", "begun": "begun", "mine": "files/mine.json"}
    assert trained(tmp_path, methods, TrainingBudget(num_epochs=3)) == ["begun", "mine"]
    begin = ["Dataset901_Tiny", "3d_fullres", "0"]
    shared = ["-p", "srsegPlans", "-device", "cpu", "-num_epochs", "3"]
    assert [command[3:] for command in commands] == [
        [*begin, "-tr", "begun", *shared, "--c"],
        [*begin, "-tr", "files/mine.json", *shared],
    ]


def test_nnunets_own_trainer_has_a_folder_of_nnunets_plans(tmp_path, commands):
    folder = tmp_path / "Dataset901_Tiny" / "nnUNetTrainer__srsegOraclePlans__3d_fullres" / "fold_0"
    folder.mkdir(parents=True)
    (folder / "checkpoint_latest.pth").touch()
    methods = method_names(["nnUNetTrainer"])
    assert trained(tmp_path, methods, TrainingBudget(num_epochs=3)) == ["nnUNetTrainer"]
    options = ["-tr", "nnUNetTrainer", "-p", "srsegPlans", "-device", "cpu", "-num_epochs", "3"]
    assert [command[6:] for command in commands] == [[*options, "--c"]]
    (folder / "checkpoint_final.pth").touch()
    assert trained(tmp_path, methods, TrainingBudget(minutes=3)) == []


def test_a_time_for_nnunets_own_trainer_is_refused_before_anything_is_trained(tmp_path, commands):
    methods = {"a": "a", "nnUNetTrainer": "nnUNetTrainer"}
    with pytest.raises(ValueError, match="nnUNetTrainer trains a number of epochs.*-num_epochs"):
        trained(tmp_path, methods, TrainingBudget(minutes=6.5))
    assert commands == []


def test_all_get_the_same_time(tmp_path, commands):
    budget = TrainingBudget(minutes=6.5, iterations_per_epoch=20, num_workers=0)
    trained(tmp_path, {"a": "a", "b": "b"}, budget)
    flags = ["-time_budget", "6.5", "-iterations_per_epoch", "20", "-num_workers", "0"]
    assert [command[-6:] for command in commands] == [flags, flags]


@pytest.mark.parametrize("both", [{}, {"num_epochs": 1, "minutes": 1.0}])
def test_one_budget_is_needed(both):
    with pytest.raises(ValueError, match="needs -num_epochs or -time_budget, one of the two"):
        TrainingBudget(**both)


def test_a_failing_training_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_run", lambda command: 1)
    with pytest.raises(RuntimeError, match="training a failed with exit status 1"):
        trained(tmp_path, {"a": "a", "b": "b"}, TrainingBudget(num_epochs=1))


def test_methods_are_shipped_or_files(tmp_path):
    mine = tmp_path / "file.json"
    content = {"name": "mine", "trainer": "SRSegTrainer", "losses": {"dice_ce": {"weight": 1}}}
    content["optimizer"] = {"name": "adamw", "learning_rate": 0.001}
    mine.write_text(json.dumps(content), encoding="utf-8")
    assert method_names(["SRSegTrainer", str(mine)]) == {
        "SRSegTrainer": "SRSegTrainer",
        "mine": str(mine),
    }
    with pytest.raises(ValueError, match="unknown method 'nobody'; known: .*SRSegTrainer"):
        method_names(["nobody"])


def test_a_stopped_comparison_waits_until_the_training_has_saved(tmp_path):
    """Both get Ctrl-C; the training takes a while to write its state."""
    saved = tmp_path / "saved"
    child = (
        "import signal, sys, time\n"
        "def save(*_):\n    time.sleep(1); open(sys.argv[1], 'w').close(); sys.exit(130)\n"
        "signal.signal(signal.SIGINT, save)\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    parent = (
        # a shell's background job starts with Ctrl-C ignored, and so would this process
        "import signal, sys\nfrom pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from srseg.evaluation.compare.training import _run\n"
        f"try:\n    _run([sys.executable, '-c', {child!r}, {str(saved)!r}])\n"
        f"except KeyboardInterrupt:\n    print(Path({str(saved)!r}).is_file(), flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "True\n"
