"""srseg_evaluate -gt LABELS -pred OUT: how good are HR segmentations and SR images?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from srseg.cli.run import quick_imports, run_command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; single dash takes a value, double dash is a switch (nnU-Net's dialect)."""
    parser = argparse.ArgumentParser(
        prog="srseg_evaluate",
        description="Per case and label Dice, NSD at one HR and one LR voxel, HD95 in mm, volume "
        "error; with -hr_images PSNR, SSIM and LR consistency of the SR images in OUT/sr beside "
        "cubic B-spline and sinc interpolation. Writes JSON and CSV and prints the means.",
    )
    add = parser.add_argument
    add("-gt", required=True, metavar="LABELS", help="folder of HR label maps")
    add("-pred", required=True, metavar="OUT", help="folder that srseg_predict wrote")
    add("-hr_images", metavar="IMAGES", help="folder of HR images, to judge the SR images")
    add(
        "-lr_images",
        metavar="IN",
        help="folder of the LR images predicted from (the one recorded in OUT; else they are "
        "simulated from the HR images)",
    )
    add("-djfile", metavar="FILE", help="dataset.json (the one in OUT)")
    add("-pfile", metavar="FILE", help="srseg plans (plans.json in OUT)")
    add("-c", metavar="CONFIGURATION", help="of the plans (the one predicted with)")
    add("-o", metavar="FILE", help="output file (OUT/summary.json, OUT/sr/summary_sr.json)")
    add("-np", type=int, metavar="N", help="processes (the cores there are)")
    add(
        "--resample_references",
        action="store_true",
        help="bring labels and HR images of another scan, such as a real pair's, onto the "
        "predicted grid in world coordinates; what they do not show is left out of all metrics",
    )
    add("--chill", action="store_true", help="leave out references without a prediction")
    add("--verbose", action="store_true", help="say more; show tracebacks")
    return parser


def _evaluate(args: argparse.Namespace) -> int:
    from pathlib import Path

    with quick_imports():
        from srseg import environment
        from srseg.evaluation.context import find_context
        from srseg.evaluation.folder import evaluate_folder
        from srseg.evaluation.tables import text_table, write_evaluation

    if args.np is not None and args.np < 1:
        raise ValueError(f"-np must be at least 1, got {args.np}.")
    if args.o is not None and Path(args.o).suffix != ".json":
        raise ValueError(f"-o must name a .json file, got '{args.o}'.")
    for flag, folder in (("-gt", args.gt), ("-pred", args.pred)):
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"the folder {folder} ({flag}) does not exist.")
    context = find_context(
        args.pred,
        args.gt,
        plans_file=args.pfile,
        dataset_json_file=args.djfile,
        configuration=args.c,
    )
    evaluation = evaluate_folder(
        args.gt,
        args.pred,
        hr_images=args.hr_images,
        lr_images=args.lr_images,
        context=context,
        num_processes=args.np or environment.available_cores(),
        chill=args.chill,
        resample_references=args.resample_references,
    )
    files = write_evaluation(evaluation, args.pred, args.o)
    print(text_table(evaluation))
    print("\nwritten: " + ", ".join(str(file) for file in files))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_command(_evaluate, build_parser().parse_args(argv))
