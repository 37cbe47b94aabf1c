"""Fingerprint and plans: our two commands against nnU-Net's two, on one raw dataset.

    nnUNet_raw=... python benchmarks/planning.py -d 4 -np 2

Each run begins with an empty folder and is the two commands as a user types them, process start
and imports included: `extract_fingerprint`, then `plan` (nnU-Net: `plan_experiment`). Times are
added, the higher peak of memory counts. Both read with `-np` processes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import pairs

TARGET = "3 x, memory 1/3"
COMMANDS = {
    pairs.THEIRS: ("nnUNetv2_extract_fingerprint", "nnUNetv2_plan_experiment"),
    pairs.OURS: ("srseg_extract_fingerprint", "srseg_plan"),
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", type=int, nargs="+", required=True, help="dataset numbers")
    parser.add_argument("-np", type=int, default=2, help="processes of both (2)")
    parser.add_argument("-threads", type=int, default=2, help="OpenMP threads of both (2)")
    parser.add_argument("-rounds", type=int, default=3)
    return parser.parse_args()


def plan_once(side: str, dataset: int, options: argparse.Namespace) -> list[pairs.Usage]:
    """Return what both commands of one side take, from an empty folder."""
    extract, plan = (pairs.installed(command) for command in COMMANDS[side])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        environment = pairs.variables(
            options.threads, nnUNet_preprocessed=root / "pre", nnUNet_results=root / "results"
        )
        for name in ("pre", "results"):
            (root / name).mkdir()
        of_dataset = ("-d", str(dataset))
        return [
            pairs.measure([extract, *of_dataset, "-np", str(options.np), "--clean"], environment),
            pairs.measure([plan, *of_dataset], environment),
        ]


def main() -> None:
    """Measure and print a markdown table."""
    options = _arguments()
    print(pairs.machine(options.threads) + f"; {options.np} processes\n")
    print(pairs.HEADER)
    for dataset in options.d:
        parts: dict[str, list[list[pairs.Usage]]] = {side: [] for side in COMMANDS}

        def both(side: str, dataset: int = dataset, parts: dict = parts) -> pairs.Usage:
            parts[side].append(plan_once(side, dataset, options))
            return parts[side][-1][0] + parts[side][-1][1]

        sides = {side: lambda side=side, both=both: both(side) for side in COMMANDS}
        name = f"dataset {dataset}"
        taken = pairs.alternate(sides, options.rounds, name)
        print(pairs.row(f"{name}: fingerprint and plans", taken, TARGET))
        for number, stage in enumerate(("fingerprint", "plans")):
            of_stage = {side: [usages[number] for usages in parts[side]] for side in COMMANDS}
            print(pairs.row(f"{name}: {stage} alone", of_stage, ""))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
