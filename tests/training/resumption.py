"""A training stopped on the way, and what goes on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from srseg.training.run import TrainingRequest, build_trainer, checkpoint_to_load
from srseg.training.trainer import SRSegTrainer


def stopped_at(trainer: SRSegTrainer, epoch: int, iteration: int) -> Path:
    """Train until a stop is asked for during this step; return the fold's folder."""
    step = trainer.train_step

    def stopping_step(batch: dict[str, Any]) -> dict[str, Any]:
        position = (trainer.current_epoch, trainer.iteration)
        trainer.stop_request.made = position == (epoch, iteration)
        return step(batch)

    trainer.train_step = stopping_step
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()
    return Path(trainer.output_folder)


def gone_on(folder: Path, **request: Any) -> SRSegTrainer:
    """Return the trainer that took up the stopped training in `folder` and ended it."""
    asked = TrainingRequest(**{**request, "continue_training": True})
    resumed = build_trainer(asked, torch.device("cpu"))
    resumed.load_checkpoint(str(checkpoint_to_load(asked, folder)))
    resumed.run_training()
    return resumed
