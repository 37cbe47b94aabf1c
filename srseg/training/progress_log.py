"""The log of a training: numbers per epoch, a JSON line each, and `progress.png` of both tasks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from nnunetv2.training.logging.nnunet_logger import LocalLogger

from srseg.training.checkpoint import plain
from srseg.training.json_values import finite

_OWN_KEYS = ("train_terms", "val_terms", "psnr_gain_db", "joint_score", "ema_joint_score")


class ProgressLog(LocalLogger):
    """nnU-Net's local logger with the SR task beside the segmentation.

    Every key holds one value per epoch. Logging an epoch again (after a resume inside it)
    replaces its value.
    """

    def __init__(self, verbose: bool = False) -> None:
        super().__init__(verbose)
        for key in _OWN_KEYS:
            self.my_fantastic_logging[key] = []

    def log(self, key: str, value: Any, epoch: int) -> None:
        """Record `value` of `epoch`; epochs come in order.

        Raises:
            ValueError: for an unknown key or an epoch that skips one.
        """
        if key not in self.my_fantastic_logging:
            raise ValueError(
                f"unknown log key '{key}'; known: {', '.join(sorted(self.my_fantastic_logging))}."
            )
        values = self.my_fantastic_logging[key]
        if epoch > len(values):
            raise ValueError(f"log key '{key}' has {len(values)} epochs, cannot log epoch {epoch}.")
        values[epoch:] = [plain(value)]

    def load_checkpoint(self, checkpoint: dict) -> None:
        """Take over a checkpoint's log; keys that it lacks are kept, empty epochs as None."""
        epochs = max((len(values) for values in checkpoint.values()), default=0)
        own = {key: [None] * epochs for key in _OWN_KEYS}
        self.my_fantastic_logging = {**own, **{k: list(v) for k, v in checkpoint.items()}}

    def epoch_record(self, epoch: int) -> dict[str, Any]:
        """Return all values of `epoch` (None where a key has none)."""
        return {
            key: values[epoch] if epoch < len(values) else None
            for key, values in self.my_fantastic_logging.items()
        }

    def report(self, epoch: int) -> str:
        """Return the epoch in one line for people."""
        record = self.epoch_record(epoch)
        seconds = record["epoch_end_timestamps"] - record["epoch_start_timestamps"]
        dice = ", ".join(f"{value:.4f}" for value in record["dice_per_class_or_region"])
        gain_db = record["psnr_gain_db"]  # NaN for a network that only segments
        gain = f"SR gain over cubic {gain_db:+.2f} dB, " if math.isfinite(gain_db) else ""
        return (
            f"train loss {record['train_losses']:.4f}, val loss {record['val_losses']:.4f}, "
            f"pseudo Dice [{dice}], {gain}{seconds:.1f} s"
        )

    def append_jsonl(self, file: Path, epoch: int) -> None:
        """Append the epoch's record to a JSON-lines file."""
        record = finite({"epoch": epoch, **self.epoch_record(epoch)})
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record) + "\n")

    def plot_progress_png(self, output_folder: str) -> None:
        """Write `progress.png`: losses by term, Dice, SR gain, learning rate and epoch time."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # no global pyplot state
        from matplotlib.figure import Figure

        log = self.my_fantastic_logging
        figure = Figure(figsize=(14, 10), layout="constrained")
        FigureCanvasAgg(figure)
        losses, scores, sr_axis, timing = figure.subplots(2, 2).ravel()
        totals = losses.twinx()  # weights put the total on another scale than its terms
        totals.plot(log["train_losses"], "k-", label="train, total")
        totals.plot(log["val_losses"], "k--", label="validation, total")
        totals.set(ylabel="total loss")
        for style, key in (("-", "train_terms"), ("--", "val_terms")):
            names = sorted({name for terms in log[key] if terms for name in terms})
            for number, name in enumerate(names):
                values = [(terms or {}).get(name) for terms in log[key]]
                label = f"{key.split('_')[0]}, {name}"
                losses.plot(values, style, color=f"C{number}", alpha=0.7, label=label)
        losses.set(xlabel="epoch", ylabel="loss terms, unweighted")
        scores.plot(log["mean_fg_dice"], "g:", label="pseudo Dice")
        scores.plot(log["ema_fg_dice"], "g-", label="pseudo Dice, moving average")
        scores.plot(log["ema_joint_score"], "b-", label="joint score, moving average")
        scores.set(xlabel="epoch", ylabel="segmentation", ylim=(None, 1))
        sr_axis.plot(log["psnr_gain_db"], "m-", label="SR: PSNR gain over cubic")
        sr_axis.axhline(0, color="0.7", lw=1)
        sr_axis.set(xlabel="epoch", ylabel="dB")
        timing.plot(log["lrs"], "b-", label="learning rate")
        seconds = [
            end - start
            for start, end in zip(
                log["epoch_start_timestamps"], log["epoch_end_timestamps"], strict=False
            )
        ]
        seconds_axis = timing.twinx()
        seconds_axis.plot(seconds, "r-", label="seconds per epoch")
        seconds_axis.set(ylabel="s", ylim=(0, None))
        timing.set(xlabel="epoch", ylabel="learning rate")
        for axis in (scores, sr_axis):
            axis.legend(fontsize="small")
        losses.legend(loc="center right", fontsize="small")
        totals.legend(loc="upper right", fontsize="small")
        timing.legend(loc="upper left", fontsize="small")
        seconds_axis.legend(loc="upper right", fontsize="small")
        figure.savefig(Path(output_folder) / "progress.png", dpi=80)
