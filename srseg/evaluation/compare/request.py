"""What a user asks `srseg_compare` for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from srseg.evaluation.compare.training import TrainingBudget
from srseg.inference.model_folder import FINAL_CHECKPOINT


@dataclass(frozen=True)
class CompareRequest:
    """A comparison in names; None means the default.

    Attributes:
        dataset: id or name.
        fold: trained fold, whose validation cases are compared unless there are `lr_images`.
        configuration: of the plans.
        plans: their name.
        models: methods and interpolations to compare; None is every trained one and all
            interpolations.
        lr_images: folder of test images instead of the fold's cases.
        labels: folder of their true label maps.
        hr_images: folder of their true HR images.
        output: folder for everything; None is one in the dataset's results.
        reference: method that the others are tested against.
        groups: file that says which cases belong together.
        checkpoint_name: inside the folds' folders.
        device: "auto", "cuda", "cpu" or "mps".
        num_processes: cases evaluated at a time.
        use_mirroring: average predictions over flips.
        budget: trains what is missing first.
    """

    dataset: str
    fold: str = "0"
    configuration: str = "3d_fullres"
    plans: str = "srsegPlans"
    models: Sequence[str] | None = None
    lr_images: Path | None = None
    labels: Path | None = None
    hr_images: Path | None = None
    output: Path | None = None
    reference: str | None = None
    groups: Path | None = None
    checkpoint_name: str = FINAL_CHECKPOINT
    device: str = "auto"
    num_processes: int = 1
    use_mirroring: bool = True
    budget: TrainingBudget | None = None

    def __post_init__(self) -> None:
        if (self.lr_images is None) != (self.labels is None):
            raise ValueError("-i and -gt belong together: LR images and their true labels.")
        if self.hr_images is not None and self.lr_images is None:
            raise ValueError("-hr_images belongs to -i and -gt; a fold's HR images are known.")
        if self.output is None and self.lr_images is not None:
            raise ValueError("-o is needed with -i: where the comparison is written.")

    @property
    def on_fold(self) -> bool:
        """Whether the fold's own validation cases are compared."""
        return self.lr_images is None
