"""Tiles blended as LR features, with one HR stage over them, or as HR results: Dice, dB and time.

    python benchmarks/blending.py -m MODEL_FOLDER -i LR_FOLDER -labels LABELS -hr_images IMAGES

Both predict the same files with the same trained model, in turn and unmirrored; the scores are
those of `srseg_evaluate`. `-patch` makes tiles smaller than planned, so that cases need more.
Networks without a local HR stage can only do the latter.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import pairs

KINDS = ("LR features", "HR results")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", required=True, type=Path, help="model folder")
    parser.add_argument("-f", default="0", help="fold (0)")
    parser.add_argument("-i", required=True, type=Path, help="LR images")
    parser.add_argument("-labels", required=True, type=Path, help="HR label maps")
    parser.add_argument("-hr_images", required=True, type=Path, help="HR images")
    parser.add_argument("-patch", type=int, nargs="+", help="LR voxels of a tile, as planned")
    parser.add_argument("-threads", type=int, default=2, help="OpenMP threads (2)")
    parser.add_argument("-rounds", type=int, default=3)
    parser.add_argument("-child", nargs=2, help=argparse.SUPPRESS)  # kind, output folder
    return parser.parse_args()


def predict(options: argparse.Namespace) -> None:
    """Predict all files with one kind of blending."""
    from srseg.inference.predictor import Predictor

    kind, out = options.child
    predictor = Predictor.from_model_folder(
        options.m, [options.f], device="cpu", use_mirroring=False
    )
    forward = predictor._forward
    forward.blend_features = kind == KINDS[0]
    if options.patch:
        forward.patch_size = tuple(options.patch)
    predictor.predict_files(options.i, out, show_progress=False)


def once(kind: str, out: Path, options: argparse.Namespace) -> pairs.Usage:
    """Return the usage of a fresh process that predicts into `out`."""
    command = [sys.executable, __file__, *sys.argv[1:], "-child", kind, str(out)]
    return pairs.measure(command, pairs.variables(options.threads))


def scores(out: Path, options: argparse.Namespace) -> list[tuple[float, float]]:
    """Return the mean Dice and the PSNR in dB of every case."""
    command = [pairs.installed("srseg_evaluate"), "-gt", str(options.labels), "-pred", str(out)]
    command += ["-hr_images", str(options.hr_images), "-lr_images", str(options.i)]
    command.append("--resample_references")  # HR sizes need not be multiples of the scale
    subprocess.run(command, check=True, capture_output=True)
    of_labels, of_images = (
        {case["case"]: case for case in json.loads(file.read_text("utf-8"))["metric_per_case"]}
        for file in (out / "summary.json", out / "sr/summary_sr.json")
    )
    return [
        (
            statistics.fmean(label["Dice"] for label in of_labels[case]["metrics"].values()),
            of_images[case]["psnr_body_db"],
        )
        for case in sorted(of_labels)
    ]


def main() -> None:
    """Measure and print a markdown table."""
    options = _arguments()
    if options.child:
        predict(options)
        return
    tiles = f"tiles of {options.patch}" if options.patch else "planned tiles"
    print(f"{pairs.machine(options.threads)}; {options.m.name}, {tiles}\n")
    print("| blended | Dice | PSNR, dB | s | CPU s | peak MB | other work |\n" + "|---" * 7 + "|")
    with tempfile.TemporaryDirectory() as folder:
        outs = {kind: Path(folder) / kind.replace(" ", "_") for kind in KINDS}
        sides = {kind: lambda kind=kind: once(kind, outs[kind], options) for kind in KINDS}
        taken = pairs.alternate(sides, options.rounds, "blending")
        of_cases = {kind: scores(outs[kind], options) for kind in KINDS}
    for kind in KINDS:
        means = [statistics.fmean(values) for values in zip(*of_cases[kind], strict=True)]
        seconds, cpu_seconds, peak = (
            statistics.median(getattr(usage, name) for usage in taken[kind])
            for name in ("seconds", "cpu_seconds", "peak_bytes")
        )
        print(
            f"| {kind} | {means[0]:.4f} | {means[1]:.2f} | {seconds:.3g} | {cpu_seconds:.3g} "
            f"| {peak / 1e6:.0f} | {max(usage.others for usage in taken[kind]):.0%} |"
        )
    changes = [
        tuple(abs(a - b) for a, b in zip(*pair, strict=True))
        for pair in zip(*of_cases.values(), strict=True)
    ]
    largest = [max(values) for values in zip(*changes, strict=True)]
    print(f"\nlargest change of a case: Dice {largest[0]:.4f}, {largest[1]:.2f} dB")


if __name__ == "__main__":
    main()
