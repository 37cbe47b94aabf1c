"""Pairs of files to register, and what is written of each."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srseg.images.checks import case_name
from srseg.images.displacement import write_displacement
from srseg.images.write import write_image, write_segmentation, written_beside
from srseg.inference.cases import Case, check_num_files, list_cases
from srseg.inference.pipeline import naming
from srseg.inference.registration import Registrar, warped_image

logger = logging.getLogger(__name__)

TRANSFORM_FOLDER = "transforms"
RECORD = "registration.json"


@dataclass(frozen=True)
class Pair:
    """A registration to do.

    Attributes:
        name: of its files.
        moving, fixed: the cases.
        labels: file of the moving case's label map, or None.
    """

    name: str
    moving: Case
    fixed: Case
    labels: Path | None = None


def pairs_of(
    moving: Path, fixed: Path, labels: Path | None, *, file_ending: str, num_channels: int
) -> list[Pair]:
    """Return what is to be registered to what.

    One moving case goes to every fixed one, several go to one fixed case, and two folders of the
    same case names are paired by name. Pairs are named after the side of which there are several,
    else after the moving case.

    Args:
        moving: a folder of `<case>_0000` files, or one file.
        fixed: the same.
        labels: a folder of `<moving case>` label maps, a file for a single moving case, or None.
        file_ending: of the model's dataset.
        num_channels: of the model.

    Raises:
        ValueError: if the cases cannot be paired, or lack channels.
        FileNotFoundError: if there is no such file or folder.
    """
    sides = [cases_at(side, file_ending) for side in (moving, fixed)]
    for cases in sides:
        check_num_files(cases, num_channels)
    by_name = [{case.name: case for case in cases} for cases in sides]
    if len(sides[0]) == 1:
        chosen = [(sides[0][0], case) for case in sides[1]]
    elif len(sides[1]) == 1:
        chosen = [(case, sides[1][0]) for case in sides[0]]
    elif by_name[0].keys() == by_name[1].keys():
        chosen = [(case, by_name[1][case.name]) for case in sides[0]]
    else:
        lone = sorted(by_name[0].keys() ^ by_name[1].keys())
        raise ValueError(
            f"{len(sides[0])} moving and {len(sides[1])} fixed cases can be paired only by name, "
            f"but {', '.join(lone[:5])} is on one side alone."
        )
    by_fixed = len(sides[0]) == 1 < len(sides[1])
    return [
        Pair(
            (target if by_fixed else source).name,
            source,
            target,
            _labels_of(source, labels, file_ending, alone=len(sides[0]) == 1),
        )
        for source, target in chosen
    ]


def cases_at(path: Path, file_ending: str) -> list[Case]:
    """Return the cases of a folder, or the one of a file with its further channels.

    Raises:
        FileNotFoundError: if there is no such file or folder, or no image in it.
        ValueError: if a file ends otherwise than the model's data.
    """
    if path.is_dir():
        return list_cases(path, file_ending)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file or folder {path}.")
    if not path.name.endswith(file_ending):
        raise ValueError(f"{path} must end in {file_ending}, as the model's training data does.")
    case = case_name(path)
    channels = sorted(path.parent.glob(f"{case}_[0-9][0-9][0-9][0-9]{file_ending}"))
    return [Case(case, tuple(channels) if path in channels else (path,))]


def _labels_of(case: Case, labels: Path | None, file_ending: str, *, alone: bool) -> Path | None:
    if labels is None:
        return None
    if labels.is_dir():
        labels = labels / f"{case.name}{file_ending}"
    elif not alone:
        raise ValueError(f"-seg {labels} is one file, but there are several moving cases.")
    if not labels.is_file():
        raise FileNotFoundError(f"case {case.name}: there is no label map {labels}.")
    return labels


def register_files(
    registrar: Registrar, pairs: Sequence[Pair], out_folder: Path
) -> list[dict[str, Any]]:
    """Register every pair into `out_folder`; return the records, which `registration.json` holds.

    Of each pair: `NAME_0000` the warped image, `NAME` the warped labels if there are any, and in
    `transforms/` `NAME_field.nii.gz`, ITK's displacement field, and `NAME.h5`, the same as a
    transform; all on the fixed case's own grid.

    Raises:
        ValueError: if output would overwrite input; naming the pair that cannot be registered, when
            what was done before is complete.
    """
    _check_no_input_is_written(pairs, out_folder, registrar.model.dataset_json["file_ending"])
    out_folder.mkdir(parents=True, exist_ok=True)
    records = []
    for pair in pairs:
        with naming(pair.name):
            records.append(_register(registrar, pair, out_folder))
        content = {"model": registrar.model.folder, "pairs": records}
        with written_beside(out_folder) as folder:
            text = json.dumps(content, indent=2, default=str) + "\n"
            (folder / RECORD).write_text(text, encoding="utf-8")
        logger.info(
            "%s: %s onto %s, %.3f %% of the voxels folded (least Jacobian determinant %.2f)",
            *(records[-1][key] for key in ("name", "moving", "fixed")),
            100 * records[-1]["folded_share"],
            records[-1]["least_determinant"],
        )
    return records


def _check_no_input_is_written(pairs: Sequence[Pair], out_folder: Path, file_ending: str) -> None:
    read = {f.resolve() for p in pairs for f in (*p.moving.files, *p.fixed.files, p.labels) if f}
    for pair in pairs:
        channels = range(len(pair.moving.files))
        names = [f"{pair.name}_{channel:04d}{file_ending}" for channel in channels]
        names += [f"{pair.name}{file_ending}"] if pair.labels is not None else []
        for file in (out_folder / name for name in names):
            if file.resolve() in read:
                raise ValueError(f"{file} is an input; choose another output folder.")


def _register(registrar: Registrar, pair: Pair, out_folder: Path) -> dict[str, Any]:
    moving = registrar.read(pair.moving.name, pair.moving.files)
    fixed = registrar.read(pair.fixed.name, pair.fixed.files)
    registration = registrar.register(moving, fixed)
    labels = None
    if pair.labels is not None:  # before anything is written: a wrong map is refused here
        labels = registrar.warped_labels(pair.labels, registration, fixed)
    ending = registrar.model.dataset_json["file_ending"]
    write_displacement(
        registration.displacement_xyz, fixed.grid, out_folder / TRANSFORM_FOLDER, pair.name
    )
    write_image(
        warped_image(moving, registration, fixed.grid),
        out_folder / pair.name,
        fixed.properties,
        reader_writer=registrar.reader_writer,
        file_ending=ending,
        reference_dtype=moving.properties["srseg"]["dtype"],
    )
    if labels is not None:
        write_segmentation(
            labels,
            out_folder / f"{pair.name}{ending}",
            fixed.properties,
            reader_writer=registrar.reader_writer,
        )
    return {
        "name": pair.name,
        "moving": pair.moving.name,
        "fixed": pair.fixed.name,
        "labels": None if pair.labels is None else str(pair.labels),
        "folded_share": registration.folded_share,
        "least_determinant": float(registration.determinant.min()),
        "mean_displacement_mm": float(
            np.linalg.norm(registration.displacement_xyz, axis=-1).mean()
        ),
    }
