"""Every level gives the same image; what has no levels stays as it was."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from srseg.images.compression import LEVELS, check_level
from srseg.images.write import write_image, write_segmentation
from tests.images.readers import oblique_direction, write_volume

SHAPE = (7, 12, 9)


def smooth_image() -> np.ndarray:
    """Compressible, and more so at higher levels."""
    z, y, x = np.indices(SHAPE)
    return (z * 3 + y // 2 * 5 + x // 3 * 7).astype(np.int16)


def source(tmp_path, reader, ending):
    file = write_volume(tmp_path / f"in{ending}", smooth_image(), direction=oblique_direction(True))
    return reader().read_images((str(file),))


def content(file):
    """Return the bytes of a NIfTI file behind the compression; else voxels and geometry by ITK."""
    if file.name.endswith(".nii.gz"):
        return gzip.decompress(file.read_bytes())
    image = sitk.ReadImage(str(file))
    geometry = (image.GetOrigin(), image.GetSpacing(), image.GetDirection(), image.GetPixelID())
    return sitk.GetArrayFromImage(image).tobytes(), geometry


@pytest.mark.parametrize(
    ("reader", "ending"),
    [
        (SimpleITKIO, ".nii.gz"),
        (SimpleITKIOWithReorient, ".nii.gz"),
        (NibabelIO, ".nii.gz"),
        (NibabelIOWithReorient, ".nii.gz"),
        (SimpleITKIO, ".nrrd"),
        (SimpleITKIO, ".mha"),
    ],
)
def test_every_level_holds_the_same_and_levels_differ(tmp_path, reader, ending):
    image, properties = source(tmp_path, reader, ending)
    labels = (image[0] > image.mean()).astype(np.uint8)
    sizes = {"image": [], "labels": []}
    contents = {"image": [], "labels": []}
    for level in (None, *LEVELS):
        out = tmp_path / f"level{level}"
        own = {"reader_writer": reader, "compression": level}
        (written,) = write_image(
            image, out / "a", properties, file_ending=ending, reference_dtype=np.int16, **own
        )
        np.testing.assert_array_equal(reader().read_images((str(written),))[0], image)
        both = {"image": written}
        both["labels"] = write_segmentation(labels, out / f"a{ending}", properties, **own)
        assert sorted(out.iterdir()) == sorted(both.values())
        for kind, file in both.items():
            sizes[kind].append(file.stat().st_size)
            contents[kind].append(content(file))
    for kind, of_levels in contents.items():
        assert all(one == of_levels[0] for one in of_levels[1:]), kind
        _, stored, fastest, *_, smallest = sizes[kind]
        assert stored > fastest > smallest or (kind == "labels" and stored > fastest >= smallest)


def test_equal_images_are_equal_files(tmp_path):
    image, properties = source(tmp_path, SimpleITKIO, ".nii.gz")
    own = {"reader_writer": SimpleITKIO, "file_ending": ".nii.gz", "compression": 3}
    first, second = (write_image(image, tmp_path / name, properties, **own)[0] for name in "ab")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("reader", "ending"), [(NibabelIO, ".nii"), (SimpleITKIO, ".gipl"), (Tiff3DIO, ".tif")]
)
def test_formats_without_levels_ignore_them(tmp_path, reader, ending):
    image, properties = smooth_image()[None], {"spacing": [3.0, 2.0, 1.0]}
    if reader is not Tiff3DIO:
        image, properties = source(tmp_path, reader, ".nii")
    files = []
    for level in (None, 0, 9):
        own = {"reader_writer": reader, "compression": level}
        folder = tmp_path / f"level{level}"
        files.append(write_image(image, folder / "a", properties, file_ending=ending, **own)[0])
        write_segmentation(image[0] > 9, folder / f"a{ending}", properties, **own)
    assert len({file.read_bytes() for file in files}) == 1


@pytest.mark.parametrize("level", [-1, 10, 2.5, True, "6"])
def test_other_levels_are_refused(tmp_path, level):
    message = rf"level must be a whole number from 0 \(none\) to 9 \(smallest\), got {level!r}\."
    with pytest.raises(ValueError, match=message):
        check_level(level)
    own = {"reader_writer": Tiff3DIO, "compression": level}
    with pytest.raises(ValueError, match=message):
        write_image(smooth_image()[None], tmp_path / "a", {}, file_ending=".tif", **own)
    with pytest.raises(ValueError, match=message):
        write_segmentation(smooth_image(), tmp_path / "a.tif", {}, **own)
