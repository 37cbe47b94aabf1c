"""srseg_compare -d 4 -f 0: every trained method and the interpolations in one table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from srseg.cli.run import run_command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; single dash takes a value, double dash is a switch (nnU-Net's dialect)."""
    parser = argparse.ArgumentParser(
        prog="srseg_compare",
        description="Predict a fold's validation cases (or test files) with every trained method, "
        "evaluate them on one HR grid beside interpolation, and write compare.csv, compare.md and "
        "compare.html: means with 95 % bootstrap intervals, paired tests against a reference, the "
        "fraction of the oracle gap closed, time, memory and FLOPs. Run again, it goes on where "
        "it was.",
    )
    what = parser.add_argument_group("what is compared")
    what.add_argument("-d", metavar="DATASET", help="dataset id or name")
    what.add_argument("-f", metavar="FOLD", help="trained fold, a number, or all with -i (0)")
    what.add_argument("-c", metavar="CONFIGURATION", help="of the plans (3d_fullres)")
    what.add_argument("-p", "-plans_name", dest="p", metavar="PLANS", help="plans (srsegPlans)")
    what.add_argument(
        "-models",
        nargs="+",
        metavar="NAME",
        help="methods, and interpolate_cubic, _linear, _nearest, _bspline (all there are)",
    )
    what.add_argument(
        "-chk", default="checkpoint_final.pth", help="checkpoint file (checkpoint_final.pth)"
    )
    what.add_argument("-i", metavar="LR_FOLDER", help="test images instead of the fold's cases")
    what.add_argument("-gt", metavar="LABELS", help="with -i: folder of true HR label maps")
    what.add_argument("-hr_images", metavar="IMAGES", help="with -i: folder of true HR images")
    what.add_argument(
        "-results",
        nargs="+",
        metavar="FOLDER",
        help="compare.csv files, or folders of them, to merge instead of predicting",
    )
    _add_statistics_flags(parser.add_argument_group("statistics"))
    _add_running_flags(parser.add_argument_group("how it runs"))
    _add_training_flags(parser.add_argument_group("training"))
    return parser


def _add_statistics_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-reference", metavar="NAME", help="method the others are tested against (SRSegTrainer)"
    )
    group.add_argument(
        "-groups",
        metavar="FILE",
        help="JSON or CSV of case and group, such as the patient; groups are resampled and tested",
    )


def _add_running_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-o", metavar="OUT", help="output folder (one beside the models)")
    group.add_argument("-device", default="auto", help="auto, cuda, cpu or mps (auto)")
    group.add_argument("-np", type=int, metavar="N", help="processes (the cores there are)")
    group.add_argument("--disable_tta", action="store_true", help="no test-time flips")
    group.add_argument("--verbose", action="store_true", help="say more; show tracebacks")


def _add_training_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--train", action="store_true", help="first train those of -models that are not trained"
    )
    group.add_argument("-num_epochs", type=int, help="with --train: epochs of each")
    group.add_argument(
        "-time_budget", type=float, metavar="MINUTES", help="with --train: training time of each"
    )
    group.add_argument("-iterations_per_epoch", type=int, help="with --train, as in srseg_train")
    group.add_argument("-num_workers", type=int, help="with --train, as in srseg_train")


def _compare(args: argparse.Namespace) -> int:
    from pathlib import Path

    from srseg import environment
    from srseg.evaluation.compare.csv_file import read_results
    from srseg.evaluation.compare.markdown import markdown_text
    from srseg.evaluation.compare.request import CompareRequest
    from srseg.evaluation.compare.run import run_comparison
    from srseg.evaluation.compare.write import write_comparison

    _check_flags(args)
    if args.results is not None:
        comparison = read_results(
            args.results,
            dataset=args.d,
            fold=args.f,
            plans=args.p,
            configuration=args.c,
            models=args.models,
            groups=args.groups,
        )
        summary, files = write_comparison(comparison, Path(args.o), args.reference)
    else:
        paths = {"lr_images": args.i, "labels": args.gt, "hr_images": args.hr_images}
        paths |= {"output": args.o, "groups": args.groups}
        request = CompareRequest(
            dataset=args.d,
            fold=args.f or "0",
            configuration=args.c or "3d_fullres",
            plans=args.p or "srsegPlans",
            models=args.models,
            reference=args.reference,
            checkpoint_name=args.chk,
            device=args.device,
            num_processes=args.np or environment.available_cores(),
            use_mirroring=not args.disable_tta,
            budget=_budget(args),
            **{name: None if path is None else Path(path) for name, path in paths.items()},
        )
        summary, files = run_comparison(request)
    print(markdown_text(summary))
    print("written: " + ", ".join(str(file) for file in files))
    return 0


def _check_flags(args: argparse.Namespace) -> None:
    """Raise ValueError for flags that do not go together."""
    training = {
        "-num_epochs": args.num_epochs,
        "-time_budget": args.time_budget,
        "-iterations_per_epoch": args.iterations_per_epoch,
        "-num_workers": args.num_workers,
    }
    given = [flag for flag, value in training.items() if value is not None]
    if given and not args.train:
        raise ValueError(f"{', '.join(given)} needs --train.")
    if args.np is not None and args.np < 1:
        raise ValueError(f"-np must be at least 1, got {args.np}.")
    if args.results is None:
        if args.d is None:
            raise ValueError("-d is needed: the dataset whose models are compared.")
        return
    predicting = {"-i": args.i, "-gt": args.gt, "-hr_images": args.hr_images, "--train": args.train}
    given = [flag for flag, value in predicting.items() if value]
    if given:
        raise ValueError(f"-results merges what is known; leave out {', '.join(given)}.")
    if args.o is None:
        raise ValueError("-o is needed with -results: where the comparison is written.")


def _budget(args: argparse.Namespace) -> object | None:
    from srseg.evaluation.compare.training import TrainingBudget

    if not args.train:
        return None
    return TrainingBudget(
        args.num_epochs, args.time_budget, args.iterations_per_epoch, args.num_workers
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_command(_compare, build_parser().parse_args(argv))
