"""srseg_register -moving M -fixed F -o OUT [-seg S]: warp scans onto others."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from srseg.cli.predict import add_model_flags, model_folder_of
from srseg.cli.run import quick_imports, run_command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; single dash takes a value, double dash is a switch (nnU-Net's dialect)."""
    parser = argparse.ArgumentParser(
        prog="srseg_register",
        description="Register LR scans with a model of -tr BiJROS: writes the warped image "
        "(OUT/case_0000.nii.gz), the warped labels (OUT/case.nii.gz), the displacement as ITK "
        "reads it (OUT/transforms) and OUT/registration.json with the share of voxels that fold, "
        "all on the fixed scan's own grid. The scans are laid centre on centre first; the "
        "transform holds that as well.",
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "-moving", required=True, metavar="M", help="file, or folder of <case>_0000 files"
    )
    files.add_argument(
        "-fixed", required=True, metavar="F", help="the same; several on both sides go by name"
    )
    files.add_argument("-o", required=True, metavar="OUT", help="output folder, made if needed")
    files.add_argument(
        "-seg", metavar="S", help="label map of the moving scan, or folder of <case> label maps"
    )
    add_model_flags(parser.add_argument_group("model"))
    running = parser.add_argument_group("how it runs")
    running.add_argument("-device", default="auto", help="auto, cuda, cpu or mps (auto)")
    running.add_argument("--verbose", action="store_true", help="say more; show tracebacks")
    return parser


def _register(args: argparse.Namespace) -> int:
    import logging

    with quick_imports():
        import torch

        from srseg import environment
        from srseg.inference.registration import Registrar
        from srseg.inference.registration_files import pairs_of, register_files

    device = environment.resolve_device(args.device)
    if device != "cuda":
        torch.set_num_threads(environment.available_cores())
    registrar = Registrar.from_model_folder(
        model_folder_of(args), args.f, checkpoint_name=args.chk, device=device, trust=args.trust
    )
    pairs = pairs_of(
        Path(args.moving),
        Path(args.fixed),
        None if args.seg is None else Path(args.seg),
        file_ending=registrar.model.dataset_json["file_ending"],
        num_channels=len(registrar.model.dataset_json["channel_names"]),
    )
    records = register_files(registrar, pairs, Path(args.o))
    logging.getLogger(__name__).info("%d pair(s) registered into %s", len(records), args.o)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_command(_register, build_parser().parse_args(argv))
