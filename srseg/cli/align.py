"""srseg_align -moving M -fixed F -o OUT: rigid alignment of images, by intensities or landmarks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from srseg.cli.run import quick_imports, run_command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; single dash takes a value, double dash is a switch (nnU-Net's dialect)."""
    parser = argparse.ArgumentParser(
        prog="srseg_align",
        description="Move images rigidly onto others: OUT/FILE, label maps in OUT/labels, "
        "OUT/transforms/CASE.tfm for SimpleITK (maps fixed points to moving ones). Nothing is "
        "interpolated: the motion goes into origin and direction of the header, unless --resample. "
        "Give files, or folders whose files share case names; one fixed file serves all.",
    )
    files = parser.add_argument_group("files")
    add = files.add_argument
    add("-moving", required=True, metavar="M", help="image to be moved, or folder")
    add("-fixed", required=True, metavar="F", help="image that stays, or folder")
    add("-o", required=True, metavar="OUT", help="output folder, made if needed")
    add("-labels", metavar="FILE", help="label map of the moving image, or folder: moved with it")
    add(
        "--resample",
        action="store_true",
        help="onto the fixed grid: images by cubic B-spline, labels by the nearest voxel",
    )
    points = parser.add_argument_group("landmarks, instead of intensities")
    add = points.add_argument
    add(
        "-moving_landmarks",
        metavar="CSV",
        help="x,y,z in mm, at least three points in the order of -fixed_landmarks; columns of "
        "these names and of `name` may have a heading; or a folder of CASE.csv",
    )
    add("-fixed_landmarks", metavar="CSV", help="the same points on the fixed image")
    add(
        "-landmark_space",
        default="lps",
        metavar="lps|ras",
        help="what x and y count to: lps as in ITK and DICOM (default), or ras as in NIfTI",
    )
    add("-moving_seg", metavar="FILE", help="label map: landmarks are the centroids of its labels")
    add("-fixed_seg", metavar="FILE", help="label map of the fixed image, with the same labels")
    how = parser.add_argument_group("registration by intensities")
    add = how.add_argument
    add(
        "-metric",
        default="mi",
        metavar="mi|correlation",
        help="mutual information for any two contrasts (default), or correlation for one",
    )
    add(
        "-init",
        default="auto",
        metavar="START",
        help="world (headers are about right), geometry (centres meet), moments (centres of mass "
        "meet), or auto: the best of these, for images that overlap (default)",
    )
    add("-iterations", type=int, default=200, help="at most, per level of three (200)")
    add("-seed", type=int, default=12345, help="of the metric's samples (12345)")
    add("-np", type=int, default=1, metavar="N", help="processes (1)")
    add("--no_pbar", "--disable_progress_bar", dest="no_pbar", action="store_true")
    add("--verbose", action="store_true", help="say more; show tracebacks")
    return parser


def _align(args: argparse.Namespace) -> int:
    import logging

    with quick_imports():
        from srseg.images.registration import RegistrationOptions
        from srseg.preprocessing.align import Alignment, AlignSides, align_files

    if args.np < 1:
        raise ValueError(f"-np must be at least 1, got {args.np}.")
    if args.landmark_space not in ("lps", "ras"):
        raise ValueError(f"unknown -landmark_space '{args.landmark_space}'; known: lps, ras.")
    names = ("labels", "moving_landmarks", "fixed_landmarks", "moving_seg", "fixed_seg")
    others = {name: Path(value) for name in names if (value := getattr(args, name)) is not None}
    alignment = Alignment(
        Path(args.o),
        RegistrationOptions(args.metric, args.init, args.seed, args.iterations),
        resample=args.resample,
        landmark_space=args.landmark_space,
    )
    results = align_files(
        AlignSides(Path(args.moving), Path(args.fixed), **others),
        alignment,
        num_processes=args.np,
        show_progress=not args.no_pbar,
    )
    logger = logging.getLogger(__name__)
    for case, result in results.items():
        logger.info(
            "%s: turned by %.2f degrees, middle moved by %.2f mm, %s, overlap %.0f %%",
            case,
            result.angle_deg,
            result.shift_mm,
            result.quality,
            100 * result.shared,
        )
    logger.info("%d aligned in %s", len(results), args.o)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_command(_align, build_parser().parse_args(argv))
