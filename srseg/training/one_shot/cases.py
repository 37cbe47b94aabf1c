"""Which case is the atlas, and whether cases fit into the patch as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from srseg.preprocessing.dataset import SRSegDataset


def chosen_atlas(wanted: str | None, labelled: SRSegDataset, unlabelled: SRSegDataset) -> str:
    """Return the case whose labels a one-shot training uses.

    Args:
        wanted: its name; None for the training case whose size is nearest to the median of the
            cases without labels, of equals the first. No label decides.
        labelled: the fold's training cases.
        unlabelled: the cases without labels.

    Raises:
        ValueError: if it is none of the fold's training cases, or has no labels.
    """
    cases = sorted(labelled.identifiers)
    if wanted is None:
        sizes = {case: np.log(_lr_shape(labelled, case)) for case in cases}
        median = np.median([np.log(_lr_shape(unlabelled, c)) for c in unlabelled.identifiers], 0)
        atlas = min(cases, key=lambda case: float(np.abs(sizes[case] - median).sum()))
    elif wanted in cases:
        atlas = wanted
    else:
        known = ", ".join(cases[:5]) + (" ..." if len(cases) > 5 else "")
        where = "has no labels" if wanted in unlabelled.identifiers else "is no training case"
        raise ValueError(
            f"one_shot.atlas '{wanted}' {where} of this fold; its training cases are: {known}."
        )
    locations = labelled.load_properties(atlas)["class_locations"]
    if not any(len(voxels) for key, voxels in locations.items() if key != -1):
        raise ValueError(f"the atlas {atlas} has no labels but background; name another one.")
    return atlas


def whole_cases(
    dataset: SRSegDataset, lr_patch_size: Sequence[int]
) -> tuple[SRSegDataset, dict[str, tuple[int, ...]]]:
    """Return the cases that fit into the patch, and the LR shapes of those that do not.

    Registration sees whole cases. Plans know the sizes of labelled cases alone, so a few without
    labels may be larger.

    Args:
        dataset: of preprocessed cases.
        lr_patch_size: of the configuration; with two axes a case must be one slice.

    Raises:
        ValueError: if none fits, naming the first case and the size that all need.
    """
    patch = (1, *lr_patch_size)[-3:]
    shapes = {case: _lr_shape(dataset, case) for case in dataset.identifiers}
    larger = {case: shape for case, shape in shapes.items() if np.any(np.greater(shape, patch))}
    if len(larger) == len(shapes):
        first, needed = next(iter(larger)), np.max(list(shapes.values()), axis=0)
        raise ValueError(
            f"case {first} with {shapes[first]} LR voxels is larger than the patch "
            f"{tuple(int(n) for n in patch)}, as are {len(larger)} of {len(shapes)} cases; "
            "one-shot training needs whole cases: use 3d_patchfree, or raise its patch_size in "
            f"the plans to {tuple(int(n) for n in needed)} or more."
        )
    fitting = [case for case in shapes if case not in larger]
    return SRSegDataset(dataset.source_folder, fitting), larger


def _lr_shape(dataset: SRSegDataset, case: str) -> tuple[int, ...]:
    return tuple(int(n) for n in dataset.load_properties(case)["srseg"]["lr_shape"])
