"""Checkpoints are plain, whole or absent."""

from pathlib import Path

import numpy as np
import pytest
import torch

from srseg.training import checkpoint


def test_numpy_values_become_plain_and_load_with_weights_only(tmp_path):
    content = {
        "logging": {"dice": [np.float32(0.5), np.array([1.0, 2.0])]},
        "_best_ema": np.float64(0.25),
        "file": Path("a"),
        "device": torch.device("cpu"),
        "weights": torch.arange(3),
    }
    file = tmp_path / "checkpoint_final.pth"
    checkpoint.save_atomically(content, file)
    loaded = torch.load(file, weights_only=True)
    assert loaded["logging"] == {"dice": [0.5, [1.0, 2.0]]}
    assert loaded["_best_ema"] == 0.25
    assert (loaded["file"], loaded["device"]) == ("a", "cpu")
    assert loaded["weights"].tolist() == [0, 1, 2]


def test_steps_of_checkpoints_that_do_not_count_them_are_epochs_and_the_rest():
    own = {"iterations_per_epoch": 100, "iteration": 37}
    assert checkpoint.trained_steps({"current_epoch": 15, "srseg": own}) == 1537
    assert checkpoint.trained_steps({"current_epoch": 15, "srseg": {**own, "steps": 1422}}) == 1422
    assert checkpoint.trained_steps({"current_epoch": 15}) is None  # stock nnU-Net's
    assert checkpoint.trained_steps({"srseg": own}) is None


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "checkpoint_latest.pth"
    checkpoint.save_atomically({"value": 1}, file)

    def broken(content, target):
        Path(target).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint.torch, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save_atomically({"value": 2}, file)
    monkeypatch.undo()
    assert torch.load(file, weights_only=True) == {"value": 1}
    assert list(tmp_path.iterdir()) == [file]
