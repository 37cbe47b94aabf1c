"""What marks a model that nnU-Net's own trainer has trained through `srseg_train`."""

from __future__ import annotations

from pathlib import Path

STOCK_TRAINER = "nnUNetTrainer"
"""What `-tr` takes beside methods, and the first part of the model folder's name."""
SRSEG_PLANS_FILE = "srseg_plans.json"
"""In the model folder: what srseg planned for the same data. It marks the folder as ours."""
RECORD = "srseg"
"""Key of our record in the `init_args` of a stock checkpoint, which nnU-Net only stores."""


def is_stock_folder(folder: Path) -> bool:
    """Return whether `srseg_train -tr nnUNetTrainer` made this model folder."""
    return (folder / SRSEG_PLANS_FILE).is_file()
