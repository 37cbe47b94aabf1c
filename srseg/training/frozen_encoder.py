"""A trained encoder that a training takes over and leaves as it is (`-encoder`).

The encoder of any network of ours is filled from a checkpoint, ours or stock nnU-Net's, whose
encoder must be the same tensor for tensor. It stays in eval mode and gets no gradient, so that
normalisation statistics stay as well. The network keeps its names: predicting needs no more than
the model folder.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from srseg.inference.model_folder import load_checkpoint
from srseg.networks.freezing import PLACES, encoder_place, freeze

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrozenEncoder:
    """Which encoder a training has taken over.

    Attributes:
        source: the checkpoint, as the user named it.
        digest: SHA-256 of its tensors; decides whether two are the same.
        weights: names inside the encoder -> tensors; None once a checkpoint of the training
            itself holds them.
    """

    source: str
    digest: str
    weights: Mapping[str, torch.Tensor] | None = field(default=None, compare=False, repr=False)

    def record(self) -> dict[str, str]:
        """Return what the training's checkpoints say of it."""
        return {"source": self.source, "digest": self.digest}

    def install(self, network: nn.Module) -> nn.Module:
        """Fill and freeze the encoder of `network`; return the network.

        Raises:
            ValueError: if it has no encoder, or one with other names or shapes.
        """
        place = encoder_place(network)
        encoder = network.get_submodule(place)
        if self.weights is not None:
            fill_encoder(encoder, self.weights, self.source)
            logger.info(
                "%s of the network is that of %s and stays frozen: %d tensors, SHA-256 %s",
                place,
                self.source,
                len(encoder.state_dict()),
                self.digest[:12],
            )
        freeze(encoder)
        return network


def read_encoder(checkpoint_file: str | Path) -> FrozenEncoder:
    """Return the encoder that a checkpoint of ours or of stock nnU-Net's holds.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, holds more than tensors and plain values, or no encoder.
    """
    checkpoint_file = Path(checkpoint_file)
    if not checkpoint_file.is_file():
        raise FileNotFoundError(f"no checkpoint at {checkpoint_file} (-encoder).")
    weights = load_checkpoint(checkpoint_file)["network_weights"]
    for place in PLACES:
        start = f"{place}."
        own = {name.removeprefix(start): t for name, t in weights.items() if name.startswith(start)}
        if own:
            return FrozenEncoder(str(checkpoint_file), _digest(own), own)
    raise ValueError(
        f"the network of {checkpoint_file} has no encoder for -encoder: none of its {len(weights)} "
        f"tensors is named {' or '.join(f'{place}.*' for place in PLACES)}."
    )


def agreed_encoder(
    asked: FrozenEncoder | None, checkpoint: Mapping[str, Any]
) -> FrozenEncoder | None:
    """Return the encoder with which a training goes on from `checkpoint`: the one it began with.

    Args:
        asked: by `-encoder`; None takes the recorded one, whose file need not exist any more.
        checkpoint: of an srseg training, which holds the weights.

    Raises:
        ValueError: if another one is asked for.
    """
    recorded = (checkpoint.get("srseg") or {}).get("encoder")
    if asked is not None and (recorded is None or recorded["digest"] != asked.digest):
        began = "without a frozen encoder" if recorded is None else f"with {recorded['source']}"
        raise ValueError(
            f"the training began {began} and cannot go on with -encoder {asked.source}, which is "
            "another; leave -encoder out, or train anew without --c."
        )
    return None if recorded is None else FrozenEncoder(recorded["source"], recorded["digest"])


def fill_encoder(encoder: nn.Module, weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy `weights` into `encoder`, which must be the same tensor for tensor.

    Stock nnU-Net's state dicts name layers twice; a second name of a tensor that is taken is no
    difference.

    Raises:
        ValueError: if a name or a shape differs; the first ones are named with their shapes.
    """
    own = encoder.state_dict()
    taken = {name: weights[name] for name in own if name in weights}
    places = {tensor.data_ptr() for tensor in taken.values()}
    extra = [n for n, t in weights.items() if n not in own and t.data_ptr() not in places]
    differences = [
        f"{name} is {_shape(weights.get(name))} there and {_shape(own.get(name))} here"
        for name in (*own, *extra)
        if _shape(weights.get(name)) != _shape(own.get(name))
    ]
    if differences:
        more = f" and {len(differences) - 2} more" if len(differences) > 2 else ""
        raise ValueError(
            f"the encoder of {source} is not the one of this network: "
            f"{'; '.join(differences[:2])}{more}; choose trunk, stages and features in the "
            "method's network so that they agree."
        )
    encoder.load_state_dict(taken)


def _shape(tensor: torch.Tensor | None) -> str:
    return "missing" if tensor is None else "x".join(map(str, tensor.shape)) or "a number"


def _digest(weights: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
