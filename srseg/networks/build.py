"""A network from the plans alone, without running what foreign plans name.

Plans name classes by dotted paths. Only classes of torch's layers, of
dynamic_network_architectures and of this package are looked up, and only `nn.Module` classes
are accepted: opening someone else's model never runs their code. The one exception, a user's own
encoder, is refused unless the caller says `trust`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from srseg.networks.shallow_convolutions import make_shallow_safe
from srseg.networks.user_encoder import (
    USER_ENCODER,
    check_trusted,
    install_user_encoder,
    user_encoder_of,
)

ALLOWED_PREFIXES = ("srseg.networks.", "dynamic_network_architectures.", "torch.nn.")
_NEED_TIMM = (  # srseg does not use timm: its torchvision may be unusable beside a CPU torch
    "dynamic_network_architectures.architectures.primus",
    "dynamic_network_architectures.architectures.dinov2_eva",
    "dynamic_network_architectures.building_blocks.eva",
)
_ARCHITECTURE_KEYS = ("network_class_name", "arch_kwargs", "_kw_requires_import")


def resolve_module_class(path: str) -> type[nn.Module]:
    """Return the `nn.Module` class that the dotted `path` names.

    Raises:
        ValueError: if the path lies outside the allowed packages, does not exist or is something
            else than an `nn.Module` class.
    """
    if not isinstance(path, str) or not path.startswith(ALLOWED_PREFIXES):
        raise ValueError(
            f"network class {path!r} of the plans or the method is not allowed; allowed are dotted "
            f"paths that start "
            f"with {', '.join(ALLOWED_PREFIXES)}"
        )
    module_name, _, class_name = path.rpartition(".")
    if module_name.startswith(_NEED_TIMM):
        raise ValueError(f"network class '{path}' needs timm, which srseg does not use.")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"network class '{path}' of the plans or the method cannot be found: {error}."
        ) from error
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise ValueError(f"'{path}' of the plans or the method is not a torch.nn.Module class.")
    return found


def build_network(
    architecture: Mapping[str, Any],
    input_channels: int,
    num_classes: int,
    *,
    deep_supervision: bool = False,
    trust: bool = False,
    device: str | torch.device | None = None,
) -> nn.Module:
    """Return the network that the `architecture` entry of a configuration describes.

    Args:
        architecture: `network_class_name`, `arch_kwargs` and `_kw_requires_import`, the names of
            those arguments that are dotted paths.
        input_channels: channels of the LR image.
        num_classes: channels of the logits.
        deep_supervision: passed on to networks that know it.
        trust: import the user's encoder that the arguments may name, see
            `srseg.networks.user_encoder`.
        device: where the weights are made; "meta" makes none, for counting only: the planned
            encoder then stands for a user's, which is not imported.

    Raises:
        ValueError: if a class or an argument is unknown, an argument is missing, or there is a
            user's encoder and no trust.
    """
    if set(architecture) != set(_ARCHITECTURE_KEYS):
        raise ValueError(
            f"the architecture of the plans has the keys {sorted(architecture)}; "
            f"needed are {sorted(_ARCHITECTURE_KEYS)}."
        )
    network_class = resolve_module_class(architecture["network_class_name"])
    options = dict(architecture["arch_kwargs"])
    user_encoder = options.pop(USER_ENCODER, None)
    only_counted = device is not None and torch.device(device).type == "meta"
    if not only_counted:
        import_path = user_encoder_of(architecture)
        check_trusted(import_path, trust=trust, where="the network of the plans or the method")
    for name in architecture["_kw_requires_import"]:
        if name not in options:
            raise ValueError(
                f"_kw_requires_import of the plans names '{name}', which arch_kwargs do not have; "
                f"they have {', '.join(sorted(options))}."
            )
        if options[name] is not None:
            options[name] = resolve_module_class(options[name])
    options |= {"input_channels": input_channels, "num_classes": num_classes}
    if "deep_supervision" in inspect.signature(network_class).parameters:
        options["deep_supervision"] = deep_supervision
    _check_arguments(network_class, options)
    with nullcontext() if device is None else torch.device(device):
        network = network_class(**options)
    if hasattr(network, "initialize"):  # nnU-Net's own networks; ours start initialised
        network.apply(network.initialize)
    network = make_shallow_safe(network)
    if user_encoder is None or only_counted:
        return network
    with nullcontext() if device is None else torch.device(device):
        return install_user_encoder(network, user_encoder)


def _check_arguments(network_class: type[nn.Module], options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(network_class).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    unknown = sorted(set(options) - set(parameters))
    if unknown:
        raise ValueError(
            f"unknown argument {', '.join(unknown)} for {network_class.__name__}; "
            f"known: {', '.join(sorted(parameters))}."
        )
    needed = {name for name, p in parameters.items() if p.default is p.empty}
    missing = sorted(needed - set(options))
    if missing:
        raise ValueError(f"{network_class.__name__} needs {', '.join(missing)} in the arch_kwargs.")
