"""The default network: nnU-Net's planned encoder-decoder on the LR grid, then the HR stage."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import nn

from srseg.networks.arguments import (
    check_at_least_one,
    check_input,
    check_patch,
    num_axes,
    odd_hr_kernel,
    per_stage_and_axis,
    scale_of_axes,
    strides_per_stage,
)
from srseg.networks.decoder import Decoder
from srseg.networks.encoder import (
    build_encoder,
    drop_aliases,
    initialize_as_nnunet,
    per_stage,
)
from srseg.networks.input_clip import InputClip
from srseg.networks.output import JointOutput
from srseg.networks.sharing import build_hr_stage, check_sharing, sr_decoder


def deep_supervision_scales(
    strides: Sequence[Sequence[int]], scale: Sequence[int]
) -> list[list[float]]:
    """Return the shape of every entry of `JointOutput.seg` relative to the HR grid.

    First the HR logits (all ones), then the decoder's stages from the LR grid downwards. The
    bottleneck has no logits, as in nnU-Net.

    Args:
        strides: of the encoder's stages, per axis.
        scale: refinement per axis.
    """
    scales = [[1.0] * len(scale)]
    factors = list(scale)
    for stride in strides[:-1]:
        factors = [factor * step for factor, step in zip(factors, stride, strict=True)]
        scales.append([1 / factor for factor in factors])
    return scales


class JointUNet(nn.Module):
    """U-Net on the LR grid with one HR stage for segmentation and super-resolution.

    Maps (B, C, z, y, x) to `JointOutput` on the grid `scale` times finer. Heads and sums are
    float32 under any autocast. Freshly built, its SR image is the interpolated input.

    The arguments are the `arch_kwargs` of the plans, nnU-Net's own first. Where nnU-Net takes a
    number or a list per stage, so does this class.

    Args:
        input_channels: channels C of the LR and of the SR image.
        num_classes: channels K of the logits.
        n_stages: resolution stages of the encoder; the first one keeps the LR grid.
        features_per_stage: channels of each stage.
        conv_op: `nn.Conv2d` or `nn.Conv3d`.
        kernel_sizes: per stage, a number or one per axis.
        strides: per stage, a number or one per axis.
        n_conv_per_stage: encoder convolutions, for the plain trunk; the residual one ignores them.
        n_blocks_per_stage: encoder blocks, for the residual trunk. None: as many as in nnU-Net's
            residual encoders (1, 3, 4, then 6 in every stage).
        n_conv_per_stage_decoder: one entry less than `n_stages`, coarsest first.
        conv_bias, norm_op, norm_op_kwargs, dropout_op, dropout_op_kwargs, nonlin, nonlin_kwargs:
            as in nnU-Net, for the trunk; the HR stage uses the nonlinearity alone.
        scale: whole-number refinement per axis.
        trunk: "plain" or "residual" encoder.
        hr_width: channels on the HR grid: the main knob of time and memory.
        hr_num_convs: convolutions on the HR grid.
        hr_kernel_size: of these, per axis. None: 3, but 1 along an axis that is not refined and
            that the first stage does not convolve either, where slices are too far apart.
        sr_head: False builds a network that only segments.
        split: where the tasks part. "hr_stage": at the last HR convolution. "decoder": each has a
            finest decoder stage and an HR stage of its own. "bottleneck": each has a decoder and
            an HR stage of its own. Each HR stage is `hr_width` wide.
        sr_into_seg: lets the segmentation read the SR image, clipped as the input, through one
            more HR convolution; its gradient reaches the SR branch (`SRIntoSeg`).
        input_clip: per channel the (lowest, highest) value that the trunk reads, None for no
            bounds. The SR image is added to the input as it is.
        deep_supervision: adds logits of the decoder's stages; `.decoder.deep_supervision`
            switches it later.

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
        scale: Sequence[int],
        n_conv_per_stage: int | Sequence[int] | None = None,
        n_blocks_per_stage: int | Sequence[int] | None = None,
        conv_bias: bool = False,
        norm_op: type[nn.Module] | None = None,
        norm_op_kwargs: dict[str, Any] | None = None,
        dropout_op: type[nn.Module] | None = None,
        dropout_op_kwargs: dict[str, Any] | None = None,
        nonlin: type[nn.Module] | None = None,
        nonlin_kwargs: dict[str, Any] | None = None,
        trunk: str = "plain",
        hr_width: int = 16,
        hr_num_convs: int = 2,
        hr_kernel_size: Sequence[int] | None = None,
        sr_head: bool = True,
        split: str = "hr_stage",
        sr_into_seg: bool = False,
        input_clip: Sequence[Sequence[float] | None] | None = None,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        ndim = num_axes(conv_op)
        self.scale = scale_of_axes(scale, ndim)
        features = per_stage("features_per_stage", features_per_stage, n_stages)
        kernels = per_stage_and_axis("kernel_sizes", kernel_sizes, n_stages, ndim)
        steps = strides_per_stage(strides, n_stages, ndim)
        check_sharing(split, sr_into_seg, sr_head=sr_head)
        check_at_least_one(hr_width=hr_width, hr_num_convs=hr_num_convs)
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
            kernel_sizes=kernels,
            strides=steps,
            return_skips=True,
            **block_options,
        )
        self.decoder = Decoder(
            features,
            num_classes,
            strides=steps,
            kernel_sizes=kernels,
            n_conv_per_stage=per_stage(
                "n_conv_per_stage_decoder", n_conv_per_stage_decoder, n_stages - 1
            ),
            deep_supervision=deep_supervision,
            block_options=block_options,
        )
        self.sr_decoder = sr_decoder(self.decoder, split)
        self.hr_stage = build_hr_stage(
            features[0],
            hr_width,
            split=split,
            sr_into_seg=sr_into_seg,
            input_clip=input_clip,
            num_classes=num_classes,
            num_sr_channels=input_channels if sr_head else 0,
            conv_op=conv_op,
            scale=self.scale,
            kernel_size=odd_hr_kernel(hr_kernel_size, kernels[0], self.scale),
            num_convs=hr_num_convs,
            nonlin=block_options["nonlin"],
            nonlin_kwargs=nonlin_kwargs,
        )
        self.input_channels = input_channels
        self.num_classes = num_classes
        self.num_sr_channels = input_channels if sr_head else 0
        self.hr_halo = self.hr_stage.halo
        self.lr_divisor = tuple(prod(axis) for axis in zip(*steps, strict=True))
        drop_aliases(self)
        # Complete now, and no hook named `initialize`: nnU-Net would apply that once more after
        # building, module by module, and undo what the HR stage sets.
        initialize_as_nnunet(self)
        self.hr_stage.start_as_interpolation()

    @property
    def output_scales(self) -> list[list[float]]:
        """Sizes of `JointOutput.seg` relative to the HR grid, with deep supervision on."""
        return deep_supervision_scales(self.decoder.strides, self.scale)

    def trunk(self, lr_image: torch.Tensor) -> list[torch.Tensor]:
        """Return the decoder's features, the finest (LR resolution) first.

        The finest are all that the HR stage reads: those of an SR decoder follow as channels.

        Args:
            lr_image: (B, C, z, y, x), every axis a multiple of `lr_divisor`.

        Raises:
            ValueError: if the shape does not fit the network.
        """
        return self._decoder_features(self.encode(lr_image))

    def encode(self, lr_image: torch.Tensor) -> list[torch.Tensor]:
        """Return the encoder's features of `lr_image` (B, C, z, y, x), the finest first.

        Raises:
            ValueError: if the shape does not fit the network.
        """
        check_input(lr_image, self.input_channels, self.lr_divisor)
        return self.encoder(self.input_clip(lr_image))

    def decode(self, skips: Sequence[torch.Tensor], lr_image: torch.Tensor) -> JointOutput:
        """Return logits and SR image from `encode(lr_image)`."""
        return self._outputs(self._decoder_features(skips), lr_image)

    def _decoder_features(self, skips: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        features = self.decoder(skips)
        if self.sr_decoder is None:
            return features
        own = len(self.sr_decoder.stages)
        below = [*features, skips[-1]][own]  # where both decoders part
        sr_features = self.sr_decoder([*skips[:own], below])[0]
        return [torch.cat((features[0], sr_features), 1), *features[1:]]

    def forward(self, lr_image: torch.Tensor) -> JointOutput:
        """Return logits and SR image of `lr_image` (B, C, z, y, x) on the HR grid."""
        return self._outputs(self.trunk(lr_image), lr_image)

    def _outputs(self, features: list[torch.Tensor], lr_image: torch.Tensor) -> JointOutput:
        logits, sr_image = self.hr_stage(features[0], lr_image)
        if self.sr_decoder is not None:
            features[0] = features[0].chunk(2, 1)[0]
        return JointOutput([logits, *self.decoder.deep_supervision_logits(features)], sr_image)

    def compute_conv_feature_map_size(self, lr_patch: Sequence[int]) -> int:
        """Return the elements of all convolution outputs for one LR patch, HR stage included.

        This is what nnU-Net's planner measures memory in. The trunk counts as in
        dynamic_network_architectures.

        Raises:
            ValueError: if the patch has another number of axes than the network.
        """
        check_patch(lr_patch, len(self.scale))
        parts = (self.encoder, self.decoder, self.sr_decoder, self.hr_stage)
        return sum(
            int(part.compute_conv_feature_map_size(lr_patch)) for part in filter(None, parts)
        )
