"""PFSeg's network: one encoder, a whole decoder for each task, and guidance where there is some.

After Wang et al., "Patch-free 3D medical image segmentation driven by super-resolution technique
and self-supervised guidance" (MICCAI 2021), written anew from the description.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from srseg.networks.arguments import check_input
from srseg.networks.encoder import drop_aliases, initialize_as_nnunet
from srseg.networks.guidance import GUIDANCE_FRACTION, Guidance, GuidanceBranch, crop_size
from srseg.networks.joint_unet import JointUNet
from srseg.networks.output import JointOutput
from srseg.networks.paired_hr_stages import PairedHRStages
from srseg.networks.signature import takes_arguments_of


@takes_arguments_of(JointUNet)
class PFSegNet(JointUNet):
    """U-Net whose segmentation and SR decoders share nothing but the encoder.

    The decoders part at the bottleneck and exchange no features. Stages, kernels, strides and
    blocks of the trunk are the plans' (as published, the encoder is residual: `trunk`), and the
    step to the HR grid takes the plans' `scale`. Unlike the published network this one
    normalises on the LR grid only, its SR head is linear and adds to the interpolated input, and
    the decoders' blocks are nnU-Net's plain ones.

    Takes `JointUNet`'s arguments; `hr_width` and `hr_num_convs` are those of each decoder. With
    `sr_head` off only the segmentation decoder is built. `split` is "bottleneck".

    Set the attribute `super_resolves` to False where only the segmentation is wanted: the SR
    image is then None, and a branch that nothing else reads is not computed.

    Args:
        guidance: builds the branch that reads an HR crop. The network runs without a crop too.
        guidance_features: channels of that branch's blocks, finest first.

    Raises:
        ValueError: if the arguments contradict each other.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        sr_head: bool = True,
        split: str = "bottleneck",
        guidance: bool = False,
        guidance_features: Sequence[int] = (16, 32, 64, 64),
        **planned: Any,
    ) -> None:
        if split != "bottleneck":
            raise ValueError(f"PFSegNet got split '{split}'; its decoders part at the bottleneck.")
        split = split if sr_head else "hr_stage"
        super().__init__(input_channels, num_classes, sr_head=sr_head, split=split, **planned)
        if not sr_head:
            self.hr_stage = PairedHRStages(self.hr_stage, None)
        self.super_resolves = sr_head
        self.guidance_branch = None
        if guidance:
            self.guidance_branch = self._make_guidance_branch(guidance_features)
            for decoder in filter(None, (self.decoder, self.sr_decoder)):
                decoder.widen_bottleneck(self.guidance_branch.num_channels)
            drop_aliases(self)
            initialize_as_nnunet(self)  # once more, for the parts that are new
            self.hr_stage.start_as_interpolation()

    def _block_options(self) -> dict[str, Any]:
        names = ("conv_op", "conv_bias", "norm_op", "norm_op_kwargs", "dropout_op")
        names += ("dropout_op_kwargs", "nonlin", "nonlin_kwargs")
        return {name: getattr(self.encoder, name) for name in names}

    def _make_guidance_branch(self, features: Sequence[int]) -> GuidanceBranch:
        return GuidanceBranch(
            self.input_channels,
            features,
            cell=[d * s for d, s in zip(self.lr_divisor, self.scale, strict=True)],
            kernel_size=self.hr_stage.segmentation.kernel_size,
            block_options=self._block_options(),
        )

    def trunk(self, lr_image: torch.Tensor, guidance: Guidance | None = None) -> list[torch.Tensor]:
        """Return the segmentation decoder's features, the finest (LR resolution) first.

        The finest have the SR decoder's as further channels: all that the HR stage reads.

        Args:
            lr_image: (B, C, z, y, x), every axis a multiple of `lr_divisor`.
            guidance: a crop of the HR image.

        Raises:
            ValueError: if the shape does not fit the network, or the crop not the input.
        """
        check_input(lr_image, self.input_channels, self.lr_divisor)
        skips = self.encoder(self.input_clip(lr_image))
        if self.guidance_branch is not None:
            if guidance is not None:
                guidance = Guidance(self.input_clip(guidance.image), guidance.start)
            skips = [*skips[:-1], self.guidance_branch(guidance, skips[-1])]
        elif guidance is not None:
            raise ValueError(
                "the network got guidance, but was built without; set its argument guidance to "
                "true and train it."
            )
        needs_sr = self.super_resolves or self.hr_stage.segmentation_reads_sr
        sr_features = self.sr_decoder(skips) if needs_sr else []
        features = self.decoder(skips, self._gates(sr_features))
        return [torch.cat((features[0], *sr_features[:1]), 1), *features[1:]]

    def _gates(self, sr_features: Sequence[torch.Tensor]) -> list[torch.Tensor] | None:
        """Return what the segmentation decoder's features are multiplied by, finest first."""
        return None

    def forward(self, lr_image: torch.Tensor, guidance: Guidance | None = None) -> JointOutput:
        """Return logits and SR image on the HR grid.

        Args:
            lr_image: (B, C, z, y, x).
            guidance: a crop of the HR image, for a network that was built for it.

        Raises:
            ValueError: if the shape does not fit the network, or the crop not the input.
        """
        features = self.trunk(lr_image, guidance)
        logits, sr_image = self.hr_stage(features[0], lr_image)
        own = [features[0][:, : self.hr_stage.segmentation.in_channels], *features[1:]]
        return JointOutput(
            [logits, *self.decoder.deep_supervision_logits(own)],
            sr_image if self.super_resolves else None,
        )

    def compute_conv_feature_map_size(self, lr_patch: Sequence[int]) -> int:
        """Return the elements of all convolution outputs for one LR patch.

        Guidance counts with a crop of `GUIDANCE_FRACTION` of the patch along each axis.

        Raises:
            ValueError: if the patch has another number of axes than the network.
        """
        total = super().compute_conv_feature_map_size(lr_patch)
        if self.guidance_branch is not None:
            hr_patch = [n * s for n, s in zip(lr_patch, self.scale, strict=True)]
            crop = crop_size(hr_patch, GUIDANCE_FRACTION)
            total += self.guidance_branch.compute_conv_feature_map_size(crop)
        return total
