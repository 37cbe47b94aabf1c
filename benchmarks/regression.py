"""Fail where prediction has become slower, against nnU-Net's, than it was.

    python benchmarks/regression.py -record    # on a quiet machine, once, and after a gain
    python benchmarks/regression.py            # exit status 1 below 70 % of what was recorded

The measurement is `prediction.py synthetic` at a small size. What is compared are ratios, nnU-Net's
seconds over ours, on the clock and of CPU: they depend on the machine far less than seconds do, but
cores and bf16 count, so both machines are printed. Not part of the tests; it takes minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pairs
import prediction
import untrained

RECORD = Path(__file__).parent / "recorded_ratios.json"
LEAST_SHARE = 0.7  # of a recorded ratio
WORK = (
    "lr_size",
    "tile",
    "lr_tile",
    "base_features",
    "hr_width",
    "labels",
    "dtype",
    "np",
    "threads",
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-record", action="store_true", help="write the ratios instead")
    parser.add_argument("-file", type=Path, default=RECORD, help="of recorded ratios")
    parser.add_argument("-lr_size", type=int, default=48, help="LR voxels per axis (48)")
    parser.add_argument("-base_features", type=int, default=32, help="of both trunks (32)")
    parser.add_argument("-dtype", default="shipped", choices=("shipped", "fp32", "bf16"))
    parser.add_argument("-threads", type=int, default=2, help="OpenMP threads of both (2)")
    parser.add_argument("-rounds", type=int, default=3)
    fixed = {
        "tile": None,
        "lr_tile": None,
        "hr_width": 16,
        "labels": 2,
        "np": 1,
        "c": untrained.CONFIGURATION,
    }
    parser.set_defaults(**fixed)
    return parser.parse_args()


def ratios_of(taken: Mapping[str, Sequence[pairs.Usage]]) -> dict[str, float]:
    """Return the median ratios, nnU-Net's over ours, of seconds on the clock and of CPU."""
    theirs, ours = taken[pairs.THEIRS], taken[pairs.OURS]
    return {
        "clock": pairs.median_ratio([u.seconds for u in theirs], [u.seconds for u in ours]),
        "cpu": pairs.median_ratio([u.cpu_seconds for u in theirs], [u.cpu_seconds for u in ours]),
    }


def complaint(measured: Mapping[str, float], recorded: Mapping[str, float]) -> str | None:
    """Return one line that names each ratio below 70 % of the recorded one; None if none is."""
    fallen = [
        f"{name} {measured[name]:.2f} times nnU-Net's speed, recorded {recorded[name]:.2f} "
        f"({measured[name] / recorded[name]:.0%})"
        for name in recorded
        if measured[name] < LEAST_SHARE * recorded[name]
    ]
    return f"prediction has become slower: {'; '.join(fallen)}." if fallen else None


def load_record(file: Path, work: Mapping[str, object]) -> dict:
    """Return what was recorded for the same work.

    Raises:
        FileNotFoundError: if nothing is recorded yet.
        ValueError: if something else was measured then.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"no ratios are recorded in {file}: run regression.py -record on a quiet machine."
        )
    recorded = json.loads(file.read_text(encoding="utf-8"))
    if recorded["work"] != dict(work):
        raise ValueError(
            f"{file} is of other work: {recorded['work']}, asked for is {dict(work)}; "
            "use the same flags, or -record."
        )
    return recorded


def save_record(file: Path, content: Mapping[str, object], busiest: float) -> None:
    """Write a record, unless other processes disturbed the measurement.

    Raises:
        ValueError: if they took more than a tenth of the cores.
    """
    if busiest > pairs.QUIET:
        raise ValueError(
            f"nothing recorded: other processes took {busiest:.0%} of the cores, "
            f"at most {pairs.QUIET:.0%} are allowed."
        )
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _measure(options: argparse.Namespace) -> dict[str, list[pairs.Usage]]:
    with tempfile.TemporaryDirectory() as folder:
        plans = prediction.write_synthetic(Path(folder), options)
        return prediction.in_turn(Path(folder), plans, options.dtype, "regression", options)


def run(options: argparse.Namespace) -> int:
    """Measure, then compare or record; return the exit status."""
    work = {name: getattr(options, name) for name in WORK}
    recorded = None if options.record else load_record(options.file, work)
    machine = pairs.machine(options.threads)
    taken = _measure(options)
    ratios = ratios_of(taken)
    busiest = max(usage.others for side in taken.values() for usage in side)
    print(f"now: {ratios} (other work {busiest:.0%}), {machine}")
    if recorded is None:
        words = ["python", *sys.argv]
        content = {"ratios": ratios, "work": work, "machine": machine, "command": " ".join(words)}
        save_record(options.file, content, busiest)
        return 0
    print(f"recorded: {recorded['ratios']}, {recorded['machine']}")
    line = complaint(ratios, recorded["ratios"])
    if line is not None:
        print(f"error: {line}", file=sys.stderr)
    return int(line is not None)


def main() -> int:
    """Return the exit status; a mistake is one line."""
    try:
        return run(_arguments())
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
