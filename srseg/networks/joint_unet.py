"""The default network: nnU-Net's planned encoder-decoder on the LR grid, then the HR stage."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import nn

from srseg.geometry.grid import checked_scale
from srseg.networks.decoder import Decoder
from srseg.networks.encoder import (
    build_encoder,
    drop_aliases,
    initialize_as_nnunet,
    per_stage,
)
from srseg.networks.hr_stage import HRStage
from srseg.networks.input_clip import InputClip
from srseg.networks.output import JointOutput


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
        n_conv_per_stage: encoder convolutions, for the plain trunk.
        n_blocks_per_stage: encoder blocks, for the residual trunk.
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
        input_clip: Sequence[Sequence[float] | None] | None = None,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        ndim = _num_axes(conv_op)
        self.scale = _checked_scale(scale, ndim)
        features = per_stage("features_per_stage", features_per_stage, n_stages)
        kernels = _per_stage_and_axis("kernel_sizes", kernel_sizes, n_stages, ndim)
        steps = _per_stage_and_axis("strides", strides, n_stages, ndim)
        if any(step != 1 for step in steps[0]):
            raise ValueError(
                f"the first stage must keep the LR grid, its stride is {list(steps[0])} "
                "where all ones are allowed."
            )
        _check_at_least_one(hr_width=hr_width, hr_num_convs=hr_num_convs)
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
        self.hr_stage = HRStage(
            features[0],
            hr_width,
            num_classes=num_classes,
            num_sr_channels=input_channels if sr_head else 0,
            conv_op=conv_op,
            scale=self.scale,
            kernel_size=_hr_kernel_size(hr_kernel_size, kernels[0], self.scale),
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

    def trunk(self, lr_image: torch.Tensor) -> list[torch.Tensor]:
        """Return the decoder's features, the finest (LR resolution) first.

        Args:
            lr_image: (B, C, z, y, x), every axis a multiple of `lr_divisor`.

        Raises:
            ValueError: if the shape does not fit the network.
        """
        shape = lr_image.shape
        fits = (
            len(shape) == 2 + len(self.scale)
            and shape[1] == self.input_channels
            and all(n % d == 0 for n, d in zip(shape[2:], self.lr_divisor, strict=True))
        )
        if not fits:
            raise ValueError(
                f"the network got an input of shape {tuple(shape)}; it takes (batch, "
                f"{self.input_channels}, *axes) with axes that are multiples of {self.lr_divisor}."
            )
        return self.decoder(self.encoder(self.input_clip(lr_image)))

    def forward(self, lr_image: torch.Tensor) -> JointOutput:
        """Return logits and SR image of `lr_image` (B, C, z, y, x) on the HR grid."""
        features = self.trunk(lr_image)
        logits, sr_image = self.hr_stage(features[0], lr_image)
        return JointOutput([logits, *self.decoder.deep_supervision_logits(features)], sr_image)

    def compute_conv_feature_map_size(self, lr_patch: Sequence[int]) -> int:
        """Return the elements of all convolution outputs for one LR patch, HR stage included.

        This is what nnU-Net's planner measures memory in. The trunk counts as in
        dynamic_network_architectures.

        Raises:
            ValueError: if the patch has another number of axes than the network.
        """
        if len(lr_patch) != len(self.scale):
            raise ValueError(
                f"got a patch {tuple(lr_patch)}; the network has {len(self.scale)} axes, "
                "give their lengths without batch and channels."
            )
        parts = (self.encoder, self.decoder, self.hr_stage)
        return sum(int(part.compute_conv_feature_map_size(lr_patch)) for part in parts)


def _num_axes(conv_op: type[nn.Module]) -> int:
    known: dict[type[nn.Module], int] = {nn.Conv2d: 2, nn.Conv3d: 3}
    if conv_op not in known:
        raise ValueError(f"unknown conv_op {conv_op!r}; known: Conv2d, Conv3d of torch.nn.")
    return known[conv_op]


def _check_at_least_one(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; at least 1 is needed.")


def _checked_scale(scale: Sequence[int], ndim: int) -> tuple[int, ...]:
    if len(scale) != ndim:
        raise ValueError(f"scale is {list(scale)}; {ndim} entries are needed, one per axis.")
    return checked_scale(scale)


def _per_stage_and_axis(name: str, values: Any, num_stages: int, ndim: int) -> list[list[int]]:
    rows = [
        [row] * ndim if isinstance(row, int) else list(row)
        for row in per_stage(name, values, num_stages)
    ]
    if any(len(row) != ndim for row in rows):
        raise ValueError(f"{name} must have {ndim} entries per stage, one per axis: {rows}.")
    return rows


def _hr_kernel_size(
    wanted: Sequence[int] | None, first_kernel: Sequence[int], scale: Sequence[int]
) -> tuple[int, ...]:
    """Return the odd kernel per axis of the HR convolutions.

    Where nnU-Net's rule gives the first stage a kernel of 1, the LR grid is so anisotropic that
    neighbours along this axis say little. If the axis is not refined while others are, the HR
    grid is more anisotropic still, so the costly HR convolutions leave it out too.
    """
    if wanted is None:
        return tuple(
            1 if size == 1 and factor == 1 else 3
            for size, factor in zip(first_kernel, scale, strict=True)
        )
    if len(wanted) != len(scale) or any(size % 2 == 0 for size in wanted):
        raise ValueError(
            f"hr_kernel_size is {list(wanted)}; {len(scale)} odd numbers are needed, one per axis."
        )
    return tuple(wanted)
