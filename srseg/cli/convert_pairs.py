"""srseg_convert_pairs LR HR LABELS -d ID: a raw dataset of true LR/HR pairs from three folders."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from srseg.cli.run import quick_imports, run_command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; single dash takes a value, double dash is a switch (nnU-Net's dialect)."""
    parser = argparse.ArgumentParser(
        prog="srseg_convert_pairs",
        description="Build nnUNet_raw/DatasetXXX_NAME (imagesTr, imagesLrTr, labelsTr, "
        "dataset.json) from three folders whose files share case names. Names pair the files, with "
        "or without _0000 channel numbers. Labels must lie on the HR images' grids, and an HR "
        "image must cover half of its LR image in world coordinates.",
    )
    add = parser.add_argument
    add("lr", metavar="LR", help="folder of LR images")
    add("hr", metavar="HR", help="folder of HR images")
    add("label_maps", metavar="LABELS", help="folder of label maps on the HR images' grids")
    add("-d", required=True, metavar="DATASET", help="new number, or whole name: Dataset005_Heart")
    add("-name", metavar="NAME", help="what follows the number: Heart")
    add(
        "-labels",
        nargs="+",
        metavar="NAME",
        help="names of the values 0, 1, 2, ...: background lv myo rv (label_1, ... as found)",
    )
    add("-channels", nargs="+", metavar="NAME", help="names of the channels, as T1 T2 or CT (MRI)")
    add("-djfile", metavar="FILE", help="dataset.json to take labels and channels from")
    add("-np", type=int, metavar="N", help="processes (the cores there are)")
    add("--skip_incomplete", action="store_true", help="leave out cases that a folder lacks")
    add("--overwrite", action="store_true", help="replace a dataset of the same name")
    add("--no_pbar", "--disable_progress_bar", dest="no_pbar", action="store_true")
    add("--verbose", action="store_true", help="say more; show tracebacks")
    return parser


def _convert(args: argparse.Namespace) -> int:
    import logging

    from srseg import environment

    if args.np is not None and args.np < 1:
        raise ValueError(f"-np must be at least 1, got {args.np}.")
    if args.djfile and args.labels:
        raise ValueError("-labels and -djfile both name the labels; leave out one.")
    raw_root = environment.required_folder("nnUNet_raw")
    with quick_imports():
        from srseg.planning.pair_content import PairWishes
        from srseg.planning.pair_dataset import convert_pairs, new_dataset_name
        from srseg.planning.pair_folders import PairFolders

    name = new_dataset_name(args.d, args.name, raw_root, overwrite=args.overwrite)
    wishes = PairWishes(
        label_names=args.labels,
        channel_names=args.channels,
        dataset_json=_content(Path(args.djfile)) if args.djfile else None,
        skip_incomplete=args.skip_incomplete,
    )
    dataset_json = convert_pairs(
        PairFolders(Path(args.lr), Path(args.hr), Path(args.label_maps)),
        raw_root / name,
        wishes,
        num_processes=args.np or environment.available_cores(),
        show_progress=not args.no_pbar,
    )
    logger = logging.getLogger(__name__)
    labels = ", ".join(dataset_json["labels"])
    logger.info("%d pairs in %s; labels: %s", dataset_json["numTraining"], raw_root / name, labels)
    preprocessed = environment.folder("nnUNet_preprocessed")
    if preprocessed is not None and (preprocessed / name).exists():
        logger.warning("%s was made of other data; plan and preprocess anew.", preprocessed / name)
    return 0


def _content(file: Path) -> dict:
    """Return the labels and channels of a dataset.json."""
    import json

    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"the file {file} (-djfile) does not exist.") from None
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON: {error}.") from error
    if not isinstance(content, dict) or "labels" not in content:
        raise ValueError(f"{file} declares no labels.")
    return content


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_command(_convert, build_parser().parse_args(argv))
