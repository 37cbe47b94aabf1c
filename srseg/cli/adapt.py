"""srseg_adapt train | apply: LR images of another scanner made to look like the training data's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from srseg.cli.run import quick_imports, run_command

_METHOD_HELP = (
    "vama (default), cyclegan, munit, bicyclegan and unit train networks; histogram matches grey "
    "values in seconds; none leaves images as they are, for comparisons"
)
_METHODS = ("vama", "cyclegan", "munit", "bicyclegan", "unit", "histogram", "none")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; single dash takes a value, double dash is a switch (nnU-Net's dialect)."""
    parser = argparse.ArgumentParser(
        prog="srseg_adapt",
        description="Domain adaptation in front of a joint network. The network was trained on "
        "images of the SOURCE domain; images of the TARGET domain look different (another scanner "
        "or protocol). An adapter takes TARGET images and makes them look like SOURCE images. It "
        "needs images of both domains, but no labels and no pairs.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_apply(commands)
    return parser


def _add_train(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "train",
        help="train an adapter on images of both domains",
        description="Train an adapter that makes TARGET images look like SOURCE images, the "
        "domain that the joint network was trained on. SOURCE and TARGET are each a folder of LR "
        "images (<case>_0000 files), or the id or name of a dataset: then its LR images, "
        "imagesLrTr where it has real pairs, else its imagesTr after the planned degradation, as "
        "srseg_simulate makes them. Labels are never read.",
    )
    add = parser.add_argument
    add("-source", required=True, metavar="S", help="domain the joint network was trained on")
    add("-target", required=True, metavar="T", help="domain whose images are to be adapted")
    add("-o", required=True, metavar="MODEL_FOLDER", help="where the adapter goes")
    add("-method", choices=_METHODS, default="vama", help=_METHOD_HELP)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("-num_steps", type=int, metavar="N", help="steps of training (2000)")
    length.add_argument(
        "-time_budget", type=float, metavar="MINUTES", help="training time instead of steps"
    )
    add("-batch_size", type=int, default=2, metavar="N", help="patches of each domain a step (2)")
    add(
        "-patch_size",
        type=int,
        nargs="+",
        default=[16, 32, 32],
        metavar="N",
        help="voxels Z Y X, or Y X for a network of slices (16 32 32; less in small images)",
    )
    add("-learning_rate", type=float, default=2e-4, metavar="R", help="at the beginning (0.0002)")
    add("-seed", type=int, default=0, help="of weights and batches (0)")
    add(
        "-units",
        choices=("input", "source"),
        default="input",
        help="each adapted image stays in its own units, or all are in the source images' (input)",
    )
    add(
        "-weights",
        nargs="+",
        default=[],
        metavar="TERM=W",
        help="weights of loss terms instead of the method's own",
    )
    add("-p", "-plans_name", dest="p", default="srsegPlans", metavar="PLANS", help="of a dataset")
    add("-c", default="3d_fullres", metavar="CONFIGURATION", help="of a dataset (3d_fullres)")
    add("-device", default="auto", help="auto, cuda, cpu or mps (auto)")
    add(
        "--continue_training",
        "--c",
        dest="continue_training",
        action="store_true",
        help="go on from the folder's newest checkpoint",
    )
    add("--verbose", action="store_true", help="say more; show tracebacks")


def _add_apply(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "apply",
        help="write adapted images",
        description="Write each image of IN in the look of the source domain, under the same name "
        "and in the same place, as float32 (PNG and BMP: as the input's integers). Values stay in "
        "each image's own units, unless the adapter was trained with -units source. "
        "srseg_predict -adapter does the same on the fly.",
    )
    add = parser.add_argument
    add("-i", required=True, metavar="IN", help="folder of <case>_0000 files like TARGET's")
    add("-o", required=True, metavar="OUT", help="output folder, made if needed")
    add("-m", required=True, metavar="MODEL_FOLDER", help="of srseg_adapt train")
    add("-device", default="auto", help="auto, cuda, cpu or mps (auto)")
    add("-compression", type=int, metavar="LEVEL", help="of the files written, as srseg_predict")
    add("--no_pbar", "--disable_progress_bar", dest="no_pbar", action="store_true")
    add("--verbose", action="store_true", help="say more; show tracebacks")


def _run(args: argparse.Namespace) -> int:
    return _train(args) if args.command == "train" else _apply(args)


def _train(args: argparse.Namespace) -> int:
    import logging
    from pathlib import Path

    with quick_imports():
        from srseg.training.adaptation.run import AdaptationRequest, train_adapter

    steps = {} if args.num_steps is None else {"num_steps": args.num_steps}
    request = AdaptationRequest(
        source=args.source,
        target=args.target,
        output=Path(args.o),
        method=args.method,
        budget_minutes=args.time_budget,
        batch_size=args.batch_size,
        patch_size=tuple(args.patch_size),
        learning_rate=args.learning_rate,
        seed=args.seed,
        device=args.device,
        continue_training=args.continue_training,
        units=args.units,
        weights=dict(_weight(text) for text in args.weights),
        plans_name=args.p,
        configuration=args.c,
        **steps,
    )
    log = logging.getLogger(__name__)
    if train_adapter(request):
        log.info("adapter '%s' in %s", args.method, args.o)
        return 0
    log.info("stopped before the end; --c goes on.")
    return 1


def _weight(text: str) -> tuple[str, float]:
    name, equals, number = text.partition("=")
    try:
        if not equals:
            raise ValueError
        value = float(number)
        if not 0 <= value < float("inf"):
            raise ValueError
    except ValueError:
        raise ValueError(f"-weights takes TERM=W with a number W >= 0, got '{text}'.") from None
    return name, value


def _apply(args: argparse.Namespace) -> int:
    import logging
    from pathlib import Path

    with quick_imports():
        import torch

        from srseg import environment
        from srseg.images.compression import check_level
        from srseg.inference.adapt_files import adapt_folder
        from srseg.inference.adapter import Adapter
        from srseg.inference.image_folder import file_ending_of, reader_of_ending

    check_level(args.compression)
    device = environment.resolve_device(args.device)
    if device == "cpu":
        torch.set_num_threads(environment.available_cores())
    adapter = Adapter.from_folder(args.m, device=device)
    ending = file_ending_of(Path(args.i))
    cases = adapt_folder(
        adapter,
        Path(args.i),
        Path(args.o),
        file_ending=ending,
        reader=reader_of_ending(ending),
        show_progress=not args.no_pbar,
        compression=args.compression,
    )
    logging.getLogger(__name__).info("%d case(s) adapted into %s", len(cases), args.o)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_command(_run, build_parser().parse_args(argv))
