"""`srseg_plan_and_preprocess -d 4`: fingerprint, plans and preprocessed data of a raw dataset."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from srseg.cli.plan import plan_dataset
from srseg.cli.planning_flags import (
    dataset_flags,
    fingerprint_flags,
    known_datasets,
    plan_flags,
    preprocess_flags,
)
from srseg.cli.preprocess import preprocess_dataset
from srseg.cli.run import quick_imports, run_command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; single dash takes a value, double dash is a switch (nnU-Net's dialect)."""
    parser = argparse.ArgumentParser(
        prog="srseg_plan_and_preprocess",
        description="Extract the fingerprint of raw datasets, plan and preprocess them.",
        parents=[
            dataset_flags(),
            fingerprint_flags("-npfp"),
            plan_flags(),
            preprocess_flags(),
        ],
    )
    add = parser.add_argument
    add(
        "--clean",
        action="store_true",
        help="make the fingerprint and all preprocessed cases anew; needed when the dataset "
        "changed",
    )
    add("--no_pp", action="store_true", help="only fingerprint and plans, no preprocessing")
    return parser


def _run_all(args: argparse.Namespace) -> None:
    names = known_datasets(args)  # all, before the first one starts

    with quick_imports():
        from srseg import environment
        from srseg.planning.fingerprint import extract_fingerprint
        from srseg.planning.raw_dataset import find_raw_dataset
        from srseg.plans.names import check_names

    preprocessed = environment.required_folder("nnUNet_preprocessed")
    for name in names:
        find_raw_dataset(name)
        check_names(args.plans_name, args.c, preprocessed / name)
    for name in names:  # all, before planning imports torch and workers have to be spawned
        extract_fingerprint(
            name,
            num_processes=args.npfp,
            verify=args.verify_dataset_integrity,
            clean=args.clean,
            show_progress=not args.no_pbar,
        )
    for name in names:
        plan_dataset(name, args)
        if not args.no_pp:
            preprocess_dataset(name, args.plans_name, args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_command(_run_all, build_parser().parse_args(argv))
