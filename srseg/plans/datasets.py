"""Which dataset a number or a name means: `4`, `"4"`, `"Dataset004"` or the folder's whole name."""

from __future__ import annotations

import re
from pathlib import Path


def dataset_name(dataset: int | str, folder: str | Path) -> str:
    """Return the name (`DatasetXXX_Name`) of a dataset that lies in `folder`.

    Args:
        dataset: its number, its name, or the name's first part.
        folder: nnUNet_raw, nnUNet_preprocessed or nnUNet_results.

    Raises:
        ValueError: for an unknown dataset (the known ones are listed) or one number with several.
    """
    known = sorted(p.name for p in Path(folder).iterdir() if re.match(r"Dataset\d{3}_", p.name))
    text = str(dataset)
    if text in known:
        return text
    prefix = f"Dataset{int(text):03d}" if text.isdecimal() else text
    matches = [name for name in known if name.split("_")[0] == prefix]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ValueError(f"dataset '{dataset}' means several: {', '.join(matches)} in {folder}.")
    raise ValueError(
        f"unknown dataset '{dataset}' in {folder}; known: {', '.join(known) or 'none'}."
    )
