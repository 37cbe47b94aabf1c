"""`srseg_demo`: the main job on an embedded dataset, from raw images to a table and a picture."""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from srseg.cli.run import run_command

DATASET_ID = "999"
CONFIGURATION = "3d_fullres"
NUM_TEST = 3
PICTURE = "demo.png"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        prog="srseg_demo",
        description="Make a dataset from the MNI152 templates inside nilearn's wheel, then plan, "
        "preprocess, train, predict and evaluate with the real commands; end with a table and a "
        "picture. Nothing is downloaded.",
    )
    add = parser.add_argument
    add("-o", default="srseg_demo", metavar="FOLDER", help="where everything goes (srseg_demo)")
    add("-minutes", type=float, default=5.0, metavar="M", help="training time in minutes (5)")
    add("-cases", type=int, default=20, metavar="N", help="training subjects to make (20)")
    add("-device", default="auto", help="auto, cuda, cpu or mps (auto: the best there is)")
    add("--verbose", action="store_true", help="say more; show tracebacks")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_command(_demo, build_parser().parse_args(argv))


def _demo(args: argparse.Namespace) -> None:
    from srseg.cli.demo_dataset import DATASET_NAME, build_demo_dataset
    from srseg.cli.demo_report import report

    if not args.minutes > 0:
        raise ValueError(f"-minutes is {args.minutes:g}; it must be positive.")
    begin = time.monotonic()
    root = Path(args.o).resolve()
    _make_room(root)
    raw_folder = root / "nnUNet_raw"
    steps = _commands(args, root, raw_folder / DATASET_NAME)

    _announce(1, len(steps) + 2, "make subjects from the MNI152 templates")
    build_demo_dataset(raw_folder, num_training=args.cases, num_test=NUM_TEST)
    for number, (what, command) in enumerate(steps, start=2):
        _announce(number, len(steps) + 2, what)
        _run(command, root)
    _announce(len(steps) + 2, len(steps) + 2, "results on the held-out subjects")
    table = report(root, raw_folder / DATASET_NAME, root / PICTURE)
    print("\n".join(table))
    print(f"\npicture: {root / PICTURE}")
    print(f"took {(time.monotonic() - begin) / 60:.1f} minutes; everything lies in {root}")


def _commands(
    args: argparse.Namespace, root: Path, dataset_folder: Path
) -> list[tuple[str, list[str]]]:
    """Return (what it does, command) for each real command, in order."""
    return [
        ("fingerprint, plans, LR/HR/label triplets", [
            "srseg_plan_and_preprocess", "-d", DATASET_ID, "-c", CONFIGURATION,
        ]),
        (f"train for {args.minutes:g} minutes", [
            "srseg_train", DATASET_ID, CONFIGURATION, "0",
            "-device", args.device, "-time_budget", f"{args.minutes:g}",
        ]),
        ("make LR images of the held-out subjects", [
            "srseg_simulate", "-i", str(dataset_folder / "imagesTs"),
            "-o", str(root / "lr_images"), "-d", DATASET_ID,
        ]),
        ("predict: segmentation and SR image from LR", [
            "srseg_predict", "-i", str(root / "lr_images"), "-o", str(root / "predictions"),
            "-d", DATASET_ID, "-c", CONFIGURATION, "-f", "0", "-device", args.device,
        ]),
        ("evaluate against HR", [
            "srseg_evaluate", "-gt", str(dataset_folder / "labelsTs"),
            "-pred", str(root / "predictions"), "-hr_images", str(dataset_folder / "imagesTs"),
        ]),
    ]  # fmt: skip


def _make_room(root: Path) -> None:
    """Remove an earlier demo in `root`, and refuse a folder with anything else in it.

    Raises:
        ValueError: if `root` is not empty and not an earlier demo.
    """
    mark = root / ".srseg_demo"
    if root.exists() and not mark.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(
            f"-o names '{root}', which is neither new nor empty nor an earlier demo; choose "
            f"another folder."
        )
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "lr_images", "predictions"):
        shutil.rmtree(root / name, ignore_errors=True)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (root / name).mkdir(parents=True)
    mark.touch()


def _run(command: Sequence[str], root: Path) -> None:
    """Run one console script in a process of its own; what it prints goes where we print.

    Raises:
        RuntimeError: if it fails; its own message stands above.
    """
    from srseg import environment

    print(f"$ {shlex.join(command)}", flush=True)
    module = f"srseg.cli.{command[0].removeprefix('srseg_')}"
    code = f"import sys; from {module} import main; sys.exit(main(sys.argv[1:]))"
    finished = subprocess.run(
        [sys.executable, "-c", code, *command[1:]],
        env=environment.child_environment(root),
        check=False,
    )
    if finished.returncode:
        raise RuntimeError(
            f"{command[0]} failed with exit status {finished.returncode}; its message stands above."
        )


def _announce(number: int, total: int, what: str) -> None:
    print(f"\n[{number}/{total}] {what}", flush=True)
