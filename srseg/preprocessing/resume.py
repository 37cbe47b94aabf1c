"""What a preprocessed folder was made from: a stopped run goes on, another one is an error.

Everything that shapes the arrays stands in `lr/srseg_preprocessing.json` with one hash over it (in
`lr/` because nnU-Net infers a dataset's format from all files of the folder itself). A case is
complete when its properties file exists; anything else is made again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from srseg.plans.managers import SRSegConfigurationManager, SRSegPlansManager
from srseg.preprocessing.case_files import CaseFiles
from srseg.preprocessing.dataset import LR_FOLDER, TEMPORARY_FOLDER, SRSegDataset

FORMAT_VERSION = 2  # raise it when the code's arrays change
RECORD_FILE = f"{LR_FOLDER}/srseg_preprocessing.json"

_CONFIGURATION_KEYS = (
    "spacing",
    "scale",
    "hr_spacing",
    "native_axes",
    "degradation",
    "normalization_schemes",
    "use_mask_for_norm",
    "preprocessor_name",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)
_PLANS_KEYS = ("transpose_forward", "image_reader_writer")
_RAW_FILES = "raw files of "
_DATASET_KEYS = ("channel_names", "labels", "regions_class_order")


def inputs_of(
    plans_manager: SRSegPlansManager,
    configuration_manager: SRSegConfigurationManager,
    dataset_json: Mapping[str, Any],
    cases: Mapping[str, CaseFiles],
) -> dict[str, Any]:
    """Return everything that shapes the arrays, by name, as JSON values.

    Patch sizes are not among it: they shape only chunks, and configurations that differ in them
    share a folder.
    """
    configuration = configuration_manager.configuration
    inputs = {"code version": FORMAT_VERSION}
    inputs.update({f"plans: {key}": configuration.get(key) for key in _CONFIGURATION_KEYS})
    inputs.update({f"plans: {key}": plans_manager.plans[key] for key in _PLANS_KEYS})
    if "CTNormalization" in configuration_manager.normalization_schemes:
        statistics = plans_manager.foreground_intensity_properties_per_channel
        inputs["plans: foreground_intensity_properties_per_channel"] = statistics
    inputs.update({f"dataset.json: {key}": dataset_json.get(key) for key in _DATASET_KEYS})
    inputs.update({f"{_RAW_FILES}{name}": _marks(files) for name, files in cases.items()})
    return json.loads(json.dumps(inputs))  # as it will be read back: tuples are lists


def missing_cases(folder: Path, inputs: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return which of the cases are still to be made in `folder`, and record what shapes them.

    What an interrupted run left half-written is removed. Raw files of cases that are not done may
    have changed since: the case that stopped a run can be corrected.

    Args:
        folder: the preprocessed configuration's folder; made if it does not exist.
        inputs: from `inputs_of`.
        names: all cases.

    Raises:
        ValueError: if the folder was made from other inputs; the message says which changed.
    """
    record_file = folder / RECORD_FILE
    done = set(SRSegDataset.get_identifiers(folder)) if folder.is_dir() else set()
    recorded = _read_record(record_file)
    if recorded is None and done:
        raise ValueError(
            f"{folder} holds {len(done)} cases without a record of what they were made from; run "
            f"with --clean to make it anew."
        )
    if recorded is not None and done:
        changed = _changes(_binding(recorded["inputs"], done), _binding(inputs, done))
        if changed:
            raise ValueError(
                f"{folder} was preprocessed from other inputs ({changed}); run with --clean to "
                f"make it anew, or give the plans another name."
            )
    remove_temporaries(folder)
    record = {"hash": _hash(inputs), "inputs": inputs}
    if record != recorded:
        record_file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = record_file.with_suffix(".tmp")
        unfinished.write_text(json.dumps(record, indent=1), encoding="utf-8")
        unfinished.replace(record_file)
    return [name for name in names if name not in done]


def _read_record(record_file: Path) -> dict[str, Any] | None:
    if not record_file.is_file():
        return None
    return json.loads(record_file.read_text(encoding="utf-8"))


def _binding(inputs: Mapping[str, Any], done: set[str]) -> dict[str, Any]:
    """Return the inputs that what is done depends on."""
    return {
        key: value
        for key, value in inputs.items()
        if not key.startswith(_RAW_FILES) or key.removeprefix(_RAW_FILES) in done
    }


def remove_temporaries(folder: Path) -> None:
    """Remove what is half-written in the preprocessed folder."""
    shutil.rmtree(folder / TEMPORARY_FOLDER, ignore_errors=True)


def _hash(inputs: Mapping[str, Any]) -> str:
    text = json.dumps(inputs, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], most: int = 4) -> str:
    """Return in words which entries differ: 'plans: scale [1, 2, 2] -> [2, 2, 2]; ...'."""
    differing = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    words = []
    for key in differing[:most]:
        if key not in old or key not in new:
            words.append(f"{key} {'added' if key in new else 'removed'}")
        elif key.startswith(_RAW_FILES):
            words.append(f"{key} changed")
        else:
            words.append(f"{key} {_short(old[key])} -> {_short(new[key])}")
    if len(differing) > most:
        words.append(f"and {len(differing) - most} more")
    return "; ".join(words)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _marks(files: CaseFiles) -> dict[str, str]:
    """Return per file of a case what identifies its content."""
    return {f"{file.parent.name}/{file.name}": _mark(file) for file in files.all_files}


def _mark(file: Path) -> str:
    """Return a mark of a file's content that a copy of the file shares.

    A gzip file ends with the checksum and length of what it holds, so eight bytes do; other
    files are read. Time stamps are no part of it: copying a dataset does not change it.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        if file.suffix == ".gz":
            stream.seek(max(0, size - 8))
            return f"{size}:{stream.read(8).hex()}"
        digest = hashlib.blake2b(digest_size=8)
        while block := stream.read(1 << 20):
            digest.update(block)
    return f"{size}:{digest.hexdigest()}"
