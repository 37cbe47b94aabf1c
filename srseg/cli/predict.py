"""srseg_predict -i IN -o OUT: HR segmentations and SR images from LR files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from srseg.cli.run import quick_imports, run_command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; single dash takes a value, double dash is a switch (nnU-Net's dialect)."""
    parser = argparse.ArgumentParser(
        prog="srseg_predict",
        description="Predict HR segmentations (OUT/case.nii.gz) and super-resolved images "
        "(OUT/sr/case_0000.nii.gz) from LR images, on the grid that is SCALE times finer than each "
        "image's own. Without -m and -d the one trained model there is gets used.",
    )
    files = parser.add_argument_group("files")
    files.add_argument("-i", required=True, metavar="IN", help="folder of <case>_0000 files")
    files.add_argument("-o", required=True, metavar="OUT", help="output folder, made if needed")
    files.add_argument(
        "--continue_prediction",
        "--c",
        action="store_true",
        help="leave out cases that are complete in OUT",
    )
    files.add_argument(
        "--save_probabilities", action="store_true", help="write .npz and .pkl for ensembling"
    )
    files.add_argument(
        "-compression",
        type=int,
        metavar="LEVEL",
        help="of .nii.gz, .nrrd and .mha files, 0 (none) to 9; other formats ignore it (the "
        "writing library's own: 6 for .nii.gz)",
    )
    files.add_argument("-num_parts", type=int, default=1, help="calls that share the cases (1)")
    files.add_argument("-part_id", type=int, default=0, help="which of them this is, from 0")
    model = parser.add_argument_group("model")
    add_model_flags(model)
    model.add_argument(
        "-adapter",
        metavar="FOLDER",
        help="of srseg_adapt train: makes the LR images look like the training data's first; SR "
        "images are then super-resolved adapted images",
    )
    _add_running_flags(parser.add_argument_group("how it runs"))
    return parser


def add_model_flags(group: argparse._ArgumentGroup) -> None:
    """Add the flags that say which model is meant; `model_folder_of` reads them."""
    group.add_argument("-m", metavar="FOLDER", help="model folder, instead of -d, -tr, -p and -c")
    group.add_argument("-d", metavar="DATASET", help="id or name of the dataset it was trained on")
    group.add_argument("-tr", metavar="METHOD", help="method name, or the method file")
    group.add_argument("-p", "-plans_name", dest="p", metavar="PLANS", help="plans, as srsegPlans")
    group.add_argument("-c", metavar="CONFIGURATION", help="as 3d_fullres")
    group.add_argument("-f", nargs="+", metavar="FOLD", help="folds to average (all there are)")
    group.add_argument(
        "-chk", default="checkpoint_final.pth", help="checkpoint file (checkpoint_final.pth)"
    )
    group.add_argument(
        "--trust", action="store_true", help="run the code of a model whose encoder is a user's own"
    )


def _add_running_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-device", default="auto", help="auto, cuda, cpu or mps (auto)")
    group.add_argument(
        "-step_size", type=float, default=0.5, help="distance of tiles as a fraction of one (0.5)"
    )
    group.add_argument(
        "--one_pass", action="store_true", help="never tile, however large the image"
    )
    group.add_argument(
        "--disable_tta", action="store_true", help="no test-time flips: 8 times faster"
    )
    group.add_argument(
        "--not_on_device", action="store_true", help="add tiles up in main memory, not on the GPU"
    )
    group.add_argument("-npp", type=int, default=1, help="threads that read (1; 0: none)")
    group.add_argument("-nps", type=int, default=1, help="threads that write (1; 0: none)")
    group.add_argument(
        "--disable_progress_bar", "--no_pbar", action="store_true", help="no progress bar"
    )
    group.add_argument("--verbose", action="store_true", help="say more; show tracebacks")


def _predict(args: argparse.Namespace) -> int:
    import logging

    with quick_imports():
        import torch

        from srseg import environment
        from srseg.images.compression import check_level
        from srseg.inference.predictor import Predictor

    check_level(args.compression)
    model_folder = model_folder_of(args)
    device = environment.resolve_device(args.device)
    if device == "cuda":
        torch.backends.cudnn.benchmark = True
    else:
        torch.set_num_threads(environment.available_cores())
    predictor = Predictor.from_model_folder(
        model_folder,
        args.f,
        checkpoint_name=args.chk,
        trust=args.trust,
        device=device,
        step_size=args.step_size,
        use_mirroring=not args.disable_tta,
        one_pass=args.one_pass,
        results_on_device=not args.not_on_device,
    )
    if args.adapter is not None:
        from srseg.inference.adapter import Adapter

        predictor.use_adapter(Adapter.from_folder(args.adapter, device=device))
    cases = predictor.predict_files(
        args.i,
        args.o,
        save_probabilities=args.save_probabilities,
        overwrite=not args.continue_prediction,
        part=(args.part_id, args.num_parts),
        num_threads=(args.npp, args.nps),
        show_progress=not args.disable_progress_bar,
        compression=args.compression,
    )
    logging.getLogger(__name__).info("%d case(s) predicted into %s", len(cases), args.o)
    return 0


def model_folder_of(args: argparse.Namespace) -> str | Path:
    """Return the model folder that the flags of `add_model_flags` name.

    Raises:
        ValueError: if -m comes with another flag, or the flags fit several models or none.
    """
    from srseg import environment
    from srseg.inference.model_folder import find_model

    named = {"-d": args.d, "-tr": args.tr, "-p": args.p, "-c": args.c}
    if args.m is not None:
        contradicting = [flag for flag, value in named.items() if value is not None]
        if contradicting:
            raise ValueError(f"-m names the model already; leave out {', '.join(contradicting)}.")
        return args.m
    return find_model(
        environment.required_folder("nnUNet_results"),
        dataset=args.d,
        plans=args.p,
        configuration=args.c,
        method=_method_name(args.tr),
    )


def _method_name(name_or_file: str | None) -> str | None:
    """Return the name of a method; a method file says it itself."""
    import json

    if name_or_file is None or not name_or_file.endswith(".json"):
        return name_or_file
    file = Path(name_or_file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no method file {file}.")
    try:
        return json.loads(file.read_text(encoding="utf-8"))["name"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no method file: it must be JSON with a name.") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_command(_predict, build_parser().parse_args(argv))
