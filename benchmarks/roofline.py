"""What bounds a training step and a prediction pass: arithmetic or memory, and how close they come.

    python benchmarks/roofline.py -d 4 [-c 3d_fullres] [-device cuda] [-dtypes fp32 bf16]

Counted, for the default network of a planned and preprocessed dataset: floating-point operations of
convolutions and matrix products, and the bytes of the inputs, weights and outputs of each of these,
of each normalisation and of each activation, at the dtype they have. That is the least traffic
without fusion and with nothing left in a cache; copies, casts, loss and optimiser are left out.
Measured: the machine's peak, a large matrix product in each dtype and a large copy, and the time of
each part. The bound is the larger of operations / peak and bytes / peak (Williams et al.,
"Roofline", CACM 2009); the share is that bound's time over the measured one. Parts that fit a cache
can exceed 100 % of the memory bound.

"trunk" and "HR stage" are run alone, forward and, for training, backward. "step" is the trainer's
own, with loss and optimiser, on a batch of its loader; "pass" is the network's forward pass on one
planned LR patch. On a busy machine `-threads 1 -clock cpu` gives steadier figures.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pairs
import torch
import trainers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "linear"}
LAYERS = ("convolution", "batch_norm", "group_norm", "layer_norm", "relu")
WARM_UP = 2
_PEAK_REPEATS = 7
_GIGA = 1e9
Clock = Callable[[], float]


@dataclass(frozen=True)
class Work:
    """Floating-point operations and bytes moved."""

    flops: float
    moved: float


@dataclass(frozen=True)
class Peak:
    """Floating-point operations and bytes a second that the machine reaches."""

    flops: float
    moved: float


@dataclass(frozen=True)
class Bound:
    """What limits a piece of work, and the least seconds it can take."""

    name: str
    seconds: float


def bound_of(work: Work, peak: Peak) -> Bound:
    """Return the roofline's bound: the slower of arithmetic and memory."""
    arithmetic, memory = work.flops / peak.flops, work.moved / peak.moved
    return Bound("arithmetic", arithmetic) if arithmetic >= memory else Bound("memory", memory)


def is_counted(operator: str) -> bool:
    """Return whether the bytes of an operator, such as "convolution_backward", are counted."""
    return operator in PRODUCTS or any(layer in operator for layer in LAYERS)


class Traffic(TorchDispatchMode):
    """Sums the bytes of the tensors that go into and come out of the counted operators."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if is_counted(func.overloadpacket.__name__):
            leaves = tree_leaves((args, kwargs, result))
            self.moved += sum(t.nbytes for t in leaves if isinstance(t, torch.Tensor))
        return result


def count(run: Callable[[], object]) -> Work:
    """Return the work of `run`, which must not be in inference mode: that hides the operators."""
    with FlopCounterMode(display=False) as counter, Traffic() as traffic:
        run()
    return Work(counter.get_total_flops(), traffic.moved)


def seconds_of(run: Callable[[], object], clock: Clock, repeats: int) -> list[float]:
    """Return the seconds of each run after two warm-ups."""
    taken = []
    for _ in range(WARM_UP + repeats):
        begin = clock()
        run()
        taken.append(clock() - begin)
    return taken[WARM_UP:]


def clock_of(device: torch.device, name: str) -> Clock:
    """Return the clock "wall" or "cpu"; on a GPU it waits for what was asked of it."""
    if device.type != "cuda":
        return time.process_time if name == "cpu" else time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def peak_of(device: torch.device, dtype: torch.dtype, size: int, clock: Clock) -> Peak:
    """Return what a product of two `size`^2 matrices and a copy of 64 `size`^2 bytes reach."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    source = torch.ones(16 * size * size, device=device)
    target = torch.empty_like(source)
    product = min(seconds_of(lambda: left @ right, clock, _PEAK_REPEATS))
    copy = min(seconds_of(lambda: target.copy_(source), clock, _PEAK_REPEATS))
    return Peak(2 * size**3 / product, 2 * source.nbytes / copy)


def parts_of(network: torch.nn.Module, lr_image: torch.Tensor, training: bool) -> dict[str, Any]:
    """Return functions that run trunk and HR stage alone on one batch.

    Raises:
        ValueError: if the network does not consist of these parts.
    """
    if not hasattr(network, "trunk") or not hasattr(network, "hr_stage"):
        raise ValueError(f"{type(network).__name__} has no trunk and HR stage to look at.")
    with torch.no_grad():
        features = network.trunk(lr_image)[0]
    if not training:
        parts = {
            "trunk": lambda: network.trunk(lr_image),
            "HR stage": lambda: network.hr_stage(features, lr_image),
            "pass": lambda: network(lr_image),
        }
        return {name: torch.no_grad()(part) for name, part in parts.items()}
    features.requires_grad_()

    def trunk() -> None:
        finest = network.trunk(lr_image)[0]
        finest.backward(torch.ones_like(finest))

    def hr_stage() -> None:
        outputs = [output for output in network.hr_stage(features, lr_image) if output is not None]
        torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])

    return {"trunk": trunk, "HR stage": hr_stage}


def row(name: str, dtype: str, work: Work, peak: Peak, seconds: float) -> str:
    """Return a row of the table."""
    bound = bound_of(work, peak)
    return (
        f"| {name} | {dtype} | {work.flops / _GIGA:.3g} | {work.moved / _GIGA:.3g} "
        f"| {work.flops / work.moved:.1f} | {1000 * seconds:.1f} | {bound.name} "
        f"| {1000 * bound.seconds:.1f} | **{bound.seconds / seconds:.0%}** |"
    )


def rows_of(options: argparse.Namespace, dtype: str, peak: Peak) -> list[str]:
    """Return the rows of one dtype, training and prediction."""
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as results:
        os.environ["nnUNet_results"] = results  # noqa: SIM112 (nnU-Net's name)
        trainer = trainers.our_trainer(
            options.d,
            options.c,
            Path(results),
            batch_size=options.batch_size,
            precision=dtype,
            device=device.type,
        )
        batch = next(trainer.get_dataloaders()[0])
    torch.set_num_threads(options.threads)  # loaders change it
    network = getattr(trainer.network, "_orig_mod", trainer.network)
    autocast = torch.autocast(device.type, DTYPES[dtype], enabled=dtype != "fp32")
    lr_image = batch["data"].to(device)
    clock, rows = clock_of(device, options.clock), []
    for training in (True, False):
        network.train(training)
        with autocast:
            parts = parts_of(network, lr_image if training else lr_image[:1], training)
        parts = {name: autocast(part) for name, part in parts.items()}
        if training:
            parts["step"] = lambda: trainer.train_step(batch)
        for name, part in parts.items():
            work = count(part)
            seconds = statistics.median(seconds_of(part, clock, options.repeats))
            label = f"{'training' if training else 'prediction'}: {name}"
            rows.append(row(label, dtype, work, peak, seconds))
    return rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", required=True, help="dataset number or name, preprocessed")
    parser.add_argument("-c", default="3d_fullres", help="configuration (3d_fullres)")
    parser.add_argument("-device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("-dtypes", nargs="+", choices=DTYPES, default=["fp32", "bf16"])
    parser.add_argument("-batch_size", type=int, default=2, help="of the training step (2)")
    parser.add_argument("-repeats", type=int, default=5, help="measured runs of each part (5)")
    parser.add_argument("-size", type=int, help="of the peak's matrices (2048; cuda 8192)")
    parser.add_argument("-threads", type=int, default=2, help="of the CPU (2)")
    parser.add_argument("-clock", default="wall", choices=("wall", "cpu"), help="(wall)")
    return parser.parse_args()


def main() -> None:
    """Measure and print a markdown table."""
    options = _arguments()
    torch.set_num_threads(options.threads)
    # The peak in the mode that convolutions are in.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    device = torch.device(options.device)
    size = options.size or (8192 if device.type == "cuda" else 2048)
    print(pairs.machine(options.threads), flush=True)
    if device.type == "cuda":
        print(torch.cuda.get_device_name(device), flush=True)
    clock = clock_of(device, options.clock)
    peaks = {name: peak_of(device, DTYPES[name], size, clock) for name in options.dtypes}
    for name, peak in peaks.items():
        print(f"peak {name}: {peak.flops / _GIGA:.0f} GFLOP/s; copy {peak.moved / _GIGA:.1f} GB/s")
    print("\n| part | dtype | GFLOP | GB | FLOP/byte | ms | bound | its ms | share |")
    print("|---" * 9 + "|")
    for name, peak in peaks.items():
        print("\n".join(rows_of(options, name, peak)), flush=True)


if __name__ == "__main__":
    main()
