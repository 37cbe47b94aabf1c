"""Adapters with random networks, in memory and as folders."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from srseg.inference.adapter import Adapter, AdapterDescription
from srseg.networks.translation.build import build_translator
from srseg.preprocessing.intensity import IntensityMap

FRAME = IntensityMap(0.01, -0.5)  # the source's bodies: raw -50 to 150


def description(method: str = "vama", *, num_axes: int = 3, **changes: object) -> dict:
    has_network = method not in ("histogram", "none")
    network = {
        "num_channels": 1,
        "num_axes": num_axes,
        "widths": [4, 6],
        "strides": [[1, 2, 2][-num_axes:]],
        "norm": "none",
        "num_blocks": 1,
    }
    return {
        "method": method,
        "num_channels": 1,
        "patch_size": [4, 8, 6][-num_axes:],
        "network": network if has_network else {},
        "source_frame": [[FRAME.slope, FRAME.intercept]],
        "units": "source",
        "reader": "NibabelIO",
        "quantiles": [[-1.0, -0.2, 0.0, 1.0]] if method == "histogram" else [],
        "training": {},
        **changes,
    }


def random_translator(content: dict) -> nn.Module:
    torch.manual_seed(0)
    network = build_translator(content["method"], content["network"])
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def adapter(method: str = "vama", **changes: object) -> Adapter:
    content = description(method, **changes)
    network = random_translator(content) if content["network"] else None
    return Adapter(AdapterDescription(**content), network)


def write_adapter(folder: Path, method: str = "vama", **changes: object) -> Path:
    content = description(method, **changes)
    folder.mkdir(parents=True)
    (folder / "adapter.json").write_text(json.dumps(content))
    if content["network"]:
        weights = random_translator(content).state_dict()
        torch.save({"network_weights": weights}, folder / "checkpoint_final.pth")
    return folder
