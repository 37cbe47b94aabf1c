"""Prediction from reading to writing: `srseg_predict` against `nnUNetv2_predict`, same HR grid.

    python benchmarks/prediction.py synthetic [-lr_size 128] [-tile 128] [-base_features 32]
    python benchmarks/prediction.py dataset -d 4 [-cases 10]
    python benchmarks/prediction.py start -d 4

`synthetic`: one HR volume of twice `-lr_size` per axis; nnU-Net reads it and goes over it in tiles
of `-tile`, srseg reads the LR volume of `-lr_size` in one pass, or in tiles of `-lr_tile`, with
the same trunk, and writes the SR image too. `dataset`: cases of a planned dataset with the networks
of its plans, the LR files by `srseg_simulate`. `start`: `--help`, and one small case. Both tools
run as commands, process start included, without mirroring, at step 0.5, on the CPU, with drawn
weights (`untrained.py`).

`-dtypes`: "shipped" is fp32 for nnU-Net and, on CPUs that have it, bf16 for srseg; "fp32" and
"bf16" set both (checked at the first convolution).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pairs
import untrained

TARGETS = {"synthetic": "10 x, memory 1/4", "dataset": "5 x", "start": "2 x"}
HELP_TARGET = "0.3 s"
OUR_DATA, STOCK_DATA = "lr", "hr"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=("synthetic", "dataset", "start"))
    parser.add_argument("-d", help="dataset number or name, planned, in nnUNet_raw too")
    parser.add_argument("-c", default=untrained.CONFIGURATION, help="its configuration")
    parser.add_argument("-cases", type=int, default=10, help="of the dataset (10)")
    parser.add_argument("-lr_size", type=int, default=128, help="LR voxels per axis (128)")
    parser.add_argument("-tile", type=int, help="HR voxels of nnU-Net's tiles (as -lr_size)")
    parser.add_argument("-lr_tile", type=int, help="LR voxels of srseg's tiles (one pass)")
    parser.add_argument("-base_features", type=int, default=32, help="of both trunks (32)")
    parser.add_argument("-hr_width", type=int, default=16, help="head width of srseg (16)")
    parser.add_argument("-labels", type=int, default=2, help="foreground labels (2)")
    parser.add_argument("-dtypes", nargs="+", default=["shipped"], help="shipped, fp32, bf16")
    parser.add_argument("-np", type=int, default=1, help="that read and that write, of both (1)")
    parser.add_argument("-threads", type=int, default=2, help="OpenMP threads of both (2)")
    parser.add_argument("-rounds", type=int, default=3)
    return parser.parse_args()


def child(side: str, dtype: str, arguments: list[str]) -> None:
    """Run one side's prediction command in this process, in a precision it does not ship with."""
    import torch

    seen: list[torch.dtype] = []

    def note(module: torch.nn.Module, _: object, output: object) -> None:
        if not seen and isinstance(module, torch.nn.Conv3d | torch.nn.Conv2d):
            seen.append(output.dtype)

    torch.nn.modules.module.register_module_forward_hook(note)
    wants_bf16 = dtype == "bf16"
    if side == pairs.OURS:
        from srseg import environment
        from srseg.cli.predict import main as predict

        environment.cpu_has_bf16 = lambda: wants_bf16
        status = predict(arguments)
    else:
        from nnunetv2.inference.predict_from_raw_data import predict_entry_point

        sys.argv = ["nnUNetv2_predict", *arguments]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=wants_bf16):
            status = predict_entry_point()
    wanted = torch.bfloat16 if wants_bf16 else torch.float32
    if status or seen != [wanted]:
        raise SystemExit(f"{side} ended with {status}; {seen} was computed, {wanted} wanted.")


def predict_once(
    root: Path, plans: dict, dtype: str, side: str, options: argparse.Namespace
) -> pairs.Usage:
    """Return the usage of one prediction of everything in `root`'s input folder of this side.

    Raises:
        RuntimeError: if there is not one segmentation per input.
    """
    ours = side == pairs.OURS
    inputs = root / (OUR_DATA if ours else STOCK_DATA)
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-i", str(inputs), "-o", folder, "-d", plans["dataset_name"], "-f", "0"]
        arguments += ["-p", plans["plans_name"], "-c", options.c, "-device", "cpu"]
        arguments += ["-step_size", "0.5", "-npp", str(options.np), "-nps", str(options.np)]
        arguments += ["--disable_tta", "--disable_progress_bar"]
        if dtype == "shipped":
            command = [pairs.installed("srseg_predict" if ours else "nnUNetv2_predict")]
        else:
            command = [sys.executable, __file__, "child", side, dtype]
        environment = pairs.variables(options.threads, nnUNet_results=root / "results")
        usage = pairs.measure([*command, *arguments], environment)
        written, wanted = len(list(Path(folder).glob("*.nii.gz"))), len(list(inputs.iterdir()))
    if written != wanted:
        raise RuntimeError(f"{side} wrote {written} segmentations of {wanted}:\n{usage.output}")
    return usage


def in_turn(
    root: Path, plans: dict[str, dict], dtype: str, work: str, options: argparse.Namespace
) -> dict[str, list[pairs.Usage]]:
    """Return the usages of both sides in one precision; `plans` are by side."""
    sides = {
        side: lambda side=side: predict_once(root, plans[side], dtype, side, options)
        for side in plans
    }
    return pairs.alternate(sides, options.rounds, f"{work}, {dtype}")


def compare(root: Path, plans: dict[str, dict], work: str, options: argparse.Namespace) -> None:
    """Measure every dtype of `options` and print its rows; `plans` are by side."""
    for dtype in options.dtypes:
        taken = in_turn(root, plans, dtype, work, options)
        print(pairs.row(f"{work}, {dtype}", taken, TARGETS[options.work]), flush=True)


def write_synthetic(root: Path, options: argparse.Namespace) -> dict[str, dict]:
    """Write one volume of any size and both models; return their plans by side."""
    tile = options.tile or options.lr_size
    our_plans, stock_plans, dataset_json = untrained.synthetic_plans(
        options.lr_size,
        tile,
        base_features=options.base_features,
        num_labels=options.labels,
        hr_width=options.hr_width,
        lr_tile=options.lr_tile,
    )
    untrained.write_our_model(root / "results", our_plans, dataset_json, untrained.CONFIGURATION)
    untrained.write_stock_model(
        root / "results", stock_plans, dataset_json, untrained.CONFIGURATION
    )
    untrained.write_synthetic_case(root / OUR_DATA, root / STOCK_DATA, options.lr_size)
    return {pairs.THEIRS: stock_plans, pairs.OURS: our_plans}


def synthetic(root: Path, options: argparse.Namespace) -> None:
    """Predict one volume of any size."""
    plans = write_synthetic(root, options)
    configuration = plans[pairs.OURS]["configurations"][options.c]
    kwargs = configuration["architecture"]["arch_kwargs"]
    print(
        f"trunk {kwargs['features_per_stage']}, HR head {kwargs['hr_width']}, "
        f"{options.labels + 1} classes, {options.np} reading and {options.np} writing\n"
    )
    print(pairs.HEADER)
    tile = options.tile or options.lr_size
    compare(root, plans, f"HR {2 * options.lr_size}^3, nnU-Net's tiles {tile}^3", options)


def dataset(root: Path, options: argparse.Namespace, num_cases: int) -> None:
    """Predict the first cases of a dataset's training images with the networks of its plans."""
    from srseg import environment
    from srseg.plans.datasets import dataset_name

    if options.d is None:
        raise SystemExit(f"error: {options.work} needs -d.")
    raw = environment.required_folder("nnUNet_raw")
    name = dataset_name(options.d, raw)
    folder = environment.required_folder("nnUNet_preprocessed") / name
    our_plans, stock_plans, dataset_json = (
        json.loads((folder / f"{file}.json").read_text(encoding="utf-8"))
        for file in ("srsegPlans", "srsegOraclePlans", "dataset")
    )
    untrained.write_our_model(root / "results", our_plans, dataset_json, options.c)
    untrained.write_stock_model(root / "results", stock_plans, dataset_json, options.c)
    (root / STOCK_DATA).mkdir()
    channels, files = (
        len(dataset_json["channel_names"]),
        sorted((raw / name / "imagesTr").iterdir()),
    )
    for file in files[: num_cases * channels]:
        (root / STOCK_DATA / file.name).symlink_to(file)
    simulate = [pairs.installed("srseg_simulate"), "-d", name, "-c", options.c, "--no_pbar"]
    simulate += ["-i", str(root / STOCK_DATA), "-o", str(root / OUR_DATA)]
    subprocess.run(simulate, check=True, capture_output=True)
    plans = {pairs.THEIRS: stock_plans, pairs.OURS: our_plans}
    compare(root, plans, f"{num_cases} case(s) of {name}", options)


def start(root: Path, options: argparse.Namespace) -> None:
    """Ask both commands for help, then predict one case."""
    environment = pairs.variables(options.threads, nnUNet_results=root)
    commands = {pairs.THEIRS: "nnUNetv2_predict", pairs.OURS: "srseg_predict"}
    taken = pairs.alternate(
        {
            side: lambda command=command: pairs.measure(
                [pairs.installed(command), "--help"], environment
            )
            for side, command in commands.items()
        },
        max(5, options.rounds),
        "--help",
    )
    print(pairs.row("`--help`", taken, HELP_TARGET), flush=True)
    dataset(root, options, 1)


def main() -> None:
    """Measure and print a markdown table."""
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], sys.argv[3], sys.argv[4:])
        return
    options = _arguments()
    print(pairs.machine(options.threads) + "\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if options.work == "synthetic":
            options.c = untrained.CONFIGURATION
            synthetic(root, options)
            return
        print(pairs.HEADER)
        if options.work == "dataset":
            dataset(root, options, options.cases)
        else:
            start(root, options)


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":
    # nnU-Net's spawned workers import the main module again, and its own command's imports all this
    import nnunetv2.inference.predict_from_raw_data  # noqa: F401
