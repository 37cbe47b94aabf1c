"""Trainer classes by name: ours in a plain dict, outsiders' through an entry-point group."""

from __future__ import annotations

from importlib.metadata import entry_points

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from srseg.training.adversarial.trainer import SRSegTrainerGAN
from srseg.training.alternating import SRSegTrainerAlternating
from srseg.training.bilevel_trainer import SRSegTrainerBilevel
from srseg.training.one_shot.trainer import SRSegTrainerOneShot
from srseg.training.trainer import SRSegTrainer

ENTRY_POINT_GROUP = "srseg.trainers"
TRAINERS: dict[str, type[SRSegTrainer]] = {
    trainer.__name__: trainer
    for trainer in (
        SRSegTrainer,
        SRSegTrainerAlternating,
        SRSegTrainerGAN,
        SRSegTrainerBilevel,
        SRSegTrainerOneShot,
    )
}


def trainer_class(name: str) -> type[SRSegTrainer]:
    """Return the trainer class a method file names.

    Raises:
        ValueError: for an unknown name (the known ones are listed), for an entry point that
            clashes with one of ours, or that is not a trainer.
    """
    outside = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    clash = sorted(set(outside) & set(TRAINERS))
    if clash:
        raise ValueError(f"entry points of {ENTRY_POINT_GROUP} reuse srseg's own names: {clash}.")
    if name in TRAINERS:
        return TRAINERS[name]
    if name not in outside:
        known = ", ".join(sorted({*TRAINERS, *outside}))
        raise ValueError(f"unknown trainer '{name}'; known: {known}.")
    found = outside[name].load()
    if not (isinstance(found, type) and issubclass(found, nnUNetTrainer)):
        raise ValueError(f"entry point '{name}' of {ENTRY_POINT_GROUP} is not a trainer class.")
    return found
