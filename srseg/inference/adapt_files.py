"""Adapted LR files: the same names and geometry, values in the source domain's look."""

from __future__ import annotations

import logging
from pathlib import Path

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from tqdm import tqdm

from srseg.images.checks import check_case, read_images
from srseg.images.write import stored_dtypes, write_image
from srseg.inference.adapter import Adapter
from srseg.inference.cases import Case, list_cases
from srseg.inference.pipeline import naming

logger = logging.getLogger(__name__)


def adapt_folder(
    adapter: Adapter,
    in_folder: Path,
    out_folder: Path,
    *,
    file_ending: str,
    reader: type[BaseReaderWriter],
    show_progress: bool = True,
    compression: int | None = None,
) -> list[str]:
    """Return the names of the cases whose adapted images were written into `out_folder`.

    Stored as float32, so that nothing the translation did is rounded away, whatever the input
    stores; PNG and BMP hold no such values and get the input's integers. Method "none" keeps the
    input's dtype.

    Args:
        adapter: to apply.
        in_folder: of `<case>_0000` files.
        out_folder: is made if it does not exist.
        file_ending: of the files.
        reader: one of nnU-Net's.
        show_progress: a bar over the cases, where the output is a terminal.
        compression: level, as in `write_image`.

    Raises:
        FileNotFoundError: if there is no input.
        ValueError: for files that cannot be used, or if output would overwrite input; what was
            adapted before is complete.
    """
    cases = list_cases(in_folder, file_ending)
    if in_folder.resolve() == out_folder.resolve():
        raise ValueError(f"the output folder is the input folder, {out_folder}.")
    bar = tqdm(cases, desc="Adapting cases", disable=None if show_progress else True)
    for case in bar:
        with naming(case.name):
            _adapt_case(adapter, case, out_folder, file_ending, reader, compression)
    return [case.name for case in cases]


def _adapt_case(
    adapter: Adapter,
    case: Case,
    out_folder: Path,
    file_ending: str,
    reader: type[BaseReaderWriter],
    compression: int | None,
) -> None:
    image, properties = read_images(reader(), case.files)
    check_case(image, properties, case.files, num_channels=len(image))
    adapted = adapter.adapt(image)
    keeps = adapter.is_identity or file_ending.lower() in (".png", ".bmp")
    write_image(
        adapted,
        out_folder / case.name,
        properties,
        reader_writer=reader,
        file_ending=file_ending,
        reference_dtype=stored_dtypes(case.files, len(image)) if keeps else None,
        num_files=len(case.files),
        compression=compression,
    )
