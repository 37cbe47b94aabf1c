"""`srseg_extract_fingerprint -d 4`: read every case once and write what planning needs of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from srseg.cli.planning_flags import dataset_flags, fingerprint_flags, known_datasets
from srseg.cli.run import quick_imports, run_command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; single dash takes a value, double dash is a switch (nnU-Net's dialect)."""
    parser = argparse.ArgumentParser(
        prog="srseg_extract_fingerprint",
        description="Read every training case once, check it, and write dataset_fingerprint.json "
        "to nnUNet_preprocessed.",
        parents=[dataset_flags(), fingerprint_flags("-np")],
    )
    parser.add_argument("--clean", action="store_true", help="read the cases again")
    return parser


def _extract(args: argparse.Namespace) -> None:
    names = known_datasets(args)

    with quick_imports():
        from srseg.planning.fingerprint import extract_fingerprint

    for name in names:
        extract_fingerprint(
            name,
            num_processes=args.npfp,
            verify=args.verify_dataset_integrity,
            clean=args.clean,
            show_progress=not args.no_pbar,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_command(_extract, build_parser().parse_args(argv))
