"""One training step of the default method against stock nnU-Net's, at equal HR patch and batch.

    python benchmarks/training_step.py -d 4 -c 3d_fullres [-hr_width 8 16 32] [-batch_size 2]

A step is network, loss, backward pass and optimiser, on a batch of each side's own loader. Stock is
`nnUNetTrainer` with the network, loss (Dice + cross-entropy, deep supervision) and optimiser it
would have on the HR grid. bf16 is autocast around network and loss on both sides; stock as shipped
trains in fp32 on a CPU. Each measurement is a process of its own. Needs a planned and preprocessed
dataset; memory is the whole process's, its imports included.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pairs
import trainers

WARM_UP = 2
TARGETS = {("fp32", "fp32"): "4 x", ("bf16", "bf16"): "4 x", ("fp32", "bf16"): "7 x"}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", required=True, help="dataset number or name")
    parser.add_argument("-c", default="3d_fullres", help="configuration (3d_fullres)")
    parser.add_argument("-batch_size", type=int, default=2, help="of both (2)")
    parser.add_argument("-hr_width", type=int, nargs="+", help="head widths (the planned one)")
    parser.add_argument(
        "-dtypes",
        nargs="+",
        default=["fp32", "bf16", "fp32/bf16"],
        help="of both, or STOCK/OURS (fp32 bf16 fp32/bf16)",
    )
    parser.add_argument("-rounds", type=int, default=3)
    parser.add_argument("-steps", type=int, default=5, help="measured steps of each process (5)")
    parser.add_argument("-threads", type=int, default=2, help="of both (2)")
    parser.add_argument("-one", nargs=3, help=argparse.SUPPRESS)  # side, dtype, head width
    return parser.parse_args()


def in_bf16(trainer: Any) -> None:
    """Let a stock trainer do on the CPU what it does on a GPU: network and loss in autocast."""
    import torch

    autocast = torch.autocast("cpu", dtype=torch.bfloat16)
    trainer.network.forward = autocast(trainer.network.forward)
    trainer.loss.forward = autocast(trainer.loss.forward)


def measure_steps(options: argparse.Namespace, scratch: Path) -> dict:
    """Return the median seconds (clock, CPU) of one side's training step, and what it was."""
    import torch

    torch.set_num_threads(options.threads)
    side, dtype, width = options.one
    if side == pairs.OURS:
        trainer = trainers.our_trainer(
            options.d,
            options.c,
            scratch,
            batch_size=options.batch_size,
            precision=dtype,
            hr_width=None if width == "planned" else int(width),
        )
        patch = list(trainer.configuration_manager.hr_patch_size)
    else:
        trainer = trainers.stock_trainer(options.d, options.c, batch_size=options.batch_size)
        patch = [int(n) for n in trainer.configuration_manager.patch_size]
        if dtype == "bf16":
            in_bf16(trainer)
    batch = next(trainer.get_dataloaders()[0])
    trainer.network.train()
    torch.set_num_threads(options.threads)  # loaders change it
    seconds, cpu_seconds = [], []
    for _ in range(WARM_UP + options.steps):
        begin, cpu_begin = time.perf_counter(), time.process_time()
        trainer.train_step(batch)
        seconds.append(time.perf_counter() - begin)
        cpu_seconds.append(time.process_time() - cpu_begin)
    architecture = trainer.configuration_manager.configuration["architecture"]["arch_kwargs"]
    return {
        "seconds": statistics.median(seconds[WARM_UP:]),
        "cpu_seconds": statistics.median(cpu_seconds[WARM_UP:]),
        "hr_patch": patch,
        "batch": len(batch["data"]),
        "trunk_width": architecture["features_per_stage"][0],
        "hr_width": architecture.get("hr_width"),
    }


def in_a_process(options: argparse.Namespace, side: str, dtype: str, width: str) -> pairs.Usage:
    """Return the usage of a fresh process; its results folder is a temporary one."""
    command = [sys.executable, __file__, "-d", options.d, "-c", options.c, "-one", side, dtype]
    command += [width, "-batch_size", str(options.batch_size), "-steps", str(options.steps)]
    with tempfile.TemporaryDirectory() as results:
        environment = pairs.variables(options.threads, nnUNet_results=results)
        return pairs.measure([*command, "-threads", str(options.threads)], environment)


def check_equal(theirs: dict, ours: dict) -> None:
    """Refuse a comparison of different work.

    Raises:
        ValueError: if HR patch, batch or trunk width differ.
    """
    for name in ("hr_patch", "batch", "trunk_width"):
        if theirs[name] != ours[name]:
            raise ValueError(f"{name} is {theirs[name]} for nnU-Net and {ours[name]} for srseg.")


def main() -> None:
    """Measure and print a markdown table."""
    options = _arguments()
    if options.one:
        scratch = Path(os.environ["nnUNet_results"])  # noqa: SIM112 (nnU-Net's name)
        print(json.dumps(measure_steps(options, scratch)))
        return
    wanted = [tuple(text.split("/")) if "/" in text else (text, text) for text in options.dtypes]
    widths = [str(width) for width in options.hr_width or ["planned"]]
    stock_sides = {(pairs.THEIRS, theirs, "planned") for theirs, _ in wanted}
    our_sides = {(pairs.OURS, ours, width) for _, ours in wanted for width in widths}
    keys = sorted(stock_sides | our_sides, key=lambda key: (key[1], key[2], key[0]))
    print(pairs.machine(options.threads) + "\n", flush=True)
    taken = pairs.alternate(
        {" ".join(key): lambda key=key: in_a_process(options, *key) for key in keys},
        options.rounds,
    )
    first = [usages[0].result() for usages in taken.values()]
    for result in first[1:]:
        check_equal(first[0], result)
    patch = "x".join(map(str, first[0]["hr_patch"]))
    print(f"HR patch {patch}, batch {first[0]['batch']}, trunk width {first[0]['trunk_width']}\n")
    print(pairs.HEADER)
    for width in widths:
        for theirs, ours in wanted:
            pair = {
                pairs.THEIRS: taken[" ".join((pairs.THEIRS, theirs, "planned"))],
                pairs.OURS: taken[" ".join((pairs.OURS, ours, width))],
            }
            head = pair[pairs.OURS][0].result()["hr_width"]
            print(
                pairs.row(
                    f"training step, {theirs} against {ours}, HR head {head}",
                    pair,
                    TARGETS.get((theirs, ours), ""),
                    seconds=lambda usage: usage.result()["seconds"],
                    cpu_seconds=lambda usage: usage.result()["cpu_seconds"],
                )
            )


if __name__ == "__main__":
    main()
