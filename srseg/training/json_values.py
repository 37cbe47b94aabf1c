"""Values that JSON does not know, in files that other programs read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:
    """Return `value` with numbers that JSON does not know (NaN, infinite) as None, at any depth."""
    if isinstance(value, Mapping):
        return {key: finite(content) for key, content in value.items()}
    if isinstance(value, list):
        return [finite(content) for content in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
