"""Seconds of our preprocessing and of nnU-Net's, on one raw dataset, in alternating runs.

    nnUNet_raw=... python benchmarks/preprocessing.py -d 4 -np 2 -runs 3

Two measurements: the whole `plan_and_preprocess -c 3d_fullres` from an empty folder, and its last
stage, `preprocess`, alone. Ours writes three arrays a case (HR, LR, mask), nnU-Net's two. Both run
as a user runs them, process start and imports included. CPU seconds (all processes together) are
measured too: under other load on the machine they tell more than seconds on the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from srseg import environment

TOOLS = ("nnU-Net", "srseg")
STAGES = ("plan_and_preprocess", "preprocess")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", type=int, required=True, help="dataset number in nnUNet_raw")
    parser.add_argument("-np", type=int, default=2, help="processes of both (2)")
    parser.add_argument("-runs", type=int, default=3, help="of each tool and stage (3)")
    parser.add_argument("-c", default="3d_fullres", help="configuration (3d_fullres)")
    parser.add_argument("-o", help="also write the figures to this JSON file")
    return parser.parse_args()


def _command(tool: str, stage: str, args: argparse.Namespace) -> list[str]:
    prefix = "nnUNetv2" if tool == "nnU-Net" else "srseg"
    command = [
        str(Path(sys.executable).parent / f"{prefix}_{stage}"),
        *("-d", str(args.d), "-c", args.c, "-np", str(args.np)),
    ]
    if stage == "plan_and_preprocess":
        command += ["-npfp", str(args.np)]
    return command


def _seconds(command: list[str], variables: dict[str, str]) -> dict[str, float]:
    """Return the command's seconds on the clock and of CPU, its workers' included."""
    start, cpu = time.perf_counter(), _cpu_of_children()
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return {"clock": time.perf_counter() - start, "cpu": _cpu_of_children() - cpu}


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _arrays(folder: Path) -> tuple[int, float]:
    """Return how many arrays a preprocessed folder holds, and their MiB."""
    files = list(folder.rglob("*.b2nd"))
    return len(files), sum(file.stat().st_size for file in files) / 2**20


def measure(args: argparse.Namespace, root: Path) -> dict[str, dict[str, list[dict]]]:
    """Return the seconds (clock, cpu) of every run by stage and tool."""
    seconds = {stage: {tool: [] for tool in TOOLS} for stage in STAGES}
    for run in range(args.runs):
        for tool in TOOLS if run % 2 == 0 else TOOLS[::-1]:  # neither is always the first
            preprocessed = root / tool
            shutil.rmtree(preprocessed, ignore_errors=True)
            preprocessed.mkdir()
            variables = {
                **os.environ,
                "nnUNet_preprocessed": str(preprocessed),
                "nnUNet_results": str(root),
            }
            for stage in STAGES:
                for done in preprocessed.glob(f"*/*_{args.c}"):  # the plans stay for stage two
                    shutil.rmtree(done)
                taken = _seconds(_command(tool, stage, args), variables)
                seconds[stage][tool].append(taken)
                words = ", ".join(f"{value:.2f} s {kind}" for kind, value in taken.items())
                print(f"run {run + 1}: {tool} {stage}: {words}", flush=True)
    return seconds


def main() -> None:
    """Measure, print and perhaps write the figures."""
    args = _arguments()
    environment.required_folder("nnUNet_raw")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        seconds = measure(args, root)
        sizes = {tool: _arrays(root / tool) for tool in TOOLS}
    print(f"\n{platform.machine()}, {environment.available_cores()} cores, {args.np} processes")
    for tool, (count, mebibytes) in sizes.items():
        print(f"{tool} wrote {count} arrays, {mebibytes:.1f} MiB")
    print(f"{'median of ' + str(args.runs):<28}{'nnU-Net s':>10}{'srseg s':>10}{'ratio':>8}")
    medians = {}
    for stage, taken in seconds.items():
        for kind in ("clock", "cpu"):
            name = f"{stage}, {kind}"
            theirs, ours = (statistics.median(t[kind] for t in taken[tool]) for tool in TOOLS)
            medians[name] = {"nnU-Net": theirs, "srseg": ours, "ratio": ours / theirs}
            print(f"{name:<28}{theirs:>10.2f}{ours:>10.2f}{ours / theirs:>8.2f}")
    if args.o:
        report = {"seconds": seconds, "medians": medians, "processes": args.np, "dataset": args.d}
        Path(args.o).write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
