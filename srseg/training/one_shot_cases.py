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


def check_whole(dataset: SRSegDataset, lr_patch_size: Sequence[int]) -> None:
    """Check that every case fits into the patch: registration sees whole cases.

    Args:
        dataset: of preprocessed cases.
        lr_patch_size: of the configuration; with two axes a case must be one slice.

    Raises:
        ValueError: naming the first case that is larger, and the size that all need.
    """
    patch = (1, *lr_patch_size)[-3:]
    shapes = {case: _lr_shape(dataset, case) for case in dataset.identifiers}
    larger = [case for case, shape in shapes.items() if np.any(np.greater(shape, patch))]
    if larger:
        needed = tuple(int(n) for n in np.max(list(shapes.values()), axis=0))
        raise ValueError(
            f"case {larger[0]} with {shapes[larger[0]]} LR voxels is larger than the patch "
            f"{tuple(int(n) for n in patch)}, as are {len(larger)} of {len(shapes)} cases; "
            "one-shot training needs whole cases: use 3d_patchfree, raise its patch_size in the "
            f"plans to {needed} or more, or leave the cases out."
        )


def _lr_shape(dataset: SRSegDataset, case: str) -> tuple[int, ...]:
    return tuple(int(n) for n in dataset.load_properties(case)["srseg"]["lr_shape"])
