"""Three folders of true pairs, as a user has them: LR, HR and labels of the tiny cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.tiny_dataset import save_volume, tiny_affine, tiny_case

SCALE = (1, 2, 2)


def lr_of(hr_image: np.ndarray) -> np.ndarray:
    """Return block means over `SCALE` of (Z, Y, X); what does not fill a block is cut off."""
    z, y, x = (n // s * s for n, s in zip(hr_image.shape, SCALE, strict=True))
    return hr_image[:z, :y, :x].reshape(z, y // 2, 2, x // 2, 2).mean((2, 4))


def lr_affine(shift_mm: float = 0.0) -> np.ndarray:
    """Return the NIfTI affine of the LR images, moved along x where wished."""
    index = np.diag([*SCALE[::-1], 1.0])
    index[:3, 3] = (np.array(SCALE[::-1]) - 1) / 2
    affine = tiny_affine() @ index
    affine[0, 3] += shift_mm
    return affine


def write_sides(
    root: Path, names: dict[str, int], *, suffix: str = "_0000", shift_mm: float = 0.0
) -> tuple[Path, Path, Path]:
    """Return the folders LR, HR and labels after writing them.

    Args:
        root: where to.
        names: case -> number of the tiny case that it shows.
        suffix: of the images.
        shift_mm: of the LR images along x.
    """
    folders = tuple(root / name for name in ("lr", "hr", "labels"))
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    lr, hr, labels = folders
    for name, number in names.items():
        image, segmentation = tiny_case(number)
        save_volume(lr_of(image), lr / f"{name}{suffix}.nii.gz", lr_affine(shift_mm))
        save_volume(image, hr / f"{name}{suffix}.nii.gz")
        save_volume(segmentation, labels / f"{name}.nii.gz")
    return folders
