"""Augmented training samples a second: our loader against nnU-Net's, at the same HR patch.

    python benchmarks/loader_pairs.py -d 4 -c 3d_fullres [-workers 0 2] [-batches 100]

Both read the same preprocessed folder and augment as they do by default: nnU-Net makes an image
and a label patch with deep-supervision targets, srseg a triplet (LR, HR, label) whose LR image is
degraded from the augmented HR patch. With 0 workers everything happens in one process on one
thread; with more, that many processes work ahead on both sides. The CPU time is that of all
processes. Each measurement is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import pairs
import trainers

TARGET = "1.5 x"
WARM_UP = 20  # batches: caches, and what workers made ahead before the clock runs


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", required=True, help="dataset number or name")
    parser.add_argument("-c", default="3d_fullres", help="configuration (3d_fullres)")
    parser.add_argument("-batch_size", type=int, default=2, help="of both (2)")
    parser.add_argument("-workers", type=int, nargs="+", default=[0, 2], help="processes (0 2)")
    parser.add_argument("-batches", type=int, default=100, help="measured, of each process (100)")
    parser.add_argument("-rounds", type=int, default=3)
    parser.add_argument("-one", nargs=2, help=argparse.SUPPRESS)  # side, workers
    return parser.parse_args()


def measure_loader(options: argparse.Namespace, scratch: Path) -> dict:
    """Return seconds on the clock and of CPU per sample of one side's training loader."""
    import torch

    side, workers = options.one[0], int(options.one[1])
    make = {
        pairs.OURS: lambda **common: trainers.our_trainer(scratch=scratch, **common),
        pairs.THEIRS: trainers.stock_trainer,
    }[side]
    trainer = make(
        dataset=options.d,
        configuration=options.c,
        batch_size=options.batch_size,
        num_workers=workers,
    )
    torch.set_num_threads(1)
    loader, validation_loader = trainer.get_dataloaders()
    batch: dict = {}
    for _ in range(WARM_UP):
        batch = next(loader)
    begin, cpu_begin = time.perf_counter(), pairs.session_cpu_seconds()
    for _ in range(options.batches):
        next(loader)
    seconds = time.perf_counter() - begin
    cpu_seconds = pairs.session_cpu_seconds() - cpu_begin
    for stock_loader in (loader, validation_loader):
        if hasattr(stock_loader, "_finish"):  # else its processes complain at the end
            stock_loader._finish()
    samples = options.batches * options.batch_size
    return {
        "seconds": seconds / samples,
        "cpu_seconds": cpu_seconds / samples,
        "hr_patch": list(batch["target"][0].shape[2:]),
        "batch": len(batch["data"]),
    }


def in_a_process(options: argparse.Namespace, side: str, workers: int) -> pairs.Usage:
    """Return the usage of a fresh process; its results folder is a temporary one."""
    command = [sys.executable, __file__, "-d", options.d, "-c", options.c, "-one", side]
    command += [str(workers), "-batch_size", str(options.batch_size)]
    with tempfile.TemporaryDirectory() as results:
        environment = pairs.variables(1, nnUNet_results=results)
        return pairs.measure([*command, "-batches", str(options.batches)], environment)


def main() -> None:
    """Measure and print a markdown table."""
    options = _arguments()
    if options.one:
        scratch = Path(os.environ["nnUNet_results"])  # noqa: SIM112 (nnU-Net's name)
        print(json.dumps(measure_loader(options, scratch)), flush=True)
        return
    print(pairs.machine(1) + "\n", flush=True)
    rows = [pairs.HEADER]
    for workers in options.workers:
        taken = pairs.alternate(
            {
                side: lambda side=side, workers=workers: in_a_process(options, side, workers)
                for side in (pairs.THEIRS, pairs.OURS)
            },
            options.rounds,
            f"{workers} workers",
        )
        theirs, ours = (taken[side][0].result() for side in (pairs.THEIRS, pairs.OURS))
        if theirs["hr_patch"] != ours["hr_patch"] or theirs["batch"] != ours["batch"]:
            raise ValueError(f"nnU-Net's batches are {theirs}, ours {ours}: not the same work.")
        patch = "x".join(map(str, ours["hr_patch"]))
        rows.append(
            pairs.row(
                f"a sample of {patch}, {workers} workers",
                taken,
                TARGET,
                seconds=lambda usage: usage.result()["seconds"],
                cpu_seconds=lambda usage: usage.result()["cpu_seconds"],
            )
        )
    print("\n".join(rows))


if __name__ == "__main__":
    main()
