"""Checkpoints: plain tensors and values, written in one step, nnU-Net's key names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch


def plain(value: Any) -> Any:
    """Return `value` with NumPy scalars and arrays, paths and devices as plain Python values.

    `torch.load(weights_only=True)` reads only those; tensors stay.
    """
    if isinstance(value, Mapping):
        return {plain(key): plain(content) for key, content in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(content) for content in value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (Path, torch.device)):
        return str(value)
    return value


def save_atomically(content: Mapping[str, Any], file: str | Path) -> None:
    """Write a checkpoint so that `file` is always either the old or the new one, whole."""
    file = Path(file)
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        torch.save(plain(content), temporary)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
