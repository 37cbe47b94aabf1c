"""An encoder of somebody's own, as a file outside srseg; importing it leaves a trace."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_NUMBERS = itertools.count()  # no two modules of a test run share a name
_SOURCE = """
from pathlib import Path

import torch
from torch import nn

Path({marker!r}).touch()


class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        stages, before = [], {input_channels}
        for width, stride in zip({widths!r}, {strides!r}):
            convolution = nn.Conv{ndim}d(before, width, 3, stride=stride, padding=1)
            stages.append(nn.Sequential(convolution, nn.BatchNorm{ndim}d(width), nn.ReLU()))
            before = width
        self.stages = nn.ModuleList(stages)

    def forward(self, image):
        features = []
        for stage in self.stages:
            image = stage(image)
            features.append(image)
        return features


def make_one():
    return Mine()


class Backwards(Mine):
    def forward(self, image):
        return super().forward(image)[::-1]


class Finest(Mine):
    def forward(self, image):
        return super().forward(image)[0]


class Few(Mine):
    def forward(self, image):
        return super().forward(image)[:-1]


class Failing(nn.Module):
    def forward(self, image):
        raise LookupError("an image of another kind")


def number():
    return 3


def needs(file):
    return Mine()
"""


@dataclass(frozen=True)
class UserModule:
    """Where the module is, and what it leaves behind when it is imported."""

    folder: Path
    name: str
    marker: Path
    widths: tuple[int, ...] = (3, 4, 7)

    def path(self, member: str = "Mine") -> str:
        return f"{self.name}:{member}"

    @property
    def was_imported(self) -> bool:
        return self.marker.exists()


def write_user_module(
    folder: Path, strides: Sequence[Sequence[int]], input_channels: int = 1
) -> UserModule:
    """Return the package `somebodyN`, with an encoder of three stages in its module `deep`."""
    package = f"somebody{next(_NUMBERS)}"
    module = UserModule(folder, f"{package}.deep", folder / f"{package}_was_imported")
    (folder / package).mkdir()
    (folder / package / "__init__.py").touch()
    source = _SOURCE.format(
        marker=str(module.marker),
        input_channels=input_channels,
        widths=module.widths,
        strides=[tuple(stride) for stride in strides],
        ndim=len(strides[0]),
    )
    (folder / package / "deep.py").write_text(source, encoding="utf-8")
    return module
