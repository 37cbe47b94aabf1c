"""Predicting files: list them, read ahead, predict, write behind, go on where a run stopped."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from tqdm import tqdm

import srseg
from srseg.images.compression import check_level
from srseg.inference.cases import (
    Case,
    cases_of_files,
    check_num_files,
    list_cases,
    select_part,
)
from srseg.inference.export import is_written, write_prediction
from srseg.inference.pipeline import WriteBehind, computed_ahead, naming

if TYPE_CHECKING:
    from srseg.inference.predictor import Predictor

logger = logging.getLogger(__name__)

_RECORD = "predict_from_raw_data_args.json"


@dataclass(frozen=True)
class FilesJob:
    """What `Predictor.predict_files` was asked to do; its docstring explains the fields."""

    inputs: str | Path | Sequence[Sequence[str | Path]]
    out_folder: Path
    save_probabilities: bool
    overwrite: bool
    part: tuple[int, int]
    num_threads: tuple[int, int]
    show_progress: bool
    compression: int | None

    def __post_init__(self) -> None:
        check_level(self.compression)


def predict_files(predictor: Predictor, job: FilesJob) -> list[str]:
    """Return the names of the cases that were predicted; see `Predictor.predict_files`."""
    cases = _cases_of(predictor, job)
    if not cases:
        logger.info("every case is predicted already.")
        return []
    file_ending = predictor.dataset_json["file_ending"]
    num_readers, num_writers = job.num_threads

    def prepare(case: Case) -> Any:
        with naming(case.name):
            return predictor.prepare(case.files)

    def write(case: Case, *args: Any, **options: Any) -> None:
        with naming(case.name):
            write_prediction(*args, case.name, job.out_folder, **options)

    bar = tqdm(
        total=len(cases), desc="Predicting cases", disable=None if job.show_progress else True
    )
    records_written = False
    with bar, WriteBehind(num_writers) as writer:
        for case, (lr_image, properties) in computed_ahead(prepare, cases, num_readers):
            if not records_written:  # only now: a first case that cannot be read leaves no trace
                _write_records(predictor, job)
                records_written = True
            begin = time.perf_counter()
            with naming(case.name):
                hr_properties = predictor.hr_properties(properties)
                prediction = predictor.predict_to_native_grid(
                    lr_image, hr_properties, with_probabilities=job.save_probabilities
                )
            writer.submit(
                write,
                case,
                prediction,
                hr_properties=hr_properties,
                plans_manager=predictor.plans_manager,
                file_ending=file_ending,
                compression=job.compression,
            )
            logger.debug(
                "case %s: %s voxels to %s in %.1f s",
                case.name,
                "x".join(str(n) for n in lr_image.shape[1:]),
                "x".join(str(n) for n in prediction.segmentation.shape),
                time.perf_counter() - begin,
            )
            bar.update()
    return [case.name for case in cases]


def _cases_of(predictor: Predictor, job: FilesJob) -> list[Case]:
    """Return the cases to predict, after everything that can be checked without reading them."""
    file_ending = predictor.dataset_json["file_ending"]
    if isinstance(job.inputs, str | Path):
        cases = list_cases(job.inputs, file_ending)
        if Path(job.inputs).resolve() == job.out_folder.resolve():
            raise ValueError(f"the output folder is the input folder, {job.out_folder}.")
    else:
        cases = cases_of_files(job.inputs, file_ending)
    # a colour image holds several channels in one file, so its number is known only when read
    if not issubclass(predictor.plans_manager.image_reader_writer_class, NaturalImage2DIO):
        check_num_files(cases, predictor.num_channels)
    _check_writable(job.out_folder)
    chosen = select_part(cases, *job.part)
    if job.overwrite:
        return chosen
    left = [
        case
        for case in chosen
        if not is_written(
            case.name,
            job.out_folder,
            file_ending,
            with_sr=predictor.has_sr,
            with_probabilities=job.save_probabilities,
        )
    ]
    if len(left) < len(chosen):
        _check_same_adapter(predictor, job.out_folder)
    logger.info("%d of %d cases are predicted already.", len(chosen) - len(left), len(chosen))
    return left


def _check_same_adapter(predictor: Predictor, folder: Path) -> None:
    """Refuse to go on in a folder of other images: adapted by another adapter, or by none."""
    try:
        before = json.loads((folder / _RECORD).read_text(encoding="utf-8")).get("adapter")
    except (FileNotFoundError, ValueError):
        return  # nothing is known of what is there
    now = None if predictor.adapter is None else str(predictor.adapter.folder)
    if before != now:
        raise ValueError(
            f"the cases in {folder} were predicted with {_adapter_words(before)}, not with "
            f"{_adapter_words(now)}; give the same, or another output folder."
        )


def _adapter_words(folder: str | None) -> str:
    return "no adapter" if folder is None else f"-adapter {folder}"


def _check_writable(folder: Path) -> None:
    """Raise ValueError if files cannot be written into `folder`, without making it."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"the output folder {folder} cannot be made: {existing} is a file.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"the output folder {folder} cannot be written to.")


def _write_records(predictor: Predictor, job: FilesJob) -> None:
    """Write what nnU-Net's ensembling and post-processing read, and how the files came about."""
    job.out_folder.mkdir(parents=True, exist_ok=True)
    arguments = {**vars(job), "settings": asdict(predictor.settings), "srseg": srseg.__version__}
    if predictor.model is not None:
        arguments["model_folder"] = predictor.model.folder
        arguments["folds"] = predictor.model.folds
    if predictor.adapter is not None:
        arguments["adapter"] = predictor.adapter.folder
    records = {
        _RECORD: arguments,
        "dataset.json": predictor.dataset_json,
        "plans.json": predictor.plans_manager.plans,
    }
    for name, content in records.items():
        temporary = job.out_folder / f".{name}.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(content, indent=4, default=str), encoding="utf-8")
        temporary.replace(job.out_folder / name)
