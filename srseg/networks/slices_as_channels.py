"""Gemini-GAN's 2.5-D layout: a 2-D network that reads the slices of a volume as channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from srseg.networks.arguments import (
    check_at_least_one,
    check_input,
    check_patch,
    odd_hr_kernel,
    scale_of_axes,
)
from srseg.networks.decoder import Decoder
from srseg.networks.input_clip import InputClip
from srseg.networks.interpolation import Interpolation
from srseg.networks.joint_unet import JointUNet
from srseg.networks.output import JointOutput
from srseg.networks.signature import takes_arguments_of

_IN_PLANE = {
    nn.Conv3d: nn.Conv2d,
    nn.InstanceNorm3d: nn.InstanceNorm2d,
    nn.BatchNorm3d: nn.BatchNorm2d,
    nn.Dropout3d: nn.Dropout2d,
}


@takes_arguments_of(JointUNet)
class SlicesAsChannels(nn.Module):
    """`JointUNet` over the two in-plane axes, whose channels are the slices of one volume.

    Takes the arguments of a 3-D `JointUNet`, as planned, and leaves out what they say about the
    first axis. The volume is interpolated to its HR slices first, so that with any `scale` a
    channel of the input, of the logits and of the SR image is one HR slice. `split="bottleneck"`
    gives the two decoders of the published network (Gemini-GAN, see docs/methods.md).

    What follows from the layout, as published: weights belong to a slice's position, so nothing
    learnt at one depth helps at another; every volume, patch and tile has to have `num_slices`
    slices; and all HR slices of a task come out of `hr_width` (with `split`, else half of it)
    channels. The planned `hr_width` is meant for one voxel's neighbourhood in 3-D: give more,
    the published network has 64 for 100 slices.

    Args:
        input_channels: channels C of the LR and of the SR image.
        num_classes: channels K of the logits.
        num_slices: length of every LR volume's first axis.
        conv_op: `nn.Conv3d`; the network takes the matching 2-D layers.
        kernel_sizes: as in `JointUNet`, in 3-D.
        strides: as in `JointUNet`, in 3-D.
        scale: three whole numbers; `scale[0] * num_slices` slices come out.
        norm_op: as in `JointUNet`, in 3-D.
        dropout_op: as in `JointUNet`, in 3-D.
        hr_kernel_size: as in `JointUNet`, in 3-D.
        input_clip: as in `JointUNet`.
        **options: of `JointUNet`.

    Raises:
        ValueError: if the arguments contradict each other.
    """

    hr_halo = None  # every HR slice depends on all LR slices

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        num_slices: int,
        conv_op: type[nn.Module],
        kernel_sizes: int | Sequence[int] | Sequence[Sequence[int]],
        strides: int | Sequence[int] | Sequence[Sequence[int]],
        scale: Sequence[int],
        norm_op: type[nn.Module] | None = None,
        dropout_op: type[nn.Module] | None = None,
        hr_kernel_size: Sequence[int] | None = None,
        input_clip: Sequence[Sequence[float] | None] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if conv_op is not nn.Conv3d:
            raise ValueError(
                f"SlicesAsChannels got conv_op {conv_op!r}; it takes the arguments of a 3-D "
                "network, so Conv3d, and volumes."
            )
        check_at_least_one(num_slices=num_slices)
        self.scale = scale_of_axes(scale, 3)
        if hr_kernel_size is not None:
            hr_kernel_size = odd_hr_kernel(hr_kernel_size, (), self.scale)[1:]
        InputClip(input_channels, input_clip)  # its errors count channels, not slices
        rows = [None] * input_channels if input_clip is None else input_clip
        hr_slices = self.scale[0] * num_slices
        self.through_plane = Interpolation((self.scale[0], 1, 1))
        self.network = JointUNet(
            input_channels * hr_slices,
            num_classes * hr_slices,
            conv_op=_IN_PLANE[conv_op],
            kernel_sizes=_in_plane("kernel_sizes", kernel_sizes),
            strides=_in_plane("strides", strides),
            scale=self.scale[1:],
            norm_op=_IN_PLANE.get(norm_op, norm_op),
            dropout_op=_IN_PLANE.get(dropout_op, dropout_op),
            hr_kernel_size=hr_kernel_size,
            input_clip=[row for row in rows for _ in range(hr_slices)],
            **options,
        )
        self.num_slices = num_slices
        self.input_channels, self.num_classes = input_channels, num_classes
        self.num_sr_channels = input_channels if self.network.num_sr_channels else 0
        self.lr_divisor = (num_slices, *self.network.lr_divisor)

    @property
    def decoder(self) -> Decoder:
        """The 2-D network's; its `deep_supervision` switches the coarser logits."""
        return self.network.decoder

    @property
    def output_scales(self) -> list[list[float]]:
        """Sizes of `JointOutput.seg` relative to the HR grid; coarser logits keep all slices."""
        return [[1.0, *in_plane] for in_plane in self.network.output_scales]

    def forward(self, lr_image: torch.Tensor) -> JointOutput:
        """Return logits and SR image of `lr_image` (B, C, num_slices, y, x) on the HR grid.

        Raises:
            ValueError: if the volume has another number of slices, or does not fit otherwise.
        """
        if lr_image.ndim == 5:  # else the next line says what is wrong
            self._check_slices(lr_image.shape[2])
        check_input(lr_image, self.input_channels, self.lr_divisor)
        seg, sr_image = self.network(self.through_plane(lr_image).flatten(1, 2))
        seg = [logits.unflatten(1, (self.num_classes, -1)) for logits in seg]
        if sr_image is not None:
            sr_image = sr_image.unflatten(1, (self.input_channels, -1))
        return JointOutput(seg, sr_image)

    def compute_conv_feature_map_size(self, lr_patch: Sequence[int]) -> int:
        """Return the elements of all convolution outputs for one LR patch of `num_slices` slices.

        Raises:
            ValueError: if the patch has another number of axes or of slices.
        """
        check_patch(lr_patch, 3)
        self._check_slices(lr_patch[0])
        return self.network.compute_conv_feature_map_size(lr_patch[1:])

    def _check_slices(self, found: int) -> None:
        if found != self.num_slices:
            raise ValueError(
                f"the network got {found} slices; it reads slices as channels and was built for "
                f"exactly {self.num_slices} (num_slices)."
            )


def _in_plane(name: str, values: Any) -> Any:
    """Return kernels or strides of a 3-D network without their first axis."""
    if isinstance(values, int):
        return values
    rows = [row if isinstance(row, int) else list(row) for row in values]
    if any(isinstance(row, list) and len(row) != 3 for row in rows):
        raise ValueError(f"{name} must have 3 entries per stage, one per axis: {rows}.")
    return [row if isinstance(row, int) else row[1:] for row in rows]
