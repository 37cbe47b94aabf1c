"""What comes from dynamic_network_architectures: the encoders, freed of three oddities.

Its blocks register each layer twice, use lambdas, which do not pickle, and leave the initial
weights to whoever builds the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.residual import BasicBlockD
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import nn

_RESENC_BLOCKS = (1, 3, 4)  # nnU-Net's residual encoders, finest stage first, 6 in every other
_RESENC_DEEPER = 6


def build_encoder(
    trunk: str,
    *,
    n_conv_per_stage: int | Sequence[int] | None,
    n_blocks_per_stage: int | Sequence[int] | None,
    **options: Any,
) -> PlainConvEncoder | ResidualEncoder:
    """Return the "plain" or "residual" encoder with the `options` of its class.

    Plans carry `n_conv_per_stage` whatever trunk a method asks for, so the residual one does not
    read it; without `n_blocks_per_stage` it has as many blocks as nnU-Net's residual encoders.

    Raises:
        ValueError: if the trunk is unknown, or the plain one is given blocks or no convolutions.
    """
    if trunk == "residual":
        num_stages = options["n_stages"]
        blocks = n_blocks_per_stage
        if blocks is None:
            deeper = [_RESENC_DEEPER] * num_stages
            blocks = [*_RESENC_BLOCKS, *deeper][:num_stages]
        blocks = per_stage("n_blocks_per_stage", blocks, num_stages)
        return ResidualEncoder(n_blocks_per_stage=blocks, **options)
    if trunk != "plain":
        raise ValueError(f"unknown trunk '{trunk}'; known: plain, residual.")
    if n_blocks_per_stage is not None:
        raise ValueError(
            "trunk 'plain' takes n_conv_per_stage alone, got n_blocks_per_stage too; "
            "for blocks set trunk to 'residual'."
        )
    if n_conv_per_stage is None:
        raise ValueError("trunk 'plain' needs n_conv_per_stage.")
    convs = per_stage("n_conv_per_stage", n_conv_per_stage, options["n_stages"])
    return PlainConvEncoder(n_conv_per_stage=convs, **options)


def per_stage(name: str, values: int | Sequence[int], num_stages: int) -> list[int]:
    """Return one entry per stage, as nnU-Net reads a plain number.

    Raises:
        ValueError: if the number of entries is another.
    """
    values = [values] * num_stages if isinstance(values, int) else list(values)
    if len(values) != num_stages:
        raise ValueError(f"{name} has {len(values)} entries, {num_stages} are needed: {values}.")
    return values


def drop_aliases(network: nn.Module) -> None:
    """Leave every tensor of `network` one name, and no lambda, so that it pickles.

    DNA's blocks register each layer under its own name and in `all_modules` again, and use a
    lambda for a skip that does nothing.
    """
    for module in list(network.modules()):
        if isinstance(module, ConvDropoutNormReLU):
            for alias in ("conv", "dropout", "norm", "nonlin"):
                if hasattr(module, alias):
                    delattr(module, alias)
        elif isinstance(module, BasicBlockD) and not isinstance(module.skip, nn.Module):
            module.skip = nn.Identity()


def is_weightless(network: nn.Module) -> bool:
    """Return whether a network is on the "meta" device, where it is only counted.

    To draw weights there takes torch seconds, in which it imports its compiler.
    """
    return any(parameter.is_meta for parameter in network.parameters())


def initialize_as_nnunet(network: nn.Module) -> None:
    """Set the weights that nnU-Net starts with; call after `drop_aliases`.

    He's for a leaky slope of 0.01, and residual blocks that begin as their skip.
    """
    if is_weightless(network):
        return
    network.apply(InitWeights_He(1e-2))
    for module in network.modules():
        if not isinstance(module, BasicBlockD):
            continue
        last = module.conv2.all_modules[-1]  # the norm, where there is one
        is_norm = not isinstance(last, nn.Conv2d | nn.Conv3d)
        if is_norm and getattr(last, "weight", None) is not None:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
