"""The preprocessor: nnU-Net's interface, LR/HR/mask triplets for training, LR images for use."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from srseg import environment
from srseg.images.checks import check_case, read_images
from srseg.images.write import stored_dtypes
from srseg.plans.datasets import dataset_name
from srseg.plans.managers import SRSegConfigurationManager, SRSegPlansManager, load_plans
from srseg.preprocessing.case_files import CaseFiles, most_voxels, training_files, unlabelled_files
from srseg.preprocessing.dataset import (
    UNLABELLED_FOLDER,
    SRSegDataset,
    remove_training_case,
    save_training_case,
)
from srseg.preprocessing.lr_case import NATIVE_LR, prepare_lr, stored_frame
from srseg.preprocessing.raw_cases import RawCase, read_raw_case
from srseg.preprocessing.resampling import resample_segmentation
from srseg.preprocessing.resume import inputs_of, missing_cases, remove_temporaries
from srseg.preprocessing.training_case import TrainingCase, training_case
from srseg.preprocessing.workers import for_each_case

logger = logging.getLogger(__name__)

_BASE_BYTES = 400 * 2**20  # a process with torch in it
# images are held about six times in float32 at the peak; labels with their locations cost as
# much as three images
_BYTES_PER_VALUE, _BYTES_PER_LABEL = 24, 80


class SRSegPreprocessor(DefaultPreprocessor):
    """nnU-Net's preprocessor for two grids.

    `run` makes a training set, `run_case` without a label file prepares an LR file for the
    network.
    """

    def __init__(self, verbose: bool = False) -> None:
        super().__init__(verbose)

    def run(
        self,
        dataset_name_or_id: int | str,
        configuration_name: str,
        plans_identifier: str,
        num_processes: int | None = None,
        *,
        clean: bool = False,
    ) -> None:
        """Preprocess the cases of a dataset that are not yet done, those without labels too.

        Args:
            dataset_name_or_id: a dataset in nnUNet_raw with plans in nnUNet_preprocessed.
            configuration_name: of the plans.
            plans_identifier: the plans file's name without ending.
            num_processes: at most; fewer where memory is short; None takes the cores there are.
            clean: make all cases anew, from whatever inputs the folder was made.

        Raises:
            ValueError: for an unknown dataset or configuration, if the folder was made from
                other inputs, or if a case without labels is misnamed.
            FileNotFoundError: if plans or raw files are missing.
            RuntimeError: naming the case that failed.
        """
        raw_root = environment.required_folder("nnUNet_raw")
        name = dataset_name(dataset_name_or_id, raw_root)
        preprocessed = environment.required_folder("nnUNet_preprocessed") / name
        plans_manager = load_plans(preprocessed / f"{plans_identifier}.json")
        configuration_manager = plans_manager.get_configuration(configuration_name)
        dataset_json = load_json(str(preprocessed / "dataset.json"))
        cases = training_files(raw_root / name, dataset_json)
        unlabelled = unlabelled_files(raw_root / name, dataset_json, cases)

        folder = preprocessed / configuration_manager.data_identifier
        if clean and folder.is_dir():
            shutil.rmtree(folder)
        _remove_labelled(folder / UNLABELLED_FOLDER, cases)
        work = _CaseWork(self, folder, plans_manager, configuration_manager, dataset_json)
        num_bytes = peak_bytes(
            preprocessed / "dataset_fingerprint.json", plans_manager, configuration_manager
        )
        foreground = self._make_missing(work, cases, num_bytes, num_processes)
        empty = [case for case, has_foreground in foreground.items() if not has_foreground]
        if empty:
            logger.warning("no foreground in: %s; kept for training.", ", ".join(sorted(empty)))
        work = replace(work, folder=folder / UNLABELLED_FOLDER)
        if unlabelled:
            # the fingerprint does not know how large they are
            num_bytes = int(
                num_bytes * max(1, most_voxels(unlabelled.values()) / most_voxels(cases.values()))
            )
        if unlabelled or work.folder.is_dir():
            self._make_missing(work, unlabelled, num_bytes, num_processes)

    def _make_missing(
        self,
        work: _CaseWork,
        cases: Mapping[str, CaseFiles],
        num_bytes: int,
        num_processes: int | None,
    ) -> dict[str, bool]:
        """Do the work on the cases that are not yet in its folder; return its results by case.

        Args:
            work: on a case.
            cases: all that belong into the folder.
            num_bytes: that one process may take.
            num_processes: at most; fewer where memory is short; None takes the cores there are.
        """
        inputs = inputs_of(work.plans_manager, work.configuration_manager, work.dataset_json, cases)
        missing = missing_cases(work.folder, inputs, list(cases))
        kind = "unlabelled cases" if work.folder.name == UNLABELLED_FOLDER else "cases"
        if len(missing) < len(cases):
            done = len(cases) - len(missing)
            logger.info("%d of %d %s are done, %d to go.", done, len(cases), kind, len(missing))
        try:
            return for_each_case(
                work,
                {case: cases[case] for case in missing},
                num_processes=environment.worker_count(num_bytes, num_processes),
                show_progress=self.show_progress_bar,
                description=f"Preprocessing {kind}",
            )
        finally:
            remove_temporaries(work.folder)

    def run_case_save(
        self,
        output_filename_truncated: str,
        image_files: Sequence[str],
        seg_file: str,
        plans_manager: SRSegPlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: dict | str,
    ) -> None:
        """Write the triplet of one training case, as nnU-Net's workers call it."""
        target = Path(output_filename_truncated)
        files = CaseFiles(target.name, tuple(Path(f) for f in image_files), Path(seg_file))
        self.save_files(
            files, target.parent, plans_manager, configuration_manager, _loaded(dataset_json)
        )

    def save_files(
        self,
        files: CaseFiles,
        folder: Path,
        plans_manager: SRSegPlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: Mapping[str, Any],
    ) -> TrainingCase:
        """Return the triplet of one training case after writing it into `folder`."""
        configuration_manager = _ours(configuration_manager)
        raw = read_raw_case(files, plans_manager, configuration_manager, dataset_json)
        labels = plans_manager.get_label_manager(dataset_json)
        case = training_case(raw, plans_manager, configuration_manager, labels)
        save_training_case(
            case,
            folder,
            files.case,
            patch_size=configuration_manager.patch_size,
            hr_patch_size=configuration_manager.hr_patch_size,
        )
        return case

    def run_case(
        self,
        image_files: Sequence[str],
        seg_file: str | None,
        plans_manager: SRSegPlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: dict | str,
    ) -> tuple[np.ndarray, np.ndarray, dict]:
        """Return image, segmentation and properties of one case from its files.

        Without a label file the images are LR images to be predicted: see `run_case_npy`. With one
        they are HR images of a training case.

        Raises:
            ValueError: in one sentence that names the case, for files that cannot be used.
        """
        dataset_json = _loaded(dataset_json)
        if seg_file is not None:
            files = CaseFiles("", tuple(Path(f) for f in image_files), Path(seg_file))
            raw = read_raw_case(files, plans_manager, _ours(configuration_manager), dataset_json)
            return self._hr_case(raw, plans_manager, configuration_manager, dataset_json)
        reader = plans_manager.image_reader_writer_class()
        image, properties = read_images(reader, image_files)
        num_channels = len(dataset_json["channel_names"])
        check_case(image, properties, image_files, num_channels=num_channels)
        dtypes = [str(dtype) for dtype in stored_dtypes(image_files, num_channels)]
        return self._lr_case(image, properties, dtypes, plans_manager, configuration_manager)

    def run_case_npy(
        self,
        data: np.ndarray,
        seg: np.ndarray | None,
        properties: dict,
        plans_manager: SRSegPlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: dict | str,
    ) -> tuple[np.ndarray, np.ndarray, dict]:
        """Return image, segmentation and properties of one case from arrays in reader order.

        Without `seg`, `data` (C, z, y, x) is an LR image: it is cropped, normalised and resampled
        to the plan's LR spacing; the properties are LR-native, the segmentation marks the outside
        of the non-zero mask with -1. With `seg`, `data` (C, Z, Y, X) is the HR image of a training
        case, and HR image, HR labels and HR-native properties come back.
        """
        dataset_json = _loaded(dataset_json)
        dtypes = [str(data.dtype)] * len(data)
        if seg is None:
            return self._lr_case(data, properties, dtypes, plans_manager, configuration_manager)
        raw = RawCase(data, seg, properties, dtypes)
        return self._hr_case(raw, plans_manager, configuration_manager, dataset_json)

    @staticmethod
    def _hr_case(
        raw: RawCase,
        plans_manager: SRSegPlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: Mapping[str, Any],
    ) -> tuple[np.ndarray, np.ndarray, dict]:
        labels = plans_manager.get_label_manager(dataset_json)
        case = training_case(raw, plans_manager, _ours(configuration_manager), labels)
        return case.hr_image, case.hr_seg, case.properties

    @staticmethod
    def _lr_case(
        lr_image: np.ndarray,
        properties: Mapping[str, Any],
        dtypes: Sequence[str],
        plans_manager: SRSegPlansManager,
        configuration_manager: ConfigurationManager,
    ) -> tuple[np.ndarray, np.ndarray, dict]:
        configuration_manager = _ours(configuration_manager)
        order = plans_manager.transpose_forward
        lr_image = lr_image.astype(np.float32).transpose([0, *(axis + 1 for axis in order)])
        spacing = plans_manager.planned(properties["spacing"])
        case = prepare_lr(lr_image, spacing, plans_manager, configuration_manager)
        properties = {
            **properties,
            "spacing": [float(mm) for mm in properties["spacing"]],
            "shape_before_cropping": case.native_shape,
            "bbox_used_for_cropping": case.box,
            "shape_after_cropping_and_before_resampling": case.cropped_shape,
            "srseg": stored_frame(case, configuration_manager.scale_3d, dtypes),
        }
        if case.shape != case.cropped_shape:  # the way back starts from what was measured
            properties["srseg"][NATIVE_LR] = case.native
        return case.image, resample_segmentation(case.nonzero, case.shape), properties


@dataclass(frozen=True)
class _CaseWork:
    """The work on one case, in a form that pickles to a worker."""

    preprocessor: SRSegPreprocessor
    folder: Path
    plans_manager: SRSegPlansManager
    configuration_manager: SRSegConfigurationManager
    dataset_json: dict

    def __call__(self, files: CaseFiles) -> bool:
        """Return whether the case, now written, has any foreground."""
        case = self.preprocessor.save_files(
            files, self.folder, self.plans_manager, self.configuration_manager, self.dataset_json
        )
        return bool((case.hr_seg > 0).any())


def _remove_labelled(folder: Path, labelled: Collection[str]) -> None:
    """Remove the cases of `folder`, that of unlabelled ones, which have got labels since."""
    for case in sorted(set(SRSegDataset.get_identifiers(folder)) & set(labelled)):
        logger.info("case %s has labels now; removed from %s.", case, folder)
        remove_training_case(folder, case)


def peak_bytes(
    fingerprint_file: Path,
    plans_manager: SRSegPlansManager,
    configuration_manager: SRSegConfigurationManager,
) -> int:
    """Return about how much memory the largest case takes at its peak, from the fingerprint.

    Without a fingerprint the median case of the plans is taken twice.
    """
    target_mm3 = float(np.prod(configuration_manager.hr_spacing))
    if fingerprint_file.is_file():
        fingerprint = json.loads(fingerprint_file.read_text(encoding="utf-8"))
        native = np.prod(fingerprint["shapes_after_crop"], axis=1)
        # a 2d configuration keeps the slices, so only in-plane spacing counts there
        used = plans_manager.planned(range(3))[-len(configuration_manager.hr_spacing) :]
        mm3 = np.prod(np.asarray(fingerprint["spacings"])[:, list(used)], axis=1)
        voxels = float(np.max(native * np.maximum(1, mm3 / target_mm3)))
    else:
        lr_voxels = np.prod(configuration_manager.median_image_size_in_voxels)
        voxels = 2.0 * float(lr_voxels * np.prod(configuration_manager.scale_3d))
    num_channels = len(configuration_manager.normalization_schemes)
    return int(_BASE_BYTES + voxels * (_BYTES_PER_VALUE * num_channels + _BYTES_PER_LABEL))


def _ours(configuration_manager: ConfigurationManager) -> SRSegConfigurationManager:
    """Return the manager as ours: nnU-Net's own driver passes its own."""
    if isinstance(configuration_manager, SRSegConfigurationManager):
        return configuration_manager
    return SRSegConfigurationManager(configuration_manager.configuration)


def _loaded(dataset_json: dict | str) -> dict:
    return load_json(dataset_json) if isinstance(dataset_json, str) else dataset_json
