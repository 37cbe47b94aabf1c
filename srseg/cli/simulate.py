"""srseg_simulate -i HR -o LR: LR files by the planned degradation."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from srseg.cli.run import quick_imports, run_command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; single dash takes a value, double dash is a switch (nnU-Net's dialect)."""
    parser = argparse.ArgumentParser(
        prog="srseg_simulate",
        description="Write what HR images look like after the planned degradation: LR images of "
        "the same names, on the grid that is SCALE times coarser.",
    )
    add = parser.add_argument
    add("-i", required=True, metavar="HR_FOLDER", help="folder of <case>_0000 files")
    add("-o", required=True, metavar="LR_FOLDER", help="output folder, made if needed")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-d", metavar="DATASET", help="id or name of a planned dataset")
    source.add_argument("-m", metavar="MODEL_FOLDER", help="model folder, instead of -d and -p")
    add("-p", "-plans_name", dest="p", metavar="PLANS", help="plans of the dataset (srsegPlans)")
    add("-c", metavar="CONFIGURATION", help="3d_fullres, or the one the model was trained on")
    add("-labels", metavar="FOLDER", help="also write these label maps, padded as predictions are")
    add("-labels_out", metavar="FOLDER", help="where to (LR_FOLDER/labels_hr)")
    add("-np", type=int, metavar="N", help="processes (the cores there are)")
    add("--no_pbar", "--disable_progress_bar", dest="no_pbar", action="store_true")
    add("--verbose", action="store_true", help="say more; show tracebacks")
    return parser


def _simulate(args: argparse.Namespace) -> int:
    import logging
    from pathlib import Path

    with quick_imports():
        from srseg import environment
        from srseg.preprocessing.simulate import LABELS_FOLDER, Simulation, simulate_folder

    if args.labels_out and not args.labels:
        raise ValueError("-labels_out was given without -labels.")
    if args.m and args.p:
        raise ValueError("-p chooses plans of a dataset (-d); a model folder (-m) has its own.")
    if args.np is not None and args.np < 1:
        raise ValueError(f"-np must be at least 1, got {args.np}.")
    plans_manager, configuration, dataset_json = _plans_of(args)
    output = Path(args.o)
    labels = Path(args.labels) if args.labels else None
    labels_output = Path(args.labels_out) if args.labels_out else output / LABELS_FOLDER
    simulation = Simulation(
        plans_manager=plans_manager,
        configuration_manager=plans_manager.get_configuration(configuration),
        dataset_json=dataset_json,
        output_folder=output,
        labels_folder=labels,
        labels_output_folder=labels_output if labels else None,
    )
    count = simulate_folder(
        Path(args.i),
        simulation,
        num_processes=args.np or environment.available_cores(),
        show_progress=not args.no_pbar,
    )
    logging.getLogger(__name__).info("%d LR images in %s", count, output)
    return 0


def _plans_of(args: argparse.Namespace) -> tuple:
    """Return plans manager, configuration name and dataset.json of -d or -m."""
    from pathlib import Path

    from batchgenerators.utilities.file_and_folder_operations import load_json

    from srseg import environment
    from srseg.plans.datasets import dataset_name
    from srseg.plans.managers import load_plans

    if args.m:
        folder, plans_name = Path(args.m), "plans"
        parts = folder.resolve().name.split("__")
        configuration = args.c or (parts[2] if len(parts) == 3 else None)
        if configuration is None:
            raise ValueError(
                f"{folder} is not named METHOD__PLANS__CONFIGURATION; say the configuration by -c."
            )
    else:
        preprocessed = environment.required_folder("nnUNet_preprocessed")
        folder = preprocessed / dataset_name(args.d, preprocessed)
        plans_name, configuration = args.p or "srsegPlans", args.c or "3d_fullres"
    dataset_file = folder / "dataset.json"
    if not dataset_file.is_file():
        raise FileNotFoundError(f"{folder} has no dataset.json, so it holds no plans or model.")
    return load_plans(folder / f"{plans_name}.json"), configuration, load_json(str(dataset_file))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_command(_simulate, build_parser().parse_args(argv))
