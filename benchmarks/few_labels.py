"""A copy of a raw dataset in which few training cases of one fold have labels.

    nnUNet_raw=... nnUNet_preprocessed=... python benchmarks/few_labels.py -d 4 -o Dataset904_Few

The other training cases move to `imagesUnTr`; the validation cases, and what has no labels already,
stay. The copy's `splits_final.json` has one fold. What labels are worth, and what images without
labels give back, is then seen on the same validation cases:

    srseg_plan_and_preprocess -d 904
    srseg_train 904 3d_fullres 0                          # the few labels alone
    srseg_train 904 3d_fullres 0 -tr SRSegTrainer_semi    # and the images without labels
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from srseg import environment
from srseg.plans.datasets import dataset_name
from srseg.preprocessing.case_files import (
    IMAGES,
    LABELS,
    LR_IMAGES,
    UNLABELLED_IMAGES,
    CaseFiles,
    training_files,
    unlabelled_files,
)

SPLITS_FILE = "splits_final.json"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", required=True, help="dataset in nnUNet_raw")
    parser.add_argument("-o", required=True, help="name of the copy: DatasetXXX_Name, a new number")
    parser.add_argument("-share", type=float, default=0.1, help="that keeps its labels (0.1)")
    parser.add_argument("-fold", type=int, default=0, help="of the splits (0)")
    parser.add_argument(
        "-splits",
        type=Path,
        help="splits_final.json (default: the preprocessed dataset's, else nnU-Net's five folds)",
    )
    parser.add_argument("-seed", type=int, default=0, help="of the choice (0)")
    return parser.parse_args(argv)


def fold_of(splits_file: Path, cases: Sequence[str], fold: int) -> dict[str, list[str]]:
    """Return "train" and "val" cases of a fold; without a file, of nnU-Net's seeded splits.

    Raises:
        ValueError: for an unknown fold, or one with cases that the dataset does not have.
    """
    if splits_file.is_file():
        splits = json.loads(splits_file.read_text(encoding="utf-8"))
    else:
        from nnunetv2.utilities.crossval_split import generate_crossval_split

        splits = generate_crossval_split(sorted(cases), seed=12345, n_splits=5)
    if not 0 <= fold < len(splits):
        raise ValueError(f"unknown fold {fold}; known: 0 to {len(splits) - 1}.")
    chosen = {side: [str(case) for case in splits[fold][side]] for side in ("train", "val")}
    unknown = sorted({*chosen["train"], *chosen["val"]} - set(cases))
    if unknown:
        raise ValueError(f"fold {fold} has cases that the dataset lacks: {', '.join(unknown[:5])}.")
    return chosen


def keep_labels(train: Sequence[str], share: float, seed: int) -> list[str]:
    """Return the training cases that keep their labels, sorted: `share` of them, one at least.

    A larger share of the same seed holds the cases of a smaller one.

    Raises:
        ValueError: for a share that leaves no case without labels.
    """
    count = max(1, round(share * len(train)))
    if not 0 < share < 1 or count == len(train):
        raise ValueError(f"-share {share:g} leaves none of {len(train)} cases without labels.")
    shuffled = sorted(train)
    random.Random(seed).shuffle(shuffled)
    return sorted(shuffled[:count])


def copies(files: CaseFiles, ending: str, *, labelled: bool) -> dict[str, Path]:
    """Return what is copied of a case: path in the new dataset -> file."""
    images = IMAGES if labelled else UNLABELLED_IMAGES
    groups = [(images, files.images), (LR_IMAGES, files.lr_images or ())]
    targets = {
        f"{folder}/{files.case}_{channel:04d}{ending}": file
        for folder, channels in groups
        for channel, file in enumerate(channels)
    }
    if labelled:
        targets[f"{LABELS}/{files.case}{ending}"] = files.label
    for target, file in list(targets.items()):  # nnU-Net's TIFF reader takes the spacing from it
        beside = file.with_name(f"{files.case}.json")
        if beside.is_file():
            targets[f"{Path(target).parent}/{beside.name}"] = beside
    return targets


def write_few_labels(
    source: Path, target: Path, fold: Mapping[str, Sequence[str]], kept: Sequence[str]
) -> dict[str, Any]:
    """Write the raw dataset; return its only fold, "train" and "val".

    Args:
        source: raw dataset.
        target: raw dataset to be made; must not exist.
        fold: "train" and "val" cases of the source.
        kept: training cases that keep their labels.
    """
    dataset_json = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    ending = dataset_json["file_ending"]
    cases = training_files(source, dataset_json)
    labelled = {*kept, *fold["val"]}
    wanted = [cases[case] for case in (*fold["train"], *fold["val"])]
    wanted += unlabelled_files(source, dataset_json, cases).values()
    unfinished = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    for files in wanted:
        for name, file in copies(files, ending, labelled=files.case in labelled).items():
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, unfinished / name)
    dataset_json.pop("dataset", None)  # files have nnU-Net's own names now
    dataset_json["numTraining"] = len(labelled)
    (unfinished / "dataset.json").write_text(json.dumps(dataset_json, indent=2), encoding="utf-8")
    unfinished.replace(target)
    return {"train": list(kept), "val": sorted(fold["val"])}


def main(argv: Sequence[str] | None = None) -> None:
    """Write the dataset and its splits; say what to run.

    Raises:
        ValueError: for an unknown dataset, fold or share, or a name that is taken.
    """
    args = _arguments(argv)
    raw_root = environment.required_folder("nnUNet_raw")
    preprocessed_root = environment.required_folder("nnUNet_preprocessed")
    name = dataset_name(args.d, raw_root)
    number = re.match(r"Dataset(\d{3})_.", args.o)
    taken = number and list(raw_root.glob(f"Dataset{number[1]}_*"))
    if not number or taken:
        raise ValueError(f"-o {args.o} must be DatasetXXX_Name with a number that is not in use.")
    splits_file = args.splits or preprocessed_root / name / SPLITS_FILE
    if args.splits and not args.splits.is_file():
        raise ValueError(f"-splits {args.splits} is not a file.")
    description = json.loads((raw_root / name / "dataset.json").read_text(encoding="utf-8"))
    fold = fold_of(splits_file, list(training_files(raw_root / name, description)), args.fold)
    kept = keep_labels(fold["train"], args.share, args.seed)
    only_fold = write_few_labels(raw_root / name, raw_root / args.o, fold, kept)
    folder = preprocessed_root / args.o
    folder.mkdir(exist_ok=True)
    (folder / SPLITS_FILE).write_text(json.dumps([only_fold], indent=1), encoding="utf-8")
    print(
        f"{raw_root / args.o}: {len(kept)} training cases with labels, "
        f"{len(fold['train']) - len(kept)} without, {len(fold['val'])} validation cases "
        f"(fold {args.fold} of {name}, now fold 0)"
    )


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"few_labels: {error}")
