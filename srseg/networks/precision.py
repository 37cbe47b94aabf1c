"""Where a network computes in float32 whatever the autocast around it says."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device_type: str) -> AbstractContextManager:
    """Return a context in which autocast is off; cast the inputs with `.float()` inside it.

    Devices without autocast (`meta`) get a context that does nothing.
    """
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)
