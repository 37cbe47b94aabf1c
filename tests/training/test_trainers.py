"""Trainer classes are found by name, outsiders' through entry points, never by search."""

import pytest

from srseg.training import trainers
from srseg.training.trainer import SRSegTrainer


class Point:
    def __init__(self, name, target):
        self.name, self._target = name, target

    def load(self):
        return self._target


def test_ours_by_name():
    assert trainers.trainer_class("SRSegTrainer") is SRSegTrainer


def test_unknown_lists_ours_and_outsiders(monkeypatch):
    monkeypatch.setattr(trainers, "entry_points", lambda group: [Point("Mine", SRSegTrainer)])
    assert trainers.trainer_class("Mine") is SRSegTrainer
    with pytest.raises(ValueError, match="unknown trainer 'Min'; known: Mine, SRSegTrainer"):
        trainers.trainer_class("Min")


def test_a_name_clash_is_an_error(monkeypatch):
    monkeypatch.setattr(trainers, "entry_points", lambda group: [Point("SRSegTrainer", object)])
    with pytest.raises(ValueError, match="reuse srseg's own names"):
        trainers.trainer_class("SRSegTrainer")


def test_an_entry_point_must_be_a_trainer(monkeypatch):
    monkeypatch.setattr(trainers, "entry_points", lambda group: [Point("Mine", dict)])
    with pytest.raises(ValueError, match="not a trainer class"):
        trainers.trainer_class("Mine")
