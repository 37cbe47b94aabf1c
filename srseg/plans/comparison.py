"""Whether two plans are the same where it matters, and where they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# words for people, and numbers that only a training reads and that shape no network or prediction
_IGNORED = frozenset({"rationale", "gpu_memory_target_gb", "batch_size", "batch_dice"})


def as_json(content: Any) -> Any:
    """Return `content` as a JSON file would hand it back: lists for tuples, text for keys.

    Raises:
        ValueError: if it holds anything that JSON does not know.
    """
    try:
        return json.loads(json.dumps(content))
    except TypeError as error:
        raise ValueError(f"plans and their kin must be plain JSON values, but {error}.") from error


def differing_keys(first: Any, second: Any) -> list[str]:
    """Return the dotted names of the entries in which two plans differ, sorted.

    What neither the network nor a prediction depends on is left out: `rationale`,
    `gpu_memory_target_gb`, `batch_size` and `batch_dice`, at any depth. An entry that only one of
    the two has differs.

    Args:
        first: plans, or any JSON content; tuples count as lists.
        second: the other.

    Raises:
        ValueError: if one of them holds anything that JSON does not know.
    """
    return sorted(_differing(as_json(first), as_json(second)))


def _differing(first: Any, second: Any, name: str = "") -> list[str]:
    if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
        return [] if _same(first, second) else [name]
    found = []
    for key in (first.keys() | second.keys()) - _IGNORED:
        inner = f"{name}.{key}" if name else key
        if key in first and key in second:
            found += _differing(first[key], second[key], inner)
        else:
            found.append(inner)
    return found


def _same(first: Any, second: Any) -> bool:
    """Return whether two JSON values are equal; statistics may hold NaN, which equals itself."""
    return first == second or json.dumps(first) == json.dumps(second)
