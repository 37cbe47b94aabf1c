"""The trunk's decoder: a U-Net decoder that hands out its features instead of one result."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from math import prod
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.helper import get_matching_convtransp
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from torch import nn

from srseg.networks.precision import full_precision


class Decoder(nn.Module):
    """U-Net decoder on the LR grid, with a 1x1 segmentation layer per stage.

    Modules are named and ordered as in nnU-Net's `UNetDecoder` (coarsest stage first), so that
    weights of a stock network fit. Unlike it, this one takes channel numbers instead of holding
    the encoder, whose tensors would then be in the state dict twice.

    Args:
        features_per_stage: channels of the encoder's stages, finest first.
        num_classes: channels of each stage's logits.
        strides: of the encoder's stages, per axis; the first one is not undone.
        kernel_sizes: of the encoder's stages, per axis.
        n_conv_per_stage: one entry less than encoder stages, coarsest first.
        deep_supervision: whether `deep_supervision_logits` returns anything; may be changed.
        block_options: `conv_op`, `conv_bias`, norm, dropout and nonlinearity as DNA's
            `StackedConvBlocks` takes them.
    """

    def __init__(
        self,
        features_per_stage: Sequence[int],
        num_classes: int,
        *,
        strides: Sequence[Sequence[int]],
        kernel_sizes: Sequence[Sequence[int]],
        n_conv_per_stage: Sequence[int],
        deep_supervision: bool,
        block_options: dict[str, Any],
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.strides = [tuple(stride) for stride in strides]
        conv_op, bias = block_options["conv_op"], block_options["conv_bias"]
        transposed = get_matching_convtransp(conv_op)
        self.transpconvs, self.stages = nn.ModuleList(), nn.ModuleList()
        self.seg_layers = nn.ModuleList()
        for i, num_convs in enumerate(n_conv_per_stage):
            below = len(features_per_stage) - 1 - i
            channels, stride = features_per_stage[below - 1], self.strides[below]
            self.transpconvs.append(
                transposed(features_per_stage[below], channels, stride, stride, bias=bias)
            )
            self.stages.append(
                StackedConvBlocks(
                    num_convs,
                    input_channels=2 * channels,
                    output_channels=channels,
                    kernel_size=kernel_sizes[below - 1],
                    initial_stride=1,
                    **block_options,
                )
            )
            # built without deep supervision too: weights load whether it is on or off
            self.seg_layers.append(conv_op(channels, num_classes, 1))

    def forward(
        self, skips: Sequence[torch.Tensor], gates: Sequence[torch.Tensor] | None = None
    ) -> list[torch.Tensor]:
        """Return the features of every decoder stage, finest first.

        Args:
            skips: features of the encoder's stages, finest first. With one stage there is
                nothing to decode and its features come back.
            gates: per decoder stage, finest first, a tensor that its features are multiplied by
                before anything reads them; None for none.
        """
        features = [skips[-1]]
        factors = [None] * len(self.stages) if gates is None else reversed(gates)
        for skip, transpconv, stage, factor in zip(
            reversed(skips[:-1]), self.transpconvs, self.stages, factors, strict=True
        ):
            feature = torch.cat((transpconv(features[-1]), skip), 1)
            for convolution in stage.convs:
                feature = convolution(feature)
            features.append(feature if factor is None else feature * factor)
        return features[:0:-1] or features

    def widen_bottleneck(self, extra: int) -> None:
        """Let the coarsest features come with `extra` more channels; the weights start anew.

        Raises:
            ValueError: if the network has one stage, and with it no bottleneck.
        """
        if not self.stages:
            raise ValueError("a network of one stage has no bottleneck that could be widened.")
        old = self.transpconvs[0]
        self.transpconvs[0] = type(old)(
            old.in_channels + extra,
            old.out_channels,
            old.kernel_size,
            old.stride,
            bias=old.bias is not None,
        )

    def twin(self) -> Decoder:
        """Return a second decoder of the same build that gives features, but no logits."""
        twin = deepcopy(self)
        twin.deep_supervision, twin.seg_layers = False, nn.ModuleList()
        return twin

    def deep_supervision_logits(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return float32 logits of every stage, finest first; none without deep supervision."""
        if not self.deep_supervision:
            return []
        with full_precision(features[0].device.type):
            # one stage alone has features, but no decoder stage: zip ends at once
            return [
                layer(feature.float())
                for feature, layer in zip(features, reversed(self.seg_layers), strict=False)
            ]

    def compute_conv_feature_map_size(self, lr_shape: Sequence[int]) -> int:
        """Return the elements of all convolution outputs for one encoder input of `lr_shape`."""
        total, shape = 0, tuple(lr_shape)
        for i, stage in reversed(list(enumerate(self.stages))):
            shape = tuple(
                n // s for n, s in zip(shape, self.strides[len(self.stages) - 1 - i], strict=True)
            )
            total += int(stage.compute_conv_feature_map_size(shape))
            total += self.transpconvs[i].out_channels * prod(shape)
            if self.deep_supervision:
                total += self.seg_layers[i].out_channels * prod(shape)
        return total
