"""Super-resolve, then segment: an SR network and a whole segmentation network on its HR image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import lcm
from typing import Any

import torch
from torch import nn

from srseg.networks.arguments import check_input, check_patch, odd_hr_kernel, scale_of_axes
from srseg.networks.encoder import drop_aliases, initialize_as_nnunet
from srseg.networks.joint_unet import deep_supervision_scales
from srseg.networks.output import JointOutput
from srseg.networks.segmenter import EncoderDecoder, Segmenter
from srseg.networks.signature import takes_arguments_of
from srseg.networks.sr_networks import build_sr_network

PARTS = ("sr_network", "segmenter")


@takes_arguments_of(EncoderDecoder)
class SerialSRSeg(nn.Module):
    """An SR network, then nnU-Net on the HR grid: JOANet's arrangement, and a baseline.

    Maps (B, C, z, y, x) to `JointOutput` on the grid `scale` times finer. With the SR network
    "cubic" it interpolates and segments. The segmenter normalises over the HR volume as any
    nnU-Net, so there is no halo with which slabs would equal the whole: `hr_halo` is None.

    `n_stages`, `strides`, `kernel_sizes`, `features_per_stage` and the other arguments of
    `JointUNet`'s trunk describe the segmenter, whose first stage is the HR grid.

    Args:
        input_channels: channels C of the LR and of the SR image.
        num_classes: channels K of the logits.
        scale: whole-number refinement per axis.
        sr_network: {"name": a key of `SR_NETWORKS`, its options}; None is "edsr".
        degradation: the plans' JSON for three axes; None, or real pairs, stand for "area".
        hr_spacing: mm per axis, for the degradation.
        detach_sr: train the segmenter on the SR image without a gradient to the SR network; an
            attribute too, which a trainer may switch.
        sr_head: False keeps the SR image inside, as an intermediate that no loss sees.
        hr_kernel_size: of the SR network's convolutions, per axis; None as in `JointUNet`.
        hr_width, hr_num_convs: not used, the segmenter and the SR network have their own numbers.
        **options: of the segmenter, with `input_clip` (acts on what the segmenter reads alone) and
            `deep_supervision`; see `EncoderDecoder`.

    Attributes:
        sr_network, segmenter: the two parts; `frozen` freezes one.

    Raises:
        ValueError: if the arguments contradict each other.
    """

    hr_halo = None

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        scale: Sequence[int],
        sr_network: Mapping[str, Any] | None = None,
        degradation: Mapping[str, Any] | None = None,
        hr_spacing: Sequence[float] | None = None,
        detach_sr: bool = False,
        sr_head: bool = True,
        hr_kernel_size: Sequence[int] | None = None,
        hr_width: int = 16,
        hr_num_convs: int = 2,
        deep_supervision: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.segmenter = Segmenter(
            input_channels, num_classes, deep_supervision=deep_supervision, **options
        )
        self.scale = scale_of_axes(scale, len(self.segmenter.divisor))
        self.sr_network = build_sr_network(
            {"name": "edsr"} if sr_network is None else sr_network,
            num_channels=input_channels,
            conv_op=options["conv_op"],
            scale=self.scale,
            kernel_size=odd_hr_kernel(hr_kernel_size, self.segmenter.kernel_sizes[0], self.scale),
            strides=self.segmenter.strides,
            degradation=degradation,
            hr_spacing=hr_spacing,
        )
        if detach_sr and not sr_head and any(True for _ in self.sr_network.parameters()):
            raise ValueError(
                "detach_sr with sr_head false leaves the SR network without any gradient; "
                "allowed is one of them."
            )
        self.input_channels, self.num_classes = input_channels, num_classes
        self.num_sr_channels = input_channels if sr_head else 0
        self.detach_sr = detach_sr
        self.lr_divisor = tuple(
            lcm(d, factor) // factor
            for d, factor in zip(self.segmenter.divisor, self.scale, strict=True)
        )
        self._frozen: tuple[str, ...] = ()
        drop_aliases(self)
        initialize_as_nnunet(self)
        self.sr_network.start_as_interpolation()

    @property
    def decoder(self) -> nn.Module:
        """The segmenter's decoder, with the switch `deep_supervision`."""
        return self.segmenter.decoder

    @property
    def output_scales(self) -> list[list[float]]:
        """Sizes of the entries of `JointOutput.seg` relative to the HR grid, finest first."""
        return deep_supervision_scales(self.segmenter.strides[1:], (1,) * len(self.scale))

    def super_resolve(self, lr_image: torch.Tensor) -> torch.Tensor:
        """Return the float32 SR image (B, C, Z, Y, X) of `lr_image` (B, C, z, y, x).

        Raises:
            ValueError: if the shape does not fit the network.
        """
        check_input(lr_image, self.input_channels, self.lr_divisor)
        return self.sr_network(lr_image)

    def segment(self, sr_image: torch.Tensor) -> list[torch.Tensor]:
        """Return the logits of an image (B, C, Z, Y, X), as in `JointOutput.seg`."""
        return self.segmenter(sr_image)

    def forward(self, lr_image: torch.Tensor) -> JointOutput:
        """Return logits and SR image of `lr_image` (B, C, z, y, x) on the HR grid."""
        sr_image = self.super_resolve(lr_image)
        logits = self.segment(sr_image.detach() if self.detach_sr else sr_image)
        return JointOutput(logits, sr_image if self.num_sr_channels else None)

    @contextmanager
    def frozen(self, part: str) -> Iterator[None]:
        """Freeze "sr_network" or "segmenter" inside the context.

        Its parameters get no gradient and it stays in eval mode, even through `train()`; gradients
        pass through it to its input. Gradients left on its parameters are dropped, since an
        optimiser would still apply them. Afterwards it is as before, in the network's mode.

        Raises:
            ValueError: for another part.
        """
        if part not in PARTS:
            raise ValueError(f"unknown part '{part}' to freeze; known: {', '.join(PARTS)}.")
        module, before = getattr(self, part), self._frozen
        trained = [p for p in module.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
            parameter.grad = None
        self._frozen = (*before, part)
        self.train(self.training)
        try:
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)
            self._frozen = before
            self.train(self.training)

    def train(self, mode: bool = True) -> SerialSRSeg:
        """Set the mode of all parts but frozen ones, which stay in eval mode."""
        super().train(mode)
        for part in self._frozen:
            getattr(self, part).eval()
        return self

    def compute_conv_feature_map_size(self, lr_patch: Sequence[int]) -> int:
        """Return the elements of all convolution outputs for one LR patch.

        Raises:
            ValueError: if the patch has another number of axes than the network.
        """
        check_patch(lr_patch, len(self.scale))
        hr_patch = [n * factor for n, factor in zip(lr_patch, self.scale, strict=True)]
        sr_elements = self.sr_network.compute_conv_feature_map_size(lr_patch)
        return sr_elements + self.segmenter.compute_conv_feature_map_size(hr_patch)
