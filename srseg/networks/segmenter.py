"""nnU-Net's planned encoder-decoder on one grid, for networks whose segmenter is one as a whole.

`JointUNet` shares such a trunk between two tasks; here it segments and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import nn

from srseg.networks.arguments import num_axes, per_stage_and_axis
from srseg.networks.decoder import Decoder
from srseg.networks.encoder import build_encoder, per_stage
from srseg.networks.input_clip import InputClip
from srseg.networks.precision import full_precision


class EncoderDecoder(nn.Module):
    """Clip, encoder and decoder with 1x1 logits per stage; who inherits says what they become.

    Modules are named as in nnU-Net, so that weights of a stock network fit. The arguments are
    those of `JointUNet` that describe its trunk.

    Attributes:
        strides, kernel_sizes: per stage and axis.
        divisor: per axis what the image's size must be a multiple of.

    Raises:
        ValueError: if the arguments contradict each other.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        n_stages: int,
        features_per_stage: int | Sequence[int],
        conv_op: type[nn.Module],
        kernel_sizes: int | Sequence[int] | Sequence[Sequence[int]],
        strides: int | Sequence[int] | Sequence[Sequence[int]],
        n_conv_per_stage_decoder: int | Sequence[int],
        n_conv_per_stage: int | Sequence[int] | None = None,
        n_blocks_per_stage: int | Sequence[int] | None = None,
        trunk: str = "plain",
        input_clip: Sequence[Sequence[float] | None] | None = None,
        deep_supervision: bool = False,
        conv_bias: bool = False,
        norm_op: type[nn.Module] | None = None,
        norm_op_kwargs: dict[str, Any] | None = None,
        dropout_op: type[nn.Module] | None = None,
        dropout_op_kwargs: dict[str, Any] | None = None,
        nonlin: type[nn.Module] | None = None,
        nonlin_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        ndim = num_axes(conv_op)
        features = per_stage("features_per_stage", features_per_stage, n_stages)
        self.kernel_sizes = per_stage_and_axis("kernel_sizes", kernel_sizes, n_stages, ndim)
        self.strides = per_stage_and_axis("strides", strides, n_stages, ndim)
        if any(step != 1 for step in self.strides[0]):
            raise ValueError(
                f"the first stage must keep its grid, its stride is {self.strides[0]} "
                "where all ones are allowed."
            )
        block_options = {
            "conv_op": conv_op,
            "conv_bias": conv_bias,
            "norm_op": norm_op,
            "norm_op_kwargs": norm_op_kwargs,
            "dropout_op": dropout_op,
            "dropout_op_kwargs": dropout_op_kwargs,
            "nonlin": nonlin or nn.Identity,  # takes any options, and unlike a lambda pickles
            "nonlin_kwargs": nonlin_kwargs,
        }
        self.input_clip = InputClip(input_channels, input_clip)
        self.encoder = build_encoder(
            trunk,
            n_conv_per_stage=n_conv_per_stage,
            n_blocks_per_stage=n_blocks_per_stage,
            input_channels=input_channels,
            n_stages=n_stages,
            features_per_stage=features,
            kernel_sizes=self.kernel_sizes,
            strides=self.strides,
            return_skips=True,
            **block_options,
        )
        self.decoder = Decoder(
            features,
            num_classes,
            strides=self.strides,
            kernel_sizes=self.kernel_sizes,
            n_conv_per_stage=per_stage(
                "n_conv_per_stage_decoder", n_conv_per_stage_decoder, n_stages - 1
            ),
            deep_supervision=deep_supervision,
            block_options=block_options,
        )
        # one stage alone has no decoder stage, and so no segmentation layer
        self.head = conv_op(features[0], num_classes, 1) if n_stages == 1 else None
        self.input_channels, self.num_classes = input_channels, num_classes
        self.divisor = tuple(prod(axis) for axis in zip(*self.strides, strict=True))

    def stage_logits(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return float32 logits on the grid of `image`, then those of coarser stages.

        The coarser ones come with deep supervision only.

        Args:
            image: (B, C, *axes), every axis a multiple of `divisor`.
        """
        features = self.decoder(self.encoder(self.input_clip(image)))
        logits = self.decoder.deep_supervision_logits(features)
        if logits:
            return logits
        head = self.decoder.seg_layers[-1] if self.head is None else self.head
        with full_precision(image.device.type):
            return [head(features[0].float())]

    def _count_elements(self, shape: Sequence[int]) -> int:
        """Return the elements of all convolution outputs for one image of `shape`."""
        parts = (self.encoder, self.decoder)
        total = sum(int(part.compute_conv_feature_map_size(shape)) for part in parts)
        counted = self.decoder.deep_supervision and self.head is None
        return total + (0 if counted else self.num_classes * prod(shape))


class Segmenter(EncoderDecoder):
    """Maps (B, C, *axes) to the list of logits, the first on the same grid."""

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return float32 logits (B, K, *axes), then with deep supervision coarser ones."""
        return self.stage_logits(image)

    def compute_conv_feature_map_size(self, shape: Sequence[int]) -> int:
        """Return the elements of all convolution outputs for one image of `shape`."""
        return self._count_elements(shape)
