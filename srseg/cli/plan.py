"""`srseg_plan -d 4`: from the fingerprint to srsegPlans.json."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from srseg.cli.planning_flags import dataset_flags, known_datasets, plan_flags
from srseg.cli.run import quick_imports, run_command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; single dash takes a value, double dash is a switch (nnU-Net's dialect)."""
    return argparse.ArgumentParser(
        prog="srseg_plan",
        description="Choose scale, patch, network and degradation from the fingerprint and write "
        "them to srsegPlans.json in nnUNet_preprocessed.",
        parents=[dataset_flags(), plan_flags()],
    )


def _plan(args: argparse.Namespace) -> None:
    for name in known_datasets(args):
        plan_dataset(name, args)


def plan_dataset(name: str, args: argparse.Namespace) -> None:
    """Plan one dataset by the flags of `plan_flags` and say what came out."""
    with quick_imports():
        from srseg.planning.plan import plan, summary

    plans = plan(
        name,
        plans_name=args.plans_name,
        gpu_memory_gb=args.gpu_memory_target,
        hr_spacing=args.overwrite_target_spacing,
        scale=args.scale,
        lr_spacing=args.lr_spacing,
    )
    print("\n".join(summary(plans)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_command(_plan, build_parser().parse_args(argv))
