"""Preprocessing of a dataset's configurations, as the command runs it.

Apart from planning, whose networks and planners preprocessing need not import.
"""

from __future__ import annotations

import filecmp
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from srseg import environment
from srseg.planning.raw_dataset import RawDataset, find_raw_dataset
from srseg.plans.managers import load_plans
from srseg.plans.names import check_names

logger = logging.getLogger(__name__)

GT_FOLDER = "gt_segmentations"


def preprocess(
    dataset: int | str,
    plans_name: str,
    *,
    configurations: Sequence[str] | None = None,
    num_processes: Sequence[int] | None = None,
    clean: bool = False,
    show_progress: bool = True,
) -> None:
    """Preprocess a dataset's configurations, each folder once, and copy its labels.

    Args:
        dataset: its number or name.
        plans_name: of the plans file.
        configurations: None takes all planned ones.
        num_processes: one number, or one per configuration; None takes the cores there are.
        clean: make all cases anew.
        show_progress: a bar, where the output is a terminal.

    Raises:
        ValueError: if a configuration is unknown, none of them is planned, or the numbers of
            processes do not fit.
        FileNotFoundError: if the plans are missing.
    """
    raw = find_raw_dataset(dataset)
    folder = environment.required_folder("nnUNet_preprocessed") / raw.name
    plans_manager = load_plans(folder / f"{plans_name}.json")
    check_names(plans_name, configurations, folder)
    planned = plans_manager.available_configurations
    wanted = list(configurations or planned)
    counts: list[int | None] = list(num_processes or [None])
    if len(counts) == 1:
        counts *= len(wanted)
    if len(counts) != len(wanted):
        raise ValueError(
            f"-np takes one number or one per configuration: got {len(counts)} for {len(wanted)} "
            f"({', '.join(wanted)})."
        )
    missing = [name for name in wanted if name not in planned]
    if len(missing) == len(wanted):
        raise ValueError(
            f"{', '.join(missing)} is not planned for {raw.name}; planned: {', '.join(planned)}."
        )
    if missing:
        logger.warning("%s is not planned for %s; left out.", ", ".join(missing), raw.name)
    done = set()
    for name, count in zip(wanted, counts, strict=True):
        if name in missing:
            continue
        configuration = plans_manager.get_configuration(name)
        if configuration.data_identifier in done:
            logger.info("%s shares the folder %s.", name, configuration.data_identifier)
            continue
        done.add(configuration.data_identifier)
        logger.info("Preprocessing %s: %s", raw.name, name)
        preprocessor = configuration.preprocessor_class(verbose=False)
        preprocessor.show_progress_bar = show_progress
        preprocessor.run(raw.name, name, plans_name, num_processes=count, clean=clean)
    _copy_labels(raw, folder / GT_FOLDER)


def _copy_labels(raw: RawDataset, folder: Path) -> None:
    """Copy the labels of all cases, so that validation does without the raw dataset.

    nnU-Net's TIFF reader takes the spacing from a JSON file beside the labels; it comes along.
    """
    folder.mkdir(exist_ok=True)
    for case, files in raw.cases.items():
        beside = files.label.with_name(f"{case}.json")
        for source in (files.label, beside) if beside.is_file() else (files.label,):
            ending = raw.dataset_json["file_ending"] if source == files.label else ".json"
            target = folder / f"{case}{ending}"
            if not _is_same(source, target):
                unfinished = folder / f".{os.getpid()}.{target.name}"
                shutil.copy2(source, unfinished)
                unfinished.replace(target)


def _is_same(source: Path, target: Path) -> bool:
    """Return whether `target` is a copy of `source`: a corrected file may bear an older time."""
    return target.is_file() and filecmp.cmp(source, target, shallow=False)
