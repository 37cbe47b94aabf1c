"""Each kind of bad input gets its own sentence, which names the case."""

from __future__ import annotations

import gzip
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from skimage import io

from srseg.geometry.grid import Grid
from srseg.images.checks import (
    case_name,
    check_case,
    describe_grid,
    grid_difference,
    read_images,
    read_segmentation,
)
from srseg.images.labels import declared_labels
from tests.images.readers import (
    ORIGIN_XYZ,
    SHAPE,
    SPACING,
    VOLUME_READERS,
    oblique_direction,
    write_volume,
)

GRID = Grid(SHAPE, SPACING, ORIGIN_XYZ, tuple(oblique_direction().ravel()))


def noise(shape=SHAPE, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


@pytest.fixture
def case(tmp_path):
    """Return the arguments of a good case: image, properties, files, and its label map."""
    file = write_volume(tmp_path / "patient_01_0000.nii.gz", noise())
    label_file = write_volume(tmp_path / "patient_01.nii.gz", (noise() > 0).astype(np.uint8))
    image, properties = read_images(SimpleITKIO(), [file])
    return image, properties, [file], read_segmentation(SimpleITKIO(), label_file)


def test_a_good_case_passes(case):
    image, properties, files, segmentation = case
    check_case(
        image,
        properties,
        files,
        num_channels=1,
        scale=(5, 8, 7),
        segmentation=segmentation,
        labels={0, 1, 2},
    )


@pytest.mark.parametrize("reader", VOLUME_READERS)
def test_reading_is_the_stock_readers_own(tmp_path, reader):
    files = [write_volume(tmp_path / f"a_000{c}.nii.gz", noise(seed=c)) for c in (0, 1)]
    image, properties = read_images(reader(), files)
    expected, expected_properties = reader().read_images([str(f) for f in files])
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_equal(properties, expected_properties)


@pytest.mark.parametrize(
    ("file", "has_channel", "expected"),
    [
        ("a/BRATS_001_0000.nii.gz", True, "BRATS_001"),
        ("img-11_0002.png", True, "img-11"),
        ("case_1234.nii.gz", False, "case_1234"),
        ("p.1_0000.nrrd", True, "p.1"),
    ],
)
def test_case_names(file, has_channel, expected):
    assert case_name(file, has_channel=has_channel) == expected


def test_missing_channel(case, tmp_path):
    files = [*case[2], tmp_path / "patient_01_0001.nii.gz"]
    with pytest.raises(FileNotFoundError, match=r"case patient_01: the channel file .*_0001"):
        read_images(SimpleITKIO(), files)
    with pytest.raises(FileNotFoundError, match=r"case patient_02: the label file"):
        read_segmentation(SimpleITKIO(), tmp_path / "patient_02.nii.gz")
    with pytest.raises(ValueError, match="at least one image file, got none"):
        read_images(SimpleITKIO(), [])


def test_wrong_number_of_channels(case):
    with pytest.raises(ValueError, match=r"case patient_01 has 1 channel\(s\), but .* declares 2"):
        check_case(*case[:3], num_channels=2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers(case, value):
    image = case[0].copy()
    image[0, 1, 2, 3:5] = value
    with pytest.raises(ValueError, match="case patient_01: 'patient_01_0000.nii.gz' holds 2 NaN"):
        check_case(image, *case[1:3], num_channels=1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("reader", VOLUME_READERS)
def test_voxels_in_a_file_that_are_no_numbers(tmp_path, reader, value):
    volume = noise().astype(np.float32)
    volume[1, 2, 3] = value  # ITK reads a 0 there
    file = write_volume(tmp_path / "a_0000.nii.gz", volume)
    with pytest.raises(ValueError, match=r"case a: 'a_0000.nii.gz' holds 1 NaN or infinite"):
        check_case(*read_images(reader(), [file]), [file], num_channels=1)


def test_label_map_that_holds_no_number(tmp_path):
    volume = np.zeros((5, 8, 7), np.float32)
    volume[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"case a: 'a.nii.gz' holds 1 NaN or infinite"):
        read_segmentation(SimpleITKIO(), write_volume(tmp_path / "a.nii.gz", volume))


def test_image_smaller_than_the_scale(case):
    with pytest.raises(
        ValueError, match="case patient_01: .* 5x8x7 .* smaller than the scale 6x1x"
    ):
        check_case(*case[:3], num_channels=1, scale=(6, 1, 1))


def test_undeclared_labels(case):
    image, properties, files, (segmentation, label_properties) = case
    segmentation = segmentation.copy()
    segmentation[0, 0, 0, :2] = 7, 2.5
    with pytest.raises(ValueError, match=r"case patient_01: .* 2.5, 7, which .*; declared: 0, 1\."):
        check_case(
            image,
            properties,
            files,
            num_channels=1,
            segmentation=(segmentation, label_properties),
            labels={0, 1},
        )


def test_labels_of_regions_and_ignore_are_declared():
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "edge": 5, "ignore": 6}
    assert declared_labels({"labels": labels}) == {0, 1, 2, 3, 5, 6}


DIFFERENT = [
    ({"array": noise((5, 8, 6))}, "shape 5x8x7 against 5x8x6 voxels"),
    ({"spacing_xyz": (0.5, 0.8, 4.0)}, "spacing 4x0.75x0.5 against 4x0.8x0.5 mm"),
    ({"origin_xyz": (10.0, -20.0, 30.6)}, r"origin \(x, y, z\) \(10, -20, 30.5\) against"),
    ({"direction": np.eye(3)}, r"direction \(0.*\) against \(1, 0, 0, 0, 1, 0, 0, 0, 1\)"),
]


def other_file(file, *, array=None, spacing_xyz=None, origin_xyz=ORIGIN_XYZ, direction=None):
    write_volume(file, noise() if array is None else array, direction=direction)
    image = sitk.ReadImage(str(file))
    image.SetOrigin(origin_xyz)
    image.SetSpacing(spacing_xyz or SPACING[::-1])
    sitk.WriteImage(image, str(file))
    return file


@pytest.mark.parametrize(("change", "message"), DIFFERENT)
@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO])
def test_image_and_label_on_different_grids(tmp_path, reader, change, message):
    file = write_volume(tmp_path / "p_0000.nii.gz", noise())
    label_file = other_file(tmp_path / "p.nii.gz", **change)
    image, properties = read_images(reader(), [file])
    if "origin" in message and reader is NibabelIO:
        assert grid_difference(GRID, replace(GRID, origin_xyz=(10.0, -20.0, 30.6)))
    with pytest.raises(ValueError, match=f"case p: image and label .* grids: .*{message}"):
        check_case(
            image,
            properties,
            [file],
            num_channels=1,
            segmentation=read_segmentation(reader(), label_file),
        )


@pytest.mark.parametrize(("change", "message"), DIFFERENT)
def test_channels_on_different_grids(tmp_path, change, message):
    files = [write_volume(tmp_path / "p_0000.nii.gz", noise())]
    files.append(other_file(tmp_path / "p_0001.nii.gz", **change))
    with pytest.raises(ValueError, match=f"case p: channels .*_0000.* and .*_0001.*: .*{message}"):
        read_images(SimpleITKIO(), files)


def test_pictures_of_different_size(tmp_path):
    for name, shape in (("a_0000.png", (6, 5)), ("a_0001.png", (6, 4))):
        io.imsave(tmp_path / name, np.zeros(shape, np.uint8), check_contrast=False)
    with pytest.raises(ValueError, match="case a: channels .* shape 1x6x5 against 1x6x4"):
        read_images(NaturalImage2DIO(), [tmp_path / "a_0000.png", tmp_path / "a_0001.png"])


def test_rounding_in_headers_is_no_difference():
    """float32 headers and tools that round to 1e-4 put voxels in the same place."""
    near = replace(
        GRID,
        spacing=tuple(np.float32(mm) * 1.0001 for mm in GRID.spacing),
        origin_xyz=tuple(o + 0.01 for o in GRID.origin_xyz),
    )
    assert grid_difference(GRID, near) is None


def test_a_small_tilt_counts_on_a_large_volume_only():
    tilted = np.array([[1, -4e-4, 0], [4e-4, 1, 0], [0, 0, 1]])
    small = Grid((5, 8, 7), (1.0, 1.0, 1.0))
    large = replace(small, shape=(50, 800, 700))
    direction = tuple(float(v) for v in tilted.ravel())
    assert grid_difference(small, replace(small, direction_xyz=direction)) is None
    assert grid_difference(large, replace(large, direction_xyz=direction))


def test_a_grid_in_words():
    words = describe_grid(Grid((5, 8, 7), (4.0, 0.75, 0.5), ORIGIN_XYZ))
    assert words == (
        "5x8x7 voxels (Z, Y, X) of 4x0.75x0.5 mm, origin (x, y, z) (10, -20, 30.5) mm, "
        "direction (1, 0, 0, 0, 1, 0, 0, 0, 1)"
    )


def volume_file(tmp_path, ending):
    if ending == ".tif":
        tifffile.imwrite(tmp_path / "p_0000.tif", noise((20, 30, 40)), compression="zlib")
        return tmp_path / "p_0000.tif"
    if ending == ".png":
        picture = np.random.default_rng(0).integers(0, 256, (30, 40)).astype(np.uint8)
        io.imsave(tmp_path / "p_0000.png", picture)
        return tmp_path / "p_0000.png"
    return write_volume(tmp_path / f"p_0000{ending}", noise((20, 30, 40)))


@pytest.mark.parametrize("damage", ["half", "foreign", "empty"])
@pytest.mark.parametrize(
    ("reader", "ending"),
    [
        (SimpleITKIO, ".nii.gz"),  # ITK itself would fill what is missing with zeros
        (SimpleITKIO, ".nii"),
        (SimpleITKIO, ".nrrd"),
        (SimpleITKIO, ".mha"),
        (NibabelIO, ".nii.gz"),
        (NibabelIO, ".nii"),
        (Tiff3DIO, ".tif"),
        (NaturalImage2DIO, ".png"),
    ],
)
def test_corrupt_files(tmp_path, reader, ending, damage):
    file = volume_file(tmp_path, ending)
    good = file.read_bytes()
    damaged = {"half": good[: len(good) // 2], "foreign": b"hello " * 100, "empty": b""}[damage]
    file.write_bytes(damaged)
    with pytest.raises(ValueError, match="case p: cannot read '.*p_0000.*', which may be corrupt"):
        read_images(reader(), [file])
    label_file = tmp_path / f"p{ending}"
    label_file.write_bytes(damaged)
    with pytest.raises(ValueError, match="case p: cannot read '.*', which may be corrupt"):
        read_segmentation(reader(), label_file)


def test_nifti_in_several_gzip_members_is_complete(tmp_path):
    """Parallel compressors write members; the last one's size says nothing of the whole."""
    write_volume(tmp_path / "p.nii", noise((20, 30, 40)))
    data = (tmp_path / "p.nii").read_bytes()
    middle = len(data) // 2
    joined = tmp_path / "p_0000.nii.gz"
    joined.write_bytes(gzip.compress(data[:middle]) + gzip.compress(data[middle:]))
    image, _ = read_images(SimpleITKIO(), [joined])
    np.testing.assert_array_equal(image[0], noise((20, 30, 40)))
    joined.write_bytes(gzip.compress(data[:middle]))  # a whole member, but half the data
    with pytest.raises(ValueError, match=r"corrupt or truncated \(\d+ of 96352 bytes are there\)"):
        read_images(SimpleITKIO(), [joined])


def test_four_dimensional_files(tmp_path):
    stack = sitk.JoinSeries([sitk.GetImageFromArray(noise()) for _ in range(3)])
    sitk.WriteImage(stack, str(tmp_path / "p_0000.nii.gz"))
    with pytest.raises(ValueError, match="case p: .* is a 4-D image; store each channel"):
        read_images(SimpleITKIO(), [tmp_path / "p_0000.nii.gz"])
