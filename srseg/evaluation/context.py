"""What must be known of predictions to judge them: labels, reader, scale, degradation, LR images.

Most stands in the folder that `srseg_predict` wrote, as copies of the model's plans.json and
dataset.json and a record of its arguments. Predictions of other tools can be judged too: without
srseg plans the scale is unknown, and what needs it is left out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.degradation.spec import DegradationSpec
from srseg.metrics.summary import Label
from srseg.plans.managers import SRSegConfigurationManager, SRSegPlansManager, load_plans
from srseg.preprocessing.simulate import simulate_native

logger = logging.getLogger(__name__)

PREDICTION_RECORD = "predict_from_raw_data_args.json"  # nnU-Net's name for the arguments


@dataclass(frozen=True)
class Context:
    """What is known of the predictions in a folder.

    Attributes:
        dataset_json: labels, channels, file ending.
        reader_writer: reads all files.
        plans_manager: of the predicting model; None for predictions without srseg plans.
        configuration_manager: the one that was predicted with; None without plans.
        recorded_input: the folder of LR images that was predicted from; None if unknown or gone.
    """

    dataset_json: dict[str, Any]
    reader_writer: BaseReaderWriter
    plans_manager: SRSegPlansManager | None = None
    configuration_manager: SRSegConfigurationManager | None = None
    recorded_input: Path | None = None

    @property
    def file_ending(self) -> str:
        """Of all images and label maps, such as ".nii.gz"."""
        return self.dataset_json["file_ending"]

    @cached_property
    def _label_manager(self) -> LabelManager:
        return LabelManager(
            self.dataset_json["labels"], self.dataset_json.get("regions_class_order")
        )

    @property
    def labels(self) -> list[Label]:
        """The foreground labels, or regions where the dataset has them."""
        manager = self._label_manager
        labels = manager.foreground_regions if manager.has_regions else manager.foreground_labels
        return [_plain_label(label) for label in labels]

    @property
    def label_names(self) -> dict[Label, str]:
        """What dataset.json calls each label or region."""
        named = {_plain_label(value): name for name, value in self.dataset_json["labels"].items()}
        return {label: named.get(label, str(label)) for label in self.labels}

    @property
    def ignore_label(self) -> int | None:
        """The label of voxels that nobody annotated."""
        return self._label_manager.ignore_label

    @property
    def scale(self) -> tuple[int, int, int] | None:
        """HR voxels per LR voxel (Z, Y, X) in the reader's order; None without plans."""
        if self.plans_manager is None or self.configuration_manager is None:
            return None
        return self.plans_manager.native(self.configuration_manager.scale_3d)

    @property
    def can_degrade(self) -> bool:
        """Whether LR images can be simulated: not without plans, nor for real pairs."""
        manager = self.configuration_manager
        return manager is not None and not DegradationSpec.from_json(manager.degradation).paired

    def degrade(self, hr_image: np.ndarray, hr_spacing: Sequence[float]) -> np.ndarray:
        """Return the planned degradation of an image (C, Z, Y, X) in the reader's order.

        Args:
            hr_image: edge-padded at the high end where the scale does not divide it.
            hr_spacing: mm (Z, Y, X).
        """
        return simulate_native(
            hr_image, list(hr_spacing), self.plans_manager, self.configuration_manager
        )


def find_context(
    pred_folder: str | Path,
    gt_folder: str | Path,
    *,
    plans_file: str | Path | None = None,
    dataset_json_file: str | Path | None = None,
    configuration: str | None = None,
) -> Context:
    """Return what is known of the predictions in a folder.

    Args:
        pred_folder: what `srseg_predict` wrote, or a model's `fold_k/validation`.
        gt_folder: the references; their dataset's dataset.json serves when no other is found.
        plans_file: srseg plans, where they are not in their places.
        dataset_json_file: dataset.json, where it is not in its places.
        configuration: which one of the plans; by default the one that was predicted with.

    Raises:
        FileNotFoundError: if a named file does not exist, or no dataset.json is found.
        ValueError: if the plans named are not srseg's, or do not say which configuration it was.
    """
    pred_folder, gt_folder = Path(pred_folder), Path(gt_folder)
    model_folder = pred_folder.resolve().parent.parent  # of fold_k/validation
    dataset_file = _named_or_found(
        dataset_json_file,
        [f / "dataset.json" for f in (pred_folder, model_folder, gt_folder.parent)],
    )
    if dataset_file is None:
        raise FileNotFoundError(
            f"no dataset.json in {pred_folder} or beside {gt_folder}; name it by -djfile."
        )
    dataset_json = _load(dataset_file)
    record = _load(pred_folder / PREDICTION_RECORD)
    plans_file_found = _named_or_found(
        plans_file, [f / "plans.json" for f in (pred_folder, model_folder)]
    )
    plans_manager = configuration_manager = None
    if plans_file_found is not None:
        plans_manager = load_plans(plans_file_found)
        model_names = (str(record.get("model_folder", "")), model_folder.name)
        configuration_manager = _configuration_of(
            plans_manager, configuration, model_names, is_named=plans_file is not None
        )
    if configuration_manager is None:
        logger.info("no srseg plans for %s: what needs the scale is left out.", pred_folder)
    return Context(
        dataset_json,
        _reader_writer(plans_manager, dataset_json, gt_folder),
        plans_manager,
        configuration_manager,
        _recorded_input(record),
    )


def _plain_label(label: Any) -> Label:
    return tuple(int(v) for v in label) if isinstance(label, list | tuple) else int(label)


def _named_or_found(named: str | Path | None, places: Sequence[Path]) -> Path | None:
    if named is None:
        return next((place for place in places if place.is_file()), None)
    if not Path(named).is_file():
        raise FileNotFoundError(f"the file '{named}' does not exist.")
    return Path(named)


def _load(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"'{file}' is not valid JSON: {error}.") from error


def _configuration_of(
    plans_manager: SRSegPlansManager,
    configuration: str | None,
    model_names: Sequence[str],
    *,
    is_named: bool,
) -> SRSegConfigurationManager | None:
    """Return the configuration predicted with; None for stock plans that were merely found."""
    if configuration is not None:
        return plans_manager.get_configuration(configuration)
    known = plans_manager.available_configurations
    for name in model_names:  # METHOD__PLANS__CONFIGURATION
        last = Path(name).name.split("__")[-1]
        if last in known:
            return plans_manager.get_configuration(last)
    managers = {}
    for name in known:
        try:
            managers[name] = plans_manager.get_configuration(name)
        except ValueError:
            if is_named:
                raise
    different = {
        (manager.scale_3d, json.dumps(manager.degradation, sort_keys=True))
        for manager in managers.values()
    }
    if len(different) > 1:
        raise ValueError(
            f"the plans do not say which configuration was predicted with; name it by -c; known: "
            f"{', '.join(managers)}."
        )
    return next(iter(managers.values()), None)


def _reader_writer(
    plans_manager: SRSegPlansManager | None, dataset_json: dict[str, Any], gt_folder: Path
) -> BaseReaderWriter:
    if plans_manager is not None:
        return plans_manager.image_reader_writer_class()
    examples = sorted(gt_folder.glob(f"*{dataset_json['file_ending']}"))
    example = str(examples[0]) if examples else None
    return determine_reader_writer_from_dataset_json(dataset_json, example, verbose=False)()


def _recorded_input(record: dict[str, Any]) -> Path | None:
    """Return the input folder of the prediction if it was one and is still there."""
    folder = record.get("inputs")
    return Path(folder) if isinstance(folder, str) and Path(folder).is_dir() else None
