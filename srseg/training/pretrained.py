"""Weights to start from: whatever fits by name and shape, and a report of what did not."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

from srseg.inference.model_folder import load_checkpoint

logger = logging.getLogger(__name__)


def load_pretrained_weights(network: nn.Module, checkpoint_file: str | Path) -> int:
    """Copy matching tensors of a checkpoint into `network`; return how many.

    Ours and stock nnU-Net's checkpoints are read. A tensor is taken where name and shape agree;
    segmentation heads are left as they are, as nnU-Net does (their classes differ).

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if nothing fits.
    """
    checkpoint_file = Path(checkpoint_file)
    if not checkpoint_file.is_file():
        raise FileNotFoundError(f"no checkpoint at {checkpoint_file} (-pretrained_weights).")
    offered = load_checkpoint(checkpoint_file)["network_weights"]
    own = network.state_dict()
    fitting = {
        name: tensor
        for name, tensor in offered.items()
        if name in own
        and own[name].shape == tensor.shape
        and not any(head in name for head in (".seg_layers.", ".seg_head."))
    }
    if not fitting:
        raise ValueError(
            f"no tensor of {checkpoint_file} fits this network: none of its {len(offered)} names "
            f"and shapes matches one of the network's {len(own)}."
        )
    network.load_state_dict({**own, **fitting})
    logger.info(
        "pretrained weights: %d of the network's %d tensors taken from %s, %d stay as initialised",
        len(fitting),
        len(own),
        checkpoint_file,
        len(own) - len(fitting),
    )
    return len(fitting)
