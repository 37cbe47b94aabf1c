"""What dataset.json says of a paired dataset: from the files, and from what a user wishes.

Nothing here reads an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srseg.images.labels import check_labels, declared_labels

_DEFAULT_CHANNEL = "MRI"


@dataclass(frozen=True)
class PairWishes:
    """What a user may say of the dataset.

    Attributes:
        label_names: of the values 0, 1, 2, ...; None names those found `label_1`, ...
        channel_names: one a channel; None: "MRI" (and a number, where there are several).
        dataset_json: content of a dataset.json to take labels, channels and texts from.
        skip_incomplete: leave out cases that a folder lacks.
    """

    label_names: Sequence[str] | None = None
    channel_names: Sequence[str] | None = None
    dataset_json: Mapping[str, Any] | None = None
    skip_incomplete: bool = False


@dataclass(frozen=True)
class PairContent:
    """What is in the files of one case: its channels, and the values of its label map."""

    num_channels: int
    labels: tuple[int, ...]


def described(found: Mapping[str, PairContent], wishes: PairWishes) -> dict[str, Any]:
    """Return channels and labels of dataset.json, and the texts of a given one.

    Args:
        found: what is in the files, by case.
        wishes: the user's.

    Raises:
        ValueError: if cases differ in channels, or the labels cannot be declared.
    """
    num_channels = _agreed_channels(found)
    content = dict(wishes.dataset_json or {})
    content.pop("dataset", None)  # lists files elsewhere
    content["channel_names"] = _channel_names(num_channels, wishes, content.get("channel_names"))
    first_case = {value: case for case in reversed(found) for value in found[case].labels}
    if wishes.label_names is not None:
        names = list(wishes.label_names)
        if len(set(names)) != len(names):
            raise ValueError(f"label names must differ, got {' '.join(names)}.")
        if names[0] != "background":
            raise ValueError(f"the first label, of value 0, must be background, got '{names[0]}'.")
        content["labels"] = {name: value for value, name in enumerate(names)}
        content.pop("regions_class_order", None)
    elif "labels" not in content:
        content["labels"] = _numbered_labels(sorted(first_case))
    try:
        check_labels(content)
    except ValueError as error:
        raise ValueError(f"the labels cannot be used: {error}.") from error
    declared = declared_labels(content)
    undeclared = sorted(set(first_case) - declared)
    if undeclared:
        raise ValueError(
            f"case {first_case[undeclared[0]]}: the label map holds the value {undeclared[0]}, "
            f"which has no name; named: {', '.join(map(str, sorted(declared)))}."
        )
    return content


def _agreed_channels(found: Mapping[str, PairContent]) -> int:
    first, *_ = found
    for case, what in found.items():
        if what.num_channels != found[first].num_channels:
            raise ValueError(
                f"case {case} has {what.num_channels} channel(s), but case {first} has "
                f"{found[first].num_channels}."
            )
    return found[first].num_channels


def _channel_names(
    num_channels: int, wishes: PairWishes, given: Mapping[str, str] | None
) -> dict[str, str]:
    if wishes.channel_names is not None:
        names = list(wishes.channel_names)
    elif given is not None:
        names = _by_number(given)
    elif num_channels == 1:
        names = [_DEFAULT_CHANNEL]
    else:
        names = [f"{_DEFAULT_CHANNEL} {channel}" for channel in range(num_channels)]
    if len(names) != num_channels:
        raise ValueError(
            f"the images have {num_channels} channel(s), but {len(names)} name(s) were given: "
            f"{', '.join(names)}."
        )
    return {str(channel): name for channel, name in enumerate(names)}


def _by_number(given: Mapping[str, str]) -> list[str]:
    if not isinstance(given, Mapping) or not all(str(number).isdecimal() for number in given):
        raise ValueError(
            f'channel_names must be a name for each number, as {{"0": "T1", "1": "T2"}}, got '
            f"{given}."
        )
    return [given[number] for number in sorted(given, key=int)]


def _numbered_labels(values: Sequence[int]) -> dict[str, int]:
    """Return names for the values found: they must leave no gap, as nnU-Net wants it."""
    values = sorted({0, *values})
    if len(values) == 1:
        raise ValueError("the label maps hold background only.")
    if values != list(range(len(values))):
        raise ValueError(
            f"the label maps hold the values {', '.join(map(str, values))}, but nnU-Net needs 0, "
            f"1, 2, ... without a gap; name all values with -labels, or renumber them."
        )
    return {"background": 0, **{f"label_{value}": value for value in values[1:]}}
