"""The log holds one value per epoch, survives a resume, and draws both tasks."""

import json

import numpy as np
import pytest

from srseg.training.progress_log import ProgressLog


def filled(epochs: int) -> ProgressLog:
    log = ProgressLog()
    for epoch in range(epochs):
        for key in log.my_fantastic_logging:
            value = {"dice_ce": 0.5, "sr_l1": 0.1} if key.endswith("terms") else float(epoch)
            log.log(key, [0.5, 0.6] if key == "dice_per_class_or_region" else value, epoch)
    return log


def test_logging_an_epoch_again_replaces_it():
    log = ProgressLog()
    log.log("lrs", 0.1, 0)
    log.log("lrs", np.float64(0.2), 0)
    assert log.get_value("lrs", None) == [0.2]


def test_skipping_an_epoch_and_unknown_keys_are_errors():
    log = ProgressLog()
    with pytest.raises(ValueError, match="cannot log epoch 1"):
        log.log("lrs", 0.1, 1)
    with pytest.raises(ValueError, match="unknown log key 'lr'"):
        log.log("lr", 0.1, 0)


def test_a_stock_log_gains_our_keys_on_resume():
    stock = {"lrs": [0.1, 0.2], "train_losses": [1.0, 0.5]}
    log = ProgressLog()
    log.load_checkpoint(stock)
    log.log("psnr_gain_db", 1.5, 2)
    assert log.get_value("psnr_gain_db", None) == [None, None, 1.5]


def test_jsonl_holds_every_term(tmp_path):
    filled(2).append_jsonl(tmp_path / "log.jsonl", 1)
    record = json.loads((tmp_path / "log.jsonl").read_text(encoding="utf-8"))
    assert record["epoch"] == 1
    assert record["train_terms"] == {"dice_ce": 0.5, "sr_l1": 0.1}


def test_a_network_without_sr_image_has_no_gain(tmp_path):
    log = filled(1)
    log.log("psnr_gain_db", float("nan"), 0)
    assert "gain" not in log.report(0)
    assert "nan" not in log.report(0)
    log.append_jsonl(tmp_path / "log.jsonl", 0)
    assert json.loads((tmp_path / "log.jsonl").read_text(encoding="utf-8"))["psnr_gain_db"] is None
    assert "NaN" not in (tmp_path / "log.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("epochs", [1, 3])
def test_progress_png_is_drawn(tmp_path, epochs):
    filled(epochs).plot_progress_png(str(tmp_path))
    assert (tmp_path / "progress.png").stat().st_size > 10_000
