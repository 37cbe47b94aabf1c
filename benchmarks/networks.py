"""Step time and peak memory of every method's network, against the default, in one table.

    python benchmarks/networks.py -d 4 -c 3d_fullres [-methods PFSeg DDANet ...] [-rounds 3]

Each measurement is a process of its own: one training step (network, losses, backward, optimiser)
on one real batch of size 1, repeated. A method and the default take turns, so that a busy machine
slows both; the ratio is the median over rounds. Needs a planned and preprocessed dataset.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DEFAULT = "SRSegTrainer"
WARM_UP = 2


def measure(dataset: str, configuration: str, method: str, steps: int) -> dict:
    """Return seconds per step, peak memory and size of one method's training step."""
    import torch

    from srseg.training.run import TrainingRequest, build_trainer

    request = TrainingRequest(
        dataset=dataset, configuration=configuration, fold=0, method=method, device="cpu",
        batch_size=1, num_workers=0, num_epochs=1, disable_checkpointing=True,
    )  # fmt: skip
    trainer = build_trainer(request, torch.device("cpu"))
    trainer.on_train_start()
    trainer.network.train()
    batch = next(trainer.dataloader_train)
    seconds = []
    for _ in range(WARM_UP + steps):
        started = time.perf_counter()
        trainer.train_step(batch)
        seconds.append(time.perf_counter() - started)
    return {
        "seconds": statistics.median(seconds[WARM_UP:]),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "lr_patch": [int(n) for n in trainer.configuration_manager.patch_size],
    }


def in_a_process(options: argparse.Namespace, method: str) -> dict:
    """Return `measure` of a fresh process; its results folder is a temporary one."""
    command = [sys.executable, __file__, "-d", options.d, "-c", options.c]
    command += ["-steps", str(options.steps), "-one", method]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise RuntimeError(f"{method}: {finished.stderr.strip().splitlines()[-1]}")
    return json.loads(finished.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measure and print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-d", required=True, help="dataset")
    parser.add_argument("-c", default="3d_fullres", help="configuration")
    parser.add_argument("-methods", nargs="+", help="which; all that ship without these")
    parser.add_argument("-rounds", type=int, default=3)
    parser.add_argument("-steps", type=int, default=5, help="measured steps of each process")
    parser.add_argument("-one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        import os

        with tempfile.TemporaryDirectory() as results:
            os.environ["nnUNet_results"] = results  # noqa: SIM112 (nnU-Net's name)
            print(json.dumps(measure(options.d, options.c, options.one, options.steps)))
        return
    from srseg.training.method import known_methods

    methods = options.methods or [name for name in known_methods() if name != DEFAULT]
    print("| method | LR patch | parameters, M | step, ms | times the default | peak memory, MB |")
    print("|---|---|---|---|---|---|")
    for method in methods:
        try:
            pairs = [
                (in_a_process(options, DEFAULT), in_a_process(options, method))
                for _ in range(options.rounds)
            ]
        except RuntimeError as error:
            print(f"| {method} | {error} | | | | |", flush=True)
            continue
        ratio = statistics.median(own["seconds"] / default["seconds"] for default, own in pairs)
        own = pairs[-1][1]
        milliseconds = 1000 * statistics.median(result["seconds"] for _, result in pairs)
        peak = statistics.median(result["peak_mb"] for _, result in pairs)
        patch = "x".join(map(str, own["lr_patch"]))
        print(
            f"| {Path(method).stem} | {patch} | {own['parameters'] / 1e6:.2f} | {milliseconds:.0f} "
            f"| {ratio:.2f} | {peak:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
