"""The flags that the planning commands share, nnU-Net's spellings kept."""

from __future__ import annotations

import argparse
import math


def positive_int(text: str) -> int:
    """Return a whole number >= 1 from a flag's text."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number >= 1")
    return value


def positive_float(text: str) -> float:
    """Return a finite number above 0 from a flag's text."""
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def dataset_flags() -> argparse.ArgumentParser:
    """Return a parent parser with the datasets and what is printed."""
    parser = argparse.ArgumentParser(add_help=False)
    add = parser.add_argument
    add("-d", nargs="+", required=True, metavar="DATASET", help="dataset ids or names, e.g. 4 27")
    add("--verbose", action="store_true", help="say more; show tracebacks")
    add("--no_pbar", action="store_true", help="no progress bars")
    return parser


def known_datasets(args: argparse.Namespace) -> list[str]:
    """Return the names of the datasets of `-d`, before anything slow is imported.

    Raises:
        ValueError: if a folder variable is not set or a dataset is unknown.
    """
    from srseg import environment
    from srseg.plans.datasets import dataset_name

    raw_root = environment.required_folder("nnUNet_raw")
    environment.required_folder("nnUNet_preprocessed")
    return [dataset_name(dataset, raw_root) for dataset in args.d]


def plans_name_flag(parser: argparse.ArgumentParser) -> None:
    """Add the name of the plans, in the spellings of nnU-Net's planning and other commands."""
    parser.add_argument(
        "-p",
        "-plans_name",
        "-overwrite_plans_name",
        dest="plans_name",
        default="srsegPlans",
        metavar="NAME",
        help="name of the plans (srsegPlans)",
    )


def fingerprint_flags(processes_flag: str) -> argparse.ArgumentParser:
    """Return a parent parser for fingerprint extraction.

    Args:
        processes_flag: `-np`, or `-npfp` beside another `-np`.
    """
    parser = argparse.ArgumentParser(add_help=False)
    add = parser.add_argument
    add(
        processes_flag,
        dest="npfp",
        type=positive_int,
        metavar="N",
        help="processes that read cases (default: the cores there are; fewer if memory is short)",
    )
    add(
        "--verify_dataset_integrity",
        action="store_true",
        help="check every case again even where the fingerprint is there",
    )
    return parser


def plan_flags() -> argparse.ArgumentParser:
    """Return a parent parser for planning."""
    parser = argparse.ArgumentParser(add_help=False)
    add = parser.add_argument
    add(
        "-gpu_memory_target",
        type=positive_float,
        default=8.0,
        metavar="GB",
        help="what training may take (8)",
    )
    add(
        "-overwrite_target_spacing",
        nargs=3,
        type=positive_float,
        metavar=("Z", "Y", "X"),
        help="spacing of the HR grid in mm",
    )
    plans_name_flag(parser)
    grids = parser.add_mutually_exclusive_group()
    grids.add_argument(
        "-scale",
        nargs=3,
        type=positive_int,
        metavar=("Z", "Y", "X"),
        help="how many times finer the output is than the input, instead of the rule's; 1 1 1 "
        "trains without refinement",
    )
    grids.add_argument(
        "-lr_spacing",
        nargs=3,
        type=positive_float,
        metavar=("Z", "Y", "X"),
        help="spacing in mm of the scans the model is for; scale and HR grid follow",
    )
    return parser


def preprocess_flags() -> argparse.ArgumentParser:
    """Return a parent parser for preprocessing."""
    parser = argparse.ArgumentParser(add_help=False)
    add = parser.add_argument
    add("-c", nargs="+", metavar="CONFIGURATION", help="configurations (default: all planned)")
    add(
        "-np",
        nargs="+",
        type=positive_int,
        metavar="N",
        help="processes, one number or one per configuration (default: the cores there are; fewer "
        "if memory is short)",
    )
    return parser
