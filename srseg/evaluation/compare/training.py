"""Train what a comparison lacks: one `srseg_train` after the other, all with the same budget."""

from __future__ import annotations

import logging
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from srseg.evaluation.compare.models import model_folder
from srseg.inference.model_folder import FINAL_CHECKPOINT
from srseg.plans.stock import STOCK_TRAINER
from srseg.training.method import load_method

logger = logging.getLogger(__name__)

_CODE = "import sys; from srseg.cli.train import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True)
class TrainingBudget:
    """What every training gets; exactly one of the two is given.

    Attributes:
        num_epochs: epochs.
        minutes: training time.
        iterations_per_epoch: steps of an epoch; None is what the machine decides.
        num_workers: loader processes; None is what the machine decides.
    """

    num_epochs: int | None = None
    minutes: float | None = None
    iterations_per_epoch: int | None = None
    num_workers: int | None = None

    def __post_init__(self) -> None:
        if (self.num_epochs is None) == (self.minutes is None):
            raise ValueError("--train needs -num_epochs or -time_budget, one of the two.")

    def flags(self) -> list[str]:
        """Return the flags of `srseg_train`."""
        given = {
            "-num_epochs": self.num_epochs,
            "-time_budget": self.minutes,
            "-iterations_per_epoch": self.iterations_per_epoch,
            "-num_workers": self.num_workers,
        }
        pairs = ((flag, value) for flag, value in given.items() if value is not None)
        return [text for flag, value in pairs for text in (flag, f"{value:g}")]


def method_names(names_or_files: Sequence[str]) -> dict[str, str]:
    """Return name of the method -> what `-tr` takes: shipped methods, own files, nnU-Net's trainer.

    Raises:
        ValueError: for an unknown method (the known ones are listed).
    """
    return {
        given if given == STOCK_TRAINER else load_method(given).name: given
        for given in names_or_files
    }


def train_missing(
    methods: Mapping[str, str],
    dataset_folder: Path,
    *,
    plans: str,
    configuration: str,
    fold: str,
    device: str,
    budget: TrainingBudget,
) -> list[str]:
    """Return the names of the methods that were trained, after training them.

    A fold with a final checkpoint stays as it is. One that was interrupted goes on where it was.

    Args:
        methods: of `method_names`.
        dataset_folder: `nnUNet_results/DatasetXXX_Name`.
        plans: name of the plans.
        configuration: of the plans.
        fold: to train.
        device: "auto", "cuda", "cpu" or "mps".
        budget: the same for all.

    Raises:
        ValueError: for a time given to nnU-Net's own trainer, before anything is trained.
        RuntimeError: if a training fails; its own message stands above.
        KeyboardInterrupt: once the running training has saved where it was.
    """
    folders = {
        name: model_folder(dataset_folder, name, plans, configuration) / f"fold_{fold}"
        for name in methods
    }
    is_missing = {name: not (f / FINAL_CHECKPOINT).is_file() for name, f in folders.items()}
    if budget.minutes is not None and is_missing.get(STOCK_TRAINER):
        raise ValueError(
            f"{STOCK_TRAINER} trains a number of epochs, not a time: give -num_epochs instead of "
            f"-time_budget, or leave {STOCK_TRAINER} out of -models."
        )
    trained = []
    for name, given in methods.items():
        if not is_missing[name]:
            logger.info("%s is trained already.", name)
            continue
        arguments = [dataset_folder.name, configuration, fold, "-tr", given, "-p", plans]
        arguments += ["-device", device, *budget.flags()]
        if any(folders[name].glob("checkpoint_*.pth")):
            arguments.append("--c")
        logger.info("$ srseg_train %s", shlex.join(arguments))
        status = _run([sys.executable, "-c", _CODE, *arguments])
        if status:
            raise RuntimeError(
                f"training {name} failed with exit status {status}; its message stands above."
            )
        trained.append(name)
    return trained


def _run(command: Sequence[str]) -> int:
    """Return a command's exit status; when stopped, wait until it has saved its state."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except BaseException:
        process.send_signal(signal.SIGINT)  # Ctrl-C reaches both; a second one does no harm
        process.wait()
        raise
