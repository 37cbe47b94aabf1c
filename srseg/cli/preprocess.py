"""`srseg_preprocess -d 4`: LR/HR/mask triplets for training, as planned."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from srseg.cli.planning_flags import (
    dataset_flags,
    known_datasets,
    plans_name_flag,
    preprocess_flags,
)
from srseg.cli.run import quick_imports, run_command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; single dash takes a value, double dash is a switch (nnU-Net's dialect)."""
    parser = argparse.ArgumentParser(
        prog="srseg_preprocess",
        description="Write LR image, HR image and mask of every training case to "
        "nnUNet_preprocessed. A run that was stopped goes on with the missing cases.",
        parents=[dataset_flags(), preprocess_flags()],
    )
    plans_name_flag(parser)
    parser.add_argument("--clean", action="store_true", help="make all cases anew")
    return parser


def _preprocess(args: argparse.Namespace) -> None:
    for name in known_datasets(args):
        preprocess_dataset(name, args.plans_name, args)


def preprocess_dataset(name: str, plans_name: str, args: argparse.Namespace) -> None:
    """Preprocess one dataset by the flags of `preprocess_flags`."""
    with quick_imports():
        from srseg.planning.preprocessing import preprocess

    preprocess(
        name,
        plans_name,
        configurations=args.c,
        num_processes=args.np,
        clean=args.clean,
        show_progress=not args.no_pbar,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_command(_preprocess, build_parser().parse_args(argv))
