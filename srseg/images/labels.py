"""What dataset.json declares as labels, checked by nnU-Net's rules without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def declared_labels(dataset_json: Mapping[str, Any]) -> set[int]:
    """Return every label value that dataset.json declares: those in regions and "ignore" too."""
    return set(_flat(dataset_json["labels"]))


def check_labels(dataset_json: Mapping[str, Any]) -> None:
    """Refuse labels that nnU-Net's `LabelManager` does not take, or that leave a gap.

    Raises:
        ValueError: without file or dataset, which the caller knows.
    """
    labels = dataset_json["labels"]
    if not isinstance(labels, Mapping):
        raise ValueError(f"labels must be names with values, got {labels!r}")
    try:
        declared = sorted(declared_labels(dataset_json))
    except (TypeError, ValueError) as error:
        raise ValueError(f"a value is no whole number ({error})") from error
    background, ignore = labels.get("background"), labels.get("ignore")
    if isinstance(background, list | tuple) or background is None or int(background) != 0:
        raise ValueError(f"background must be declared as 0, got {background!r}")
    if ignore is not None:
        if not isinstance(ignore, int):
            raise ValueError(f"ignore must be one whole number, got {ignore!r}")
        if ignore != max(declared) or _flat(labels).count(ignore) > 1:
            raise ValueError(
                f"ignore must be the highest value and no other label's, got {ignore} among "
                f"{_listed(declared)}"
            )
    if any(isinstance(v, list | tuple) and len(v) > 1 for v in labels.values()):
        _check_regions(labels, dataset_json.get("regions_class_order"))
    if declared != list(range(len(declared))):
        raise ValueError(f"values must be 0, 1, 2, ... without a gap, got {_listed(declared)}")


def _check_regions(labels: Mapping[str, Any], order: Any) -> None:
    """Regions other than background and ignore need an entry of `regions_class_order` each."""
    regions = [
        name
        for name, values in labels.items()
        if name != "ignore" and set(_flat({name: values})) != {0}
    ]
    got = len(order) if isinstance(order, list | tuple) else order
    if got != len(regions):
        raise ValueError(
            f"regions need regions_class_order with an entry each ({len(regions)}: "
            f"{', '.join(regions)}), got {got}"
        )


def _flat(labels: Mapping[str, Any]) -> list[int]:
    values = (v if isinstance(v, list | tuple) else (v,) for v in labels.values())
    return [int(value) for group in values for value in group]


def _listed(values: list[int]) -> str:
    return ", ".join(map(str, values))
