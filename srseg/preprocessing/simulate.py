"""LR files from HR files, by the planned degradation, for tests of a trained model.

A simulated file is what training saw as LR: the same edge padding, the same operator on the native
grid. Its geometry is the coarser grid's, so predictions lie where the HR image does.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srseg.geometry.grid import pad_to_multiple
from srseg.images.checks import check_case, read_images, read_segmentation
from srseg.images.properties import coarsen_properties
from srseg.images.write import stored_dtypes, write_image, write_segmentation
from srseg.plans.managers import SRSegConfigurationManager, SRSegPlansManager
from srseg.preprocessing.case_files import files_by_case
from srseg.preprocessing.training_case import simulate_lr
from srseg.preprocessing.workers import for_each_case

logger = logging.getLogger(__name__)

LABELS_FOLDER = "labels_hr"


@dataclass(frozen=True)
class Simulation:
    """What `srseg_simulate` does to every case of a folder.

    Attributes:
        plans_manager: for reader and axis order.
        configuration_manager: for degradation and scale.
        dataset_json: for file ending and channels.
        output_folder: where LR images go, under the names of the HR images.
        labels_folder: label maps on the HR images' grids, to be padded to the predicted grid; None
            for none.
        labels_output_folder: where those go.
    """

    plans_manager: SRSegPlansManager
    configuration_manager: SRSegConfigurationManager
    dataset_json: dict[str, Any]
    output_folder: Path
    labels_folder: Path | None = None
    labels_output_folder: Path | None = None

    def __call__(self, files: tuple[Path, ...]) -> None:
        """Write the LR image (and the padded labels) of one case.

        Raises:
            ValueError: in one sentence that names the case, for files that cannot be used.
            FileNotFoundError: if the case has no label file.
        """
        reader = self.plans_manager.image_reader_writer_class()
        scale = self.plans_manager.native(self.configuration_manager.scale_3d)
        ending = self.dataset_json["file_ending"]
        case = _case_of(files[0], ending)
        image, properties = read_images(reader, files)
        num_channels = len(self.dataset_json["channel_names"])
        check_case(image, properties, files, num_channels=num_channels, scale=scale)
        labels = self._padded_labels(reader, image, properties, files)

        lr_image = simulate_native(
            image, properties["spacing"], self.plans_manager, self.configuration_manager
        )
        write_image(
            lr_image,
            self.output_folder / case,
            coarsen_properties(properties, scale),
            reader_writer=reader,
            file_ending=ending,
            reference_dtype=_fitting_dtypes(lr_image, files),
            num_files=len(files),
        )
        if labels is not None:
            write_segmentation(
                labels[0],
                self.labels_output_folder / f"{case}{ending}",
                labels[1],
                reader_writer=reader,
            )

    def _padded_labels(
        self, reader: Any, image: np.ndarray, properties: dict[str, Any], files: tuple[Path, ...]
    ) -> tuple[np.ndarray, dict[str, Any]] | None:
        """Return labels (1, Z, Y, X) on the grid a prediction will have, and their properties."""
        if self.labels_folder is None:
            return None
        ending = self.dataset_json["file_ending"]
        file = self.labels_folder / f"{_case_of(files[0], ending)}{ending}"
        labels, label_properties = read_segmentation(reader, file)
        check_case(
            image, properties, files, num_channels=len(image),
            segmentation=(labels, label_properties),
        )  # fmt: skip
        scale = self.plans_manager.native(self.configuration_manager.scale_3d)
        return pad_to_multiple(labels, scale), label_properties


def simulate_native(
    hr_image: np.ndarray,
    hr_spacing: list[float],
    plans_manager: SRSegPlansManager,
    configuration_manager: SRSegConfigurationManager,
) -> np.ndarray:
    """Return the planned degradation of an image in the reader's axis order, float32.

    Args:
        hr_image: (C, Z, Y, X) raw; edge-padded to a multiple of the scale.
        hr_spacing: native, mm.
        plans_manager: for the axis order.
        configuration_manager: for degradation and scale.
    """
    forward = [0, *(axis + 1 for axis in plans_manager.transpose_forward)]
    backward = [0, *(axis + 1 for axis in plans_manager.transpose_backward)]
    planned = pad_to_multiple(hr_image.transpose(forward), configuration_manager.scale_3d)
    lr_image = simulate_lr(planned, plans_manager.planned(hr_spacing), configuration_manager)
    return np.ascontiguousarray(lr_image.transpose(backward))


def simulate_folder(
    hr_folder: Path, simulation: Simulation, *, num_processes: int, show_progress: bool = True
) -> int:
    """Return how many cases of a folder were simulated.

    Raises:
        FileNotFoundError: if the folder does not exist or holds no case.
        ValueError: if output would overwrite input.
        RuntimeError: naming the case that failed.
    """
    ending = simulation.dataset_json["file_ending"]
    cases = files_by_case(hr_folder, ending)
    if not cases:
        raise FileNotFoundError(f"{hr_folder} has no files named <case>_0000{ending}.")
    outputs = (simulation.output_folder, simulation.labels_output_folder)
    inputs = (hr_folder, simulation.labels_folder)
    for output in outputs:
        if output is None:
            continue
        if any(given is not None and output.resolve() == given.resolve() for given in inputs):
            raise ValueError(f"the output folder {output} is an input folder; choose another one.")
    for output in outputs:
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
    for_each_case(
        simulation,
        cases,
        num_processes=num_processes,
        show_progress=show_progress,
        description="Simulating LR images",
    )
    return len(cases)


def _case_of(file: Path, ending: str) -> str:
    return file.name.removesuffix(ending)[: -len("_0000")]


def _fitting_dtypes(lr_image: np.ndarray, hr_files: tuple[Path, ...]) -> list[np.dtype | None]:
    """Return per channel its HR file's integer dtype where the LR values are whole, else None."""
    # PNG and BMP hold nothing else: write_image rounds to what the HR file has
    is_rounded = hr_files[0].suffix.lower() in (".png", ".bmp")
    return [
        stored if is_rounded or (stored.kind in "iu" and _is_whole(channel)) else None
        for channel, stored in zip(lr_image, stored_dtypes(hr_files, len(lr_image)), strict=True)
    ]


def _is_whole(values: np.ndarray) -> bool:
    return np.array_equal(values, np.rint(values))
