"""Rigid alignment of image files, one or folders of them, with what is written of it.

`OUT/<file>` is the moved image, `OUT/labels/<file>` its moved label map. The transform,
`OUT/transforms/<case>.tfm`, maps fixed points to moving ones, as `sitk.Resample` wants it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from srseg.images.align import (
    Points,
    fit_points,
    label_centroids,
    moved_header,
    on_fixed_grid,
    read_landmarks,
    shared_share,
)
from srseg.images.checks import check_nifti
from srseg.images.registration import RegistrationOptions, register
from srseg.images.write import written_beside
from srseg.preprocessing.matching import image_files, match_by_name, missing_cases
from srseg.preprocessing.workers import for_each_case

logger = logging.getLogger(__name__)

LABELS_FOLDER, TRANSFORMS_FOLDER = "labels", "transforms"


@dataclass(frozen=True)
class AlignSides:
    """What is aligned; each a file, or a folder of cases.

    Attributes:
        moving: images to be moved. The first channel decides, all are moved.
        fixed: images that stay; one file is that of all cases.
        labels: label maps of the moving images, to be moved with them.
        moving_landmarks: CSV file, or folder of `<case>.csv`; with `fixed_landmarks`.
        fixed_landmarks: likewise; one file is that of all cases.
        moving_seg: label maps whose centroids are landmarks; with `fixed_seg`.
        fixed_seg: likewise; one file is that of all cases.
    """

    moving: Path
    fixed: Path
    labels: Path | None = None
    moving_landmarks: Path | None = None
    fixed_landmarks: Path | None = None
    moving_seg: Path | None = None
    fixed_seg: Path | None = None


@dataclass(frozen=True)
class AlignTask:
    """The files of one case; `moving` are its channels, the others may be missing."""

    case: str
    moving: tuple[Path, ...]
    fixed: Path
    labels: Path | None = None
    moving_landmarks: Path | None = None
    fixed_landmarks: Path | None = None
    moving_seg: Path | None = None
    fixed_seg: Path | None = None

    @property
    def all_files(self) -> tuple[Path, ...]:
        """All that are read."""
        others = {**vars(self), "moving": None, "case": None}.values()
        return (*self.moving, *(file for file in others if file is not None))


@dataclass(frozen=True)
class Aligned:
    """What came out for one case.

    Attributes:
        angle_deg: of the rotation.
        shift_mm: by which the middle of the fixed image is moved.
        shared: share of the smaller field of view that both images show afterwards.
        quality: in words: the metric, or what is left between landmarks.
    """

    angle_deg: float
    shift_mm: float
    shared: float
    quality: str


@dataclass(frozen=True)
class Alignment:
    """Aligns and writes one case; pickles to a worker.

    Attributes:
        output: folder.
        registration: for cases without landmarks.
        resample: onto the fixed grid, instead of moving the header.
        landmark_space: of CSV files, "lps" or "ras".
    """

    output: Path
    registration: RegistrationOptions = field(default_factory=RegistrationOptions)
    resample: bool = False
    landmark_space: str = "lps"

    def __call__(self, task: AlignTask) -> Aligned:
        """Return what came out; the image is written last, so that a complete case shows.

        Raises:
            ValueError: for files that cannot be read or aligned.
            FileNotFoundError: for a missing file.
        """
        fixed = read_volume(task.fixed)
        channels = {file: read_volume(file) for file in task.moving}
        labels = {file: read_volume(file) for file in [task.labels] if file is not None}
        moving = next(iter(channels.values()))
        transform, quality = self._found(task, fixed, moving)
        shared = shared_share(fixed, moving, transform)
        if shared == 0:
            raise ValueError(
                f"case {task.case}: after the alignment the moving and the fixed image do not "
                f"overlap; check that the landmarks belong to these images."
            )
        with written_beside(self.output / TRANSFORMS_FOLDER) as folder:
            sitk.WriteTransform(transform, str(folder / f"{task.case}.tfm"))
        for images, where in ((labels, LABELS_FOLDER), (channels, "")):
            for file, image in images.items():
                moved = self._moved(image, fixed, transform, is_label=bool(where))
                with written_beside(self.output / where) as folder:
                    sitk.WriteImage(moved, str(folder / file.name), True)
        return Aligned(*_extent(transform, fixed), shared, quality)

    def _found(
        self, task: AlignTask, fixed: sitk.Image, moving: sitk.Image
    ) -> tuple[sitk.Euler3DTransform, str]:
        points = self._points(task)
        if points is None:
            found = register(fixed, moving, self.registration)
            return found.transform, f"{self.registration.metric} {found.metric:.4f}"
        fit = fit_points(*points)
        return fit.transform, f"{fit.num_points} points {fit.rms_mm:.3f} mm apart"

    def _points(self, task: AlignTask) -> tuple[Points, Points] | None:
        """Return fixed and moving landmarks, None where there are none."""
        if task.moving_landmarks is not None:
            files = (task.fixed_landmarks, task.moving_landmarks)
            return tuple(read_landmarks(file, space=self.landmark_space) for file in files)
        if task.moving_seg is not None:
            return tuple(
                label_centroids(read_volume(file)) for file in (task.fixed_seg, task.moving_seg)
            )
        return None

    def _moved(
        self, image: sitk.Image, fixed: sitk.Image, transform: sitk.Transform, *, is_label: bool
    ) -> sitk.Image:
        if self.resample:
            return on_fixed_grid(image, fixed, transform, is_label=is_label)
        return moved_header(image, transform)


def align_files(
    sides: AlignSides,
    alignment: Alignment,
    *,
    num_processes: int = 1,
    show_progress: bool = True,
) -> dict[str, Aligned]:
    """Return what came out for every case, by case.

    Raises:
        FileNotFoundError: if a file or folder does not exist.
        ValueError: if cases do not match, one side of landmarks is missing, or output would
            overwrite input.
        RuntimeError: naming the case that could not be aligned.
    """
    tasks = find_tasks(sides)
    taken = {file.resolve() for task in tasks.values() for file in task.all_files}
    for task in tasks.values():
        written = [alignment.output / file.name for file in task.moving]
        written += [alignment.output / LABELS_FOLDER / f.name for f in [task.labels] if f]
        for file in written:
            if file.resolve() in taken:
                raise ValueError(f"{file} is an input; choose another output folder.")
    return for_each_case(
        alignment,
        tasks,
        num_processes=num_processes,
        show_progress=show_progress,
        description="Aligning",
    )


def find_tasks(sides: AlignSides) -> dict[str, AlignTask]:
    """Return the files of every case, by case, sorted.

    Cases of folders go by name; a file beside a folder of moving images serves all cases.

    Raises:
        FileNotFoundError: if a file or folder does not exist.
        ValueError: if a case lacks a side, landmarks are given for one side only, or a moving
            image's own side is a single file for a folder.
    """
    given = {name: path for name, path in vars(sides).items() if path is not None}
    for path in given.values():
        if not path.exists():
            raise FileNotFoundError(f"'{path}' does not exist.")
    for kind in ("landmarks", "seg"):
        if (f"moving_{kind}" in given) != (f"fixed_{kind}" in given):
            raise ValueError(f"-moving_{kind} and -fixed_{kind} go together.")
    if "moving_landmarks" in given and "moving_seg" in given:
        raise ValueError("landmarks come from CSV files or from label maps, not from both.")
    is_folder = sides.moving.is_dir()
    for name, path in given.items():
        if path.is_dir() and not is_folder:
            raise ValueError(f"-{name} {path} is a folder, but -moving is one file.")
        if is_folder and not path.is_dir() and not name.startswith("fixed"):
            raise ValueError(f"-moving is a folder, so -{name} must be one, got the file {path}.")
    if not is_folder:
        (case,) = match_by_name({"moving": [sides.moving]})["moving"]
        return {case: AlignTask(case, **(given | {"moving": (sides.moving,)}))}
    return _tasks_of_folders(given)


def _tasks_of_folders(given: Mapping[str, Path]) -> dict[str, AlignTask]:
    points = {name: path for name, path in given.items() if name.endswith("landmarks")}
    folders = {n: path for n, path in given.items() if path.is_dir() and n not in points}
    found = match_by_name({name: image_files(path) for name, path in folders.items()})
    cases = sorted(found["moving"])
    known = {name: {c: f for c, f in some.items() if c in cases} for name, some in found.items()}
    for name, path in points.items():
        if path.is_dir():
            files = {case: path / f"{case}.csv" for case in cases}
            known[name] = {case: (file,) for case, file in files.items() if file.is_file()}
    missing = missing_cases(known)
    if missing:
        raise ValueError(f"cases are not complete: {missing}.")
    shared = {name: path for name, path in given.items() if not path.is_dir()}
    tasks = {}
    for case in cases:
        own = {name: files[case][0] for name, files in known.items()}
        tasks[case] = AlignTask(case, **(shared | own | {"moving": known["moving"][case]}))
    return tasks


def read_volume(file: Path) -> sitk.Image:
    """Return a 3-D image of one component.

    Raises:
        ValueError: if it cannot be read, is truncated, holds NaN, or is something else.
    """
    check_nifti(file)
    try:
        image = sitk.ReadImage(str(file))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot read '{file}' ({reason[-200:]}).") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ValueError(
            f"'{file}' must be a 3-D image of one channel to be aligned, got "
            f"{image.GetDimension()} dimension(s) and {image.GetNumberOfComponentsPerPixel()} "
            f"component(s)."
        )
    return image


def _extent(transform: sitk.Euler3DTransform, fixed: sitk.Image) -> tuple[float, float]:
    """Return angle in degrees and shift of the fixed image's middle in mm."""
    rotation = np.reshape(transform.GetMatrix(), (3, 3))
    cosine = np.clip((np.trace(rotation) - 1) / 2, -1, 1)
    middle = [(n - 1) / 2 for n in fixed.GetSize()]
    point = fixed.TransformContinuousIndexToPhysicalPoint(middle)
    shift_mm = np.linalg.norm(np.subtract(transform.TransformPoint(point), point))
    return float(np.degrees(np.arccos(cosine))), float(shift_mm)
