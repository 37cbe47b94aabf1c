"""A user's own torch module as the frozen encoder of a network of ours (`-encoder a.b:C --trust`).

The plans name it by import path, beside the architecture's other arguments. Whoever builds such a
network runs somebody's code, so this is refused unless the user has said that they trust it.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from srseg.networks.encoder import initialize_as_nnunet
from srseg.networks.freezing import encoder_place, freeze

USER_ENCODER = "user_encoder"  # in arch_kwargs: {"import_path": "a.b:C", "channels": [...]}
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_import_path(encoder: str) -> bool:
    """Return whether `encoder` reads "package.module:Name" and is no existing file."""
    return _IMPORT_PATH.fullmatch(encoder) is not None and not Path(encoder).exists()


def user_encoder_of(architecture: Mapping[str, Any]) -> str | None:
    """Return the import path that an architecture of the plans records; None for a planned encoder.

    Raises:
        ValueError: if the record is malformed.
    """
    record = architecture["arch_kwargs"].get(USER_ENCODER)
    return None if record is None else _checked(record)[0]


def check_trusted(import_path: str | None, *, trust: bool, where: str) -> None:
    """Refuse a user's encoder without `trust`; nothing has been imported yet.

    Args:
        import_path: as `user_encoder_of` returns it.
        trust: whether the user has said so.
        where: what names the encoder, at the beginning of the message.

    Raises:
        ValueError: if there is such an encoder and no trust.
    """
    if import_path is not None and not trust:
        raise ValueError(
            f"{where} has the encoder {import_path}, which is no part of srseg: opening this model "
            "would run code of somebody. If you trust that code, say --trust (srseg_train, "
            "srseg_predict), or trust=True in Python."
        )


def load_user_module(import_path: str) -> nn.Module:
    """Import what "package.module:Name" names and return what calling it gives.

    This runs somebody's code. Python's path is searched, then the current folder.

    Raises:
        ValueError: if the import or the call fails, or gives something else than an `nn.Module`.
    """
    module_name, _, name = import_path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last: hides nothing
    try:
        made = getattr(importlib.import_module(module_name), name)()
    except Exception as error:  # of any kind: it is not our code
        raise ValueError(
            f"the encoder {import_path} cannot be imported and called without arguments "
            f"({type(error).__name__}: {error}); Python's path and the current folder {here} were "
            "searched."
        ) from error
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"the encoder {import_path} gave a {type(made).__name__} where a torch.nn.Module is "
            "needed."
        )
    return made


def check_feature_maps(
    features: Any,
    image_shape: Sequence[int],
    strides: Sequence[Sequence[int]],
    import_path: str,
    channels: Sequence[int] | None = None,
) -> None:
    """Check what a user's encoder has returned.

    Args:
        features: a list of (B, F, *axes) is needed, finest first, one per stage.
        image_shape: (B, C, *axes) of what it was given.
        strides: of the network's stages, per axis.
        import_path: for the message.
        channels: F of each; None takes any.

    Raises:
        ValueError: if they are something else; what was got and what is needed is said.
    """
    grid, needed = list(image_shape[2:]), []
    for i, stride in enumerate(strides):
        grid = [n // step for n, step in zip(grid, stride, strict=True)]
        width = "F" if channels is None else str(channels[i])
        needed.append(f"{image_shape[0]}x{width}x{'x'.join(map(str, grid))}")
    got = f"a {type(features).__name__}"
    if isinstance(features, list | tuple) and all(map(torch.is_tensor, features)):
        shapes = [list(map(str, feature.shape)) for feature in features]
        fitting = [f"{s[0]}xFx{'x'.join(s[2:])}" if len(s) > 2 else "x".join(s) for s in shapes]
        if (fitting if channels is None else list(map("x".join, shapes))) == needed:
            return
        got = ", ".join(map("x".join, shapes)) or "an empty list"
    raise ValueError(
        f"the encoder {import_path} must return one feature map per stage, finest first: for an "
        f"image of {'x'.join(map(str, image_shape))} needed are {', '.join(needed)}, got {got}."
    )


class UserEncoder(nn.Module):
    """A user's module, frozen, and a trained 1x1 convolution per stage to the decoder's channels.

    Gradients pass through the module to its input. Its weights are part of the state dict.

    Args:
        import_path: "package.module:Name"; it is imported here.
        channels: of the feature maps that it returns, finest first.
        planned: the encoder that this one replaces: channels, strides and convolution type are
            its, and it is what the memory is counted by.

    Raises:
        ValueError: if it cannot be imported, or the number of stages is another.
    """

    def __init__(self, import_path: str, channels: Sequence[int], planned: nn.Module) -> None:
        super().__init__()
        self.strides = [tuple(stride) for stride in planned.strides]
        if len(channels) != len(self.strides):
            raise ValueError(
                f"the plans record {len(channels)} feature maps of the encoder {import_path}; the "
                f"network has {len(self.strides)} stages."
            )
        self.import_path, self.channels = import_path, tuple(channels)
        self.module = load_user_module(import_path)
        freeze(self.module)
        self.projections = nn.ModuleList(
            planned.conv_op(own, needed, 1)
            for own, needed in zip(channels, planned.output_channels, strict=True)
        )
        initialize_as_nnunet(self.projections)
        self._planned = (planned.to("meta"),)  # in a tuple: no part of this network's weights

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of `image` (B, C, *axes), finest first.

        Raises:
            ValueError: if the user's module returns other shapes than needed.
        """
        features = self.module(image)
        check_feature_maps(features, image.shape, self.strides, self.import_path, self.channels)
        return [
            projection(feature)
            for projection, feature in zip(self.projections, features, strict=True)
        ]

    def compute_conv_feature_map_size(self, shape: Sequence[int]) -> int:
        """Return the elements of the planned encoder: what the user's takes is not known.

        Being frozen, it keeps fewer maps for the gradient than a trained encoder of its size.
        """
        return int(self._planned[0].compute_conv_feature_map_size(shape))


def install_user_encoder(network: nn.Module, record: Mapping[str, Any]) -> nn.Module:
    """Put the encoder of a record of the plans into `network`; return the network.

    Raises:
        ValueError: if the record is malformed, the network has no encoder, or the user's does not
            fit.
    """
    import_path, channels = _checked(record)
    parent, _, name = (place := encoder_place(network)).rpartition(".")
    encoder = UserEncoder(import_path, channels, network.get_submodule(place))
    setattr(network.get_submodule(parent), name, encoder)
    return network


def _checked(record: Any) -> tuple[str, list[int]]:
    """Return import path and channels of a record."""
    if isinstance(record, Mapping) and set(record) == {"import_path", "channels"}:
        import_path, channels = record["import_path"], record["channels"]
        if (
            isinstance(import_path, str)
            and _IMPORT_PATH.fullmatch(import_path)
            and isinstance(channels, list | tuple)
            and all(isinstance(n, int) and n > 0 for n in channels)
        ):
            return import_path, list(channels)
    raise ValueError(
        f"{USER_ENCODER} of the plans or the method is {record!r}; it must hold import_path "
        "('package.module:Name') and channels, a list of numbers."
    )
