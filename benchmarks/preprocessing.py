"""Our preprocessing against nnU-Net's: time and memory on raw datasets, from files to arrays.

    nnUNet_raw=... python benchmarks/preprocessing.py -d 4 27 [-np 2]

Two measurements: the whole `plan_and_preprocess -c 3d_fullres` from an empty folder, and its last
stage, `preprocess`, alone. Ours writes three arrays a case (HR, LR, mask), nnU-Net's two. Both run
as a user runs them, process start and imports included.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import pairs

STAGES = {"plan_and_preprocess": "", "preprocess": "not slower, memory not higher"}  # targets
PREFIXES = {pairs.THEIRS: "nnUNetv2", pairs.OURS: "srseg"}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", type=int, nargs="+", required=True, help="dataset numbers")
    parser.add_argument("-c", default="3d_fullres", help="configuration (3d_fullres)")
    parser.add_argument("-np", type=int, default=2, help="processes of both (2)")
    parser.add_argument("-threads", type=int, default=2, help="OpenMP threads of both (2)")
    parser.add_argument("-rounds", type=int, default=3)
    return parser.parse_args()


def stages_once(
    side: str, dataset: int, preprocessed: Path, options: argparse.Namespace
) -> list[pairs.Usage]:
    """Return what each of `STAGES` takes one side, the first from an empty folder."""
    shutil.rmtree(preprocessed, ignore_errors=True)
    preprocessed.mkdir()
    environment = pairs.variables(
        options.threads,
        nnUNet_preprocessed=preprocessed,
        nnUNet_results=preprocessed.parent,
    )
    usages = []
    for stage in STAGES:
        for done in preprocessed.glob(f"*/*_{options.c}"):  # the plans stay for the second stage
            shutil.rmtree(done)
        command = [pairs.installed(f"{PREFIXES[side]}_{stage}"), "-d", str(dataset)]
        command += ["-c", options.c, "-np", str(options.np)]
        if stage == "plan_and_preprocess":
            command += ["-npfp", str(options.np), "--clean"]
        elif side == pairs.OURS:
            command.append("--clean")  # as nnU-Net does: a repeated measurement finds all done
        usages.append(pairs.measure(command, environment))
    return usages


def arrays(folder: Path) -> str:
    """Return how many arrays a preprocessed folder holds, and their size, in words."""
    files = list(folder.rglob("*.b2nd"))
    return f"{len(files)} arrays, {sum(file.stat().st_size for file in files) / 2**20:.1f} MiB"


def compare(dataset: int, root: Path, options: argparse.Namespace) -> None:
    """Measure one dataset and print its rows and what was written."""
    taken: dict[str, list[list[pairs.Usage]]] = {side: [] for side in PREFIXES}

    def once(side: str) -> pairs.Usage:
        taken[side].append(stages_once(side, dataset, root / side, options))
        return taken[side][-1][0] + taken[side][-1][1]

    sides = {side: lambda side=side: once(side) for side in PREFIXES}
    pairs.alternate(sides, options.rounds, f"dataset {dataset}, both stages,")
    for number, (stage, target) in enumerate(STAGES.items()):
        of_stage = {side: [usages[number] for usages in taken[side]] for side in PREFIXES}
        print(pairs.row(f"dataset {dataset}: {stage}", of_stage, target), flush=True)
    for side in PREFIXES:
        print(f"dataset {dataset}: {side} wrote {arrays(root / side)}", file=sys.stderr)


def main() -> None:
    """Measure and print a markdown table."""
    options = _arguments()
    print(f"{pairs.machine(options.threads)}; {options.np} processes\n")
    print(pairs.HEADER, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for dataset in options.d:
            compare(dataset, Path(folder), options)


if __name__ == "__main__":
    main()
