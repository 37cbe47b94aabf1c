"""A joint network that registers too: one encoder, two decoders, LR images in.

After Fan et al., "Bi-level learning of task-specific decoders for joint registration and one-shot
medical image segmentation" (CVPR 2024), written anew from the description.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from srseg.networks.arguments import per_stage_and_axis, strides_per_stage
from srseg.networks.encoder import drop_aliases, initialize_as_nnunet, is_weightless, per_stage
from srseg.networks.joint_unet import JointUNet
from srseg.networks.registration.decoder import RegistrationDecoder
from srseg.networks.registration.warp import integrated, refined
from srseg.networks.signature import takes_arguments_of


@takes_arguments_of(JointUNet)
class OneShotNet(JointUNet):
    """`JointUNet` with a registration decoder on the features of two LR images.

    Alone, an image goes through as in `JointUNet`, so all of srseg predicts with it. A pair gives
    a displacement field on the HR grid, interpolated from the LR grid, where the network knows
    something. Unlike the published network the trunk is the plans', the encoder's blocks are
    nnU-Net's with instance normalisation, and it works on two grids.

    Takes `JointUNet`'s arguments.

    Args:
        integration_steps: squarings of the field as a velocity; 0, as published, for none.

    Raises:
        ValueError: if the arguments contradict each other.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        integration_steps: int = 0,
        **planned: Any,
    ) -> None:
        is_count = isinstance(integration_steps, int) and not isinstance(integration_steps, bool)
        if not is_count or not 0 <= integration_steps <= 10:
            raise ValueError(
                f"integration_steps is {integration_steps!r}; it must be a whole number from 0 "
                "(none) to 10."
            )
        super().__init__(input_channels, num_classes, **planned)
        self.integration_steps = integration_steps
        num_stages, ndim = planned["n_stages"], len(self.scale)
        names = ("conv_op", "conv_bias", "norm_op", "norm_op_kwargs", "dropout_op")
        names += ("dropout_op_kwargs", "nonlin", "nonlin_kwargs")
        self.registration_decoder = RegistrationDecoder(
            per_stage("features_per_stage", planned["features_per_stage"], num_stages),
            strides=strides_per_stage(planned["strides"], num_stages, ndim),
            kernel_sizes=per_stage_and_axis(
                "kernel_sizes", planned["kernel_sizes"], num_stages, ndim
            ),
            block_options={name: getattr(self.encoder, name) for name in names},
        )
        drop_aliases(self.registration_decoder)
        if not is_weightless(self):
            initialize_as_nnunet(self.registration_decoder)
            self.registration_decoder.start_as_identity()

    def displacement(
        self, moving: Sequence[torch.Tensor], fixed: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Return (B, D, Z, Y, X) in HR voxels on the fixed HR grid, for `warp` of the moving image.

        The reverse field is that of the swapped pair.

        Args:
            moving: `encode` of the moving LR images.
            fixed: `encode` of the fixed LR images.
        """
        field = integrated(self.registration_decoder(moving, fixed), self.integration_steps)
        return refined(field, self.scale)

    def compute_conv_feature_map_size(self, lr_patch: Sequence[int]) -> int:
        """Return the elements of all convolution outputs for one pair of LR patches.

        As training holds them: the encoder for either image, the registration decoder both ways,
        the segmentation once.

        Raises:
            ValueError: if the patch has another number of axes than the network.
        """
        total = super().compute_conv_feature_map_size(lr_patch)
        total += int(self.encoder.compute_conv_feature_map_size(lr_patch))
        return total + 2 * self.registration_decoder.compute_conv_feature_map_size(lr_patch)
