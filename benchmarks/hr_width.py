"""Time of the HR stage against the trunk, by its width, precision and memory layout.

Forward and backward, without optimiser and loss, for a network as planned for Dataset004
(LR patch 20x28x20, three stages of 32 to 128 features, scale (2, 2, 2)):

    python benchmarks/hr_width.py -threads 1 -clock cpu

On a machine with other load, one thread and the CPU clock give steady figures.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from srseg.networks.build import build_network

PATCH, SCALE, BATCH = (20, 28, 20), (2, 2, 2), 2
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last_3d": torch.channels_last_3d}


def make_network(hr_width: int) -> torch.nn.Module:
    """Return JointUNet with nnU-Net's topology for this patch."""
    arch_kwargs = {
        "n_stages": 3,
        "features_per_stage": [32, 64, 128],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * 3,
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        "n_conv_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
        "scale": list(SCALE),
        "hr_width": hr_width,
    }
    architecture = {
        "network_class_name": "srseg.networks.joint_unet.JointUNet",
        "arch_kwargs": arch_kwargs,
        "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
    }
    return build_network(architecture, 1, 3)


def median_ms(step: Callable[[], torch.Tensor], repeats: int, clock: str) -> float:
    """Return the median milliseconds of `step` and its backward pass, after two warm-ups."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    times = []
    for i in range(repeats + 2):
        start = now()
        step().backward()
        if i >= 2:
            times.append(1000 * (now() - start))
    return statistics.median(times)


def main() -> None:
    """Print one table row per precision, layout and width."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-threads", type=int, default=2)
    parser.add_argument("-clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("-repeats", type=int, default=7)
    parser.add_argument("-widths", type=int, nargs="+", default=[8, 16, 24, 32])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {arguments.threads} threads, batch {BATCH}, patch {PATCH}")
    print("| width | precision | layout | trunk ms | HR stage ms | HR / trunk | map elements |")
    print("|---|---|---|---|---|---|---|")
    for precision, dtype in PRECISIONS.items():
        for layout, memory_format in LAYOUTS.items():
            lr_image = torch.randn(BATCH, 1, *PATCH).to(memory_format=memory_format)
            for width in arguments.widths:
                network = make_network(width).to(memory_format=memory_format)
                with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):

                    def trunk(network=network, lr_image=lr_image) -> torch.Tensor:
                        return network.trunk(lr_image)[0].float().square().mean()

                    features = network.trunk(lr_image)[0].detach().requires_grad_()

                    def stage(network=network, features=features, lr_image=lr_image):
                        logits, sr_image = network.hr_stage(features, lr_image)
                        return logits.square().mean() + sr_image.square().mean()

                    trunk_ms = median_ms(trunk, arguments.repeats, arguments.clock)
                    stage_ms = median_ms(stage, arguments.repeats, arguments.clock)
                print(
                    f"| {width} | {precision} | {layout} | {trunk_ms:.0f} | {stage_ms:.0f} "
                    f"| {stage_ms / trunk_ms:.2f} "
                    f"| {network.compute_conv_feature_map_size(PATCH):.2e} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
