"""What methods read, as files: LR images made once for all, and pairs' HR images on the HR grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from srseg.evaluation.compare.cases import CompareCase
from srseg.evaluation.compare.stamp import files_identity, stamped_folder
from srseg.evaluation.context import Context
from srseg.images.checks import read_images
from srseg.images.properties import refine_properties
from srseg.images.write import write_image
from srseg.preprocessing.case_files import files_by_case
from srseg.preprocessing.paired import onto_grid
from srseg.preprocessing.simulate import Simulation
from srseg.preprocessing.workers import for_each_case


def with_lr_images(
    cases: Sequence[CompareCase], context: Context, folder: Path, num_processes: int
) -> list[CompareCase]:
    """Return the cases with LR images; those that have none get the planned degradation's.

    Args:
        cases: of the comparison.
        context: with plans.
        folder: where simulated LR images go; those that are there and still true stay.
        num_processes: cases at a time.

    Raises:
        RuntimeError: naming the case that failed.
        ValueError: if there are no LR images and none can be simulated.
    """
    wanted = {case.name: case.hr_images for case in cases if not case.lr_images}
    if not wanted:
        return list(cases)
    if not context.can_degrade:
        raise ValueError(f"case {next(iter(wanted))} of a dataset of real pairs has no LR image.")
    manager = context.configuration_manager
    identity = {
        "degradation": manager.degradation,
        "scale": context.scale,
        "files": files_identity(file for files in wanted.values() for file in files),
    }
    stamped_folder(folder, identity)
    made = files_by_case(folder, context.file_ending)
    simulation = Simulation(context.plans_manager, manager, context.dataset_json, folder)
    for_each_case(
        simulation,
        {case: files for case, files in wanted.items() if len(made.get(case, ())) < len(files)},
        num_processes=num_processes,
        description="Simulating LR images",
    )
    made = files_by_case(folder, context.file_ending)
    return [case if case.lr_images else replace(case, lr_images=made[case.name]) for case in cases]


def hr_inputs(
    cases: Sequence[CompareCase], context: Context, folder: Path, num_processes: int
) -> dict[str, tuple[Path, ...]]:
    """Return what networks that read HR images are given, by case, on the common HR grid.

    The raw HR images; those of real pairs, which lie on a grid of their own, are brought onto the
    refined LR grid and written to `folder`, as they were in training.
    """
    if context.can_degrade:
        return {case.name: case.hr_images for case in cases}
    files = [file for case in cases for file in (*case.hr_images, *case.lr_images)]
    stamped_folder(folder, {"files": files_identity(files), "scale": context.scale})
    made = files_by_case(folder, context.file_ending)
    for_each_case(
        _OntoRefinedGrid(context, folder),
        {c.name: c for c in cases if len(made.get(c.name, ())) < len(c.hr_images)},
        num_processes=num_processes,
        description="Moving HR images onto the HR grid",
    )
    return files_by_case(folder, context.file_ending)


@dataclass(frozen=True)
class _OntoRefinedGrid:
    """Writes a pair's HR image on its LR image's refined grid."""

    context: Context
    folder: Path

    def __call__(self, case: CompareCase) -> None:
        reader, scale = self.context.reader_writer, self.context.scale
        lr_image, lr_properties = read_images(reader, case.lr_images)
        hr_image, properties = read_images(reader, case.hr_images)
        refined = refine_properties(lr_properties, scale)
        shape = [n * s for n, s in zip(lr_image.shape[1:], scale, strict=True)]
        what = f"case {case.name}: the HR image"
        resampled, _ = onto_grid(
            hr_image, properties, shape, refined, interpolation="bspline", what=what
        )
        write_image(
            resampled,
            self.folder / case.name,
            refined,
            reader_writer=reader,
            file_ending=self.context.file_ending,
            num_files=len(case.hr_images),
        )
