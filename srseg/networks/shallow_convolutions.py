"""A way around wrong results of bfloat16 convolutions over few slices on CPUs.

Torch 2.13's CPU library (oneDNN) reads memory that nobody wrote when it computes the gradient of a
3-D convolution's weight in bfloat16 and the input is shorter along its first axis than the kernel,
but longer than one voxel: 2 slices and a kernel of 3. The gradient is then whatever lay there,
finite or not; so is that of a transposed convolution. Of one slice it is the output of a
convolution with few channels that is wrong in this way, in training and in prediction. Kernels of
3 in the plane, float32 and 2-D are right.
"""

from __future__ import annotations

import torch
from torch import nn

from srseg.networks.precision import full_precision


def _gradient_concerned(image: torch.Tensor, kernel_size: tuple[int, ...]) -> bool:
    few = image.device.type == "cpu" and 1 < image.shape[2] < kernel_size[0]
    return few and torch.is_grad_enabled()


def _output_concerned(image: torch.Tensor, kernel_size: tuple[int, ...]) -> bool:
    return image.device.type == "cpu" and image.shape[2] == 1 < kernel_size[0]


class ShallowSafeConv3d(nn.Conv3d):
    """`nn.Conv3d` that computes in float32 where the CPU's bfloat16 would be wrong."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 (torch's name)
        """Return the convolution of `input` (B, C, Z, Y, X)."""
        size = self.kernel_size
        if not (_gradient_concerned(input, size) or _output_concerned(input, size)):
            return super().forward(input)
        with full_precision("cpu"):
            return super().forward(input.float())


class ShallowSafeConvTranspose3d(nn.ConvTranspose3d):
    """`nn.ConvTranspose3d`, safe in the same way."""

    def forward(
        self,
        input: torch.Tensor,  # noqa: A002 (torch's name)
        output_size: list[int] | None = None,
    ) -> torch.Tensor:
        """Return the transposed convolution of `input` (B, C, Z, Y, X)."""
        if not _gradient_concerned(input, self.kernel_size):
            return super().forward(input, output_size)
        with full_precision("cpu"):
            return super().forward(input.float(), output_size)


_SAFE: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv3d: ShallowSafeConv3d,
    nn.ConvTranspose3d: ShallowSafeConvTranspose3d,
}


def make_shallow_safe(network: nn.Module) -> nn.Module:
    """Return `network` with its 3-D convolutions made safe; weights, names and hooks stay."""
    for module in network.modules():
        safe = _SAFE.get(type(module))
        if safe is not None and module.kernel_size[0] > 2:
            module.__class__ = safe
    return network
