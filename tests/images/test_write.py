"""What is written is read back by the same reader: values, geometry, dtype; and never half."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from skimage import io

from srseg.images.properties import grid_of, refine_properties
from srseg.images.write import stored_dtype, stored_dtypes, write_image, write_segmentation
from tests.images.readers import SCALES, SHAPE, VOLUME_READERS, oblique_direction, write_volume


def random_image(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 50, shape).astype(np.float32)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("reader", VOLUME_READERS)
def test_world_ramp_survives_refining_and_writing(tmp_path, reader, scale):
    """Each channel holds a world coordinate: read back, voxels lie where their values say."""
    lr_file = write_volume(
        tmp_path / "lr.nii.gz", np.zeros(SHAPE, np.float32), direction=oblique_direction(True)
    )
    image, properties = reader().read_images((str(lr_file),))
    hr_grid = grid_of(properties, image.shape).refined(scale)
    files = write_image(
        hr_grid.world_coordinates().astype(np.float32),
        tmp_path / "sr" / "case",
        refine_properties(properties, scale),
        reader_writer=reader,
        file_ending=".nii.gz",
    )
    assert [f.name for f in files] == [f"case_000{c}.nii.gz" for c in range(3)]
    back, back_properties = reader().read_images([str(f) for f in files])
    seen = grid_of(back_properties, back.shape).world_coordinates()
    np.testing.assert_allclose(seen, back, atol=2e-4)
    assert sorted(p.name for p in (tmp_path / "sr").iterdir()) == [f.name for f in files]
    for axis, file in enumerate(files):  # and in the eyes of ITK itself
        on_disk = sitk.ReadImage(str(file))
        for index in ((0, 0, 0), tuple(n - 1 for n in on_disk.GetSize())):
            there = on_disk.TransformIndexToPhysicalPoint(index)[axis]
            assert on_disk[index] == pytest.approx(there, abs=2e-4)


@pytest.mark.parametrize("reader", VOLUME_READERS)
def test_the_file_keeps_the_input_s_axes(tmp_path, reader):
    """Readers that turn the axes turn them back: voxel by voxel it is the input's file."""
    source = write_volume(
        tmp_path / "in.nii.gz", random_image(SHAPE), direction=oblique_direction(True)
    )
    image, properties = reader().read_images((str(source),))
    (file,) = write_image(
        image, tmp_path / "out", properties, reader_writer=reader, file_ending=".nii.gz"
    )
    before, after = sitk.ReadImage(str(source)), sitk.ReadImage(str(file))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(after), sitk.GetArrayFromImage(before))
    np.testing.assert_allclose(after.GetDirection(), before.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(after.GetOrigin(), before.GetOrigin(), atol=1e-5)


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii.gz"])
def test_itk_formats(tmp_path, ending):
    source = write_volume(tmp_path / f"in{ending}", random_image(SHAPE))
    image, properties = SimpleITKIO().read_images((str(source),))
    (file,) = write_image(
        image, tmp_path / "out", properties, reader_writer=SimpleITKIO(), file_ending=ending
    )
    back, back_properties = SimpleITKIO().read_images((str(file),))
    np.testing.assert_array_equal(back, image)
    np.testing.assert_allclose(back_properties["spacing"], properties["spacing"], rtol=1e-6)


def test_two_dimensional_itk_image(tmp_path):
    flat = sitk.GetImageFromArray(random_image((6, 5)))
    flat.SetSpacing((0.5, 0.75))
    sitk.WriteImage(flat, str(tmp_path / "flat.nrrd"))
    image, properties = SimpleITKIO().read_images((str(tmp_path / "flat.nrrd"),))
    (file,) = write_image(
        image, tmp_path / "out", properties, reader_writer=SimpleITKIO, file_ending=".nrrd"
    )
    assert sitk.ReadImage(str(file)).GetSpacing() == (0.5, 0.75)
    np.testing.assert_array_equal(SimpleITKIO().read_images((str(file),))[0], image)


@pytest.mark.filterwarnings("error")  # tifffile warns of volumes that it takes for colour
def test_tiff_volume_keeps_its_spacing_file(tmp_path):
    image = random_image((2, 5, 8, 3))  # three voxels wide: not a colour image
    properties = {"spacing": (np.float64(3), 2, 1)}
    files = write_image(
        image, tmp_path / "case", properties, reader_writer=Tiff3DIO, file_ending=".tif"
    )
    back, back_properties = Tiff3DIO().read_images([str(f) for f in files])
    np.testing.assert_array_equal(back, image)
    assert back_properties["spacing"] == [3, 2, 1]
    assert json.loads((tmp_path / "case.json").read_text())["spacing"] == [3.0, 2.0, 1.0]


def test_colour_image_is_one_file(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (3, 1, 6, 5)).astype(np.float32)
    files = write_image(
        image, tmp_path / "photo", {}, reader_writer=NaturalImage2DIO, file_ending=".png"
    )
    assert [f.name for f in files] == ["photo_0000.png"]
    assert io.imread(files[0]).shape == (6, 5, 3)
    np.testing.assert_array_equal(NaturalImage2DIO().read_images([str(files[0])])[0], image)


def test_three_grey_images_stay_three_files(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (3, 1, 6, 5)).astype(np.float32)
    files = write_image(
        image,
        tmp_path / "photo",
        {},
        reader_writer=NaturalImage2DIO,
        file_ending=".png",
        num_files=3,
    )
    assert [io.imread(f).shape for f in files] == [(6, 5)] * 3
    np.testing.assert_array_equal(NaturalImage2DIO().read_images([str(f) for f in files])[0], image)


@pytest.mark.parametrize(
    ("reference", "ending", "expected"),
    [
        (np.uint8, ".nii.gz", [0, 0, 2, 2, 255]),
        (np.int16, ".nii.gz", [-3, 0, 2, 2, 300]),
        (np.int64, ".nii.gz", [-3, 0, 2, 2, 300]),
        (bool, ".nii.gz", [0, 0, 2, 2, 255]),
        (np.float64, ".nii.gz", [-3.2, -0.4, 1.6, 2.5, 300.4]),
        (None, ".nii.gz", [-3.2, -0.4, 1.6, 2.5, 300.4]),
    ],
)
@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIOWithReorient])
def test_values_fit_the_input_s_dtype(tmp_path, reader, reference, ending, expected):
    source = write_volume(tmp_path / "in.nii.gz", np.zeros((2, 1, 5), np.uint8))
    _, properties = reader().read_images((str(source),))
    image = np.zeros((1, 2, 1, 5), np.float32)
    row = np.array([-3.2, -0.4, 1.6, 2.5, 300.4], np.float32)
    image[0, 1, 0] = row
    (file,) = write_image(
        image,
        tmp_path / "out",
        properties,
        reader_writer=reader,
        file_ending=ending,
        reference_dtype=reference,
    )
    back = reader().read_images((str(file),))[0][0, 1, 0]
    np.testing.assert_allclose(back, np.float32(expected), rtol=1e-6)
    kind = "f" if reference in (None, np.float64) else np.dtype(reference).kind.replace("b", "u")
    assert stored_dtype(file).kind == kind
    assert stored_dtype(file).itemsize <= 4


def test_png_holds_no_floats(tmp_path):
    image = np.array([[[[-1.0, 1.5, 254.7, 256.0, 70000.0]]]], np.float32)
    for reference, expected in ((np.float32, [0, 2, 255, 255, 255]), (np.uint16, None)):
        (file,) = write_image(
            image,
            tmp_path / "grey",
            {},
            reader_writer=NaturalImage2DIO,
            file_ending=".png",
            reference_dtype=reference,
        )
        assert io.imread(file)[0].tolist() == (expected or [0, 2, 255, 256, 65535])


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIOWithReorient])
def test_every_file_has_its_channel_s_dtype(tmp_path, reader):
    """A float channel after an integer one keeps its fractions, a wide one its range."""
    source = write_volume(tmp_path / "in.nii.gz", np.zeros((2, 1, 5), np.uint8))
    _, properties = reader().read_images((str(source),))
    image = np.zeros((4, 2, 1, 5), np.float32)
    image[:, 1, 0] = [-3.2, -0.4, 1.6, 2.5, 100000.4]
    files = write_image(
        image,
        tmp_path / "out",
        properties,
        reader_writer=reader,
        file_ending=".nii.gz",
        reference_dtype=["int16", np.float64, np.int32, None],
    )
    assert [stored_dtype(file).name for file in files] == ["int16", "float32", "int32", "float32"]
    back = reader().read_images([str(file) for file in files])[0][:, 1, 0]
    expected = image[:, 1, 0].copy()
    expected[0] = [-3, 0, 2, 2, 32767]
    expected[2] = [-3, 0, 2, 2, 100000]
    np.testing.assert_array_equal(back, expected)


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (["uint8", "uint8", "int16"], [0, 2, 2, 300]),
        (["uint8", "int16", None], [-0.25, 1.75, 2.5, 300.25]),
    ],
)
def test_channels_that_share_a_file_share_a_dtype(tmp_path, dtypes, expected):
    image = np.zeros((3, 1, 1, 4), np.float32)
    image[:, 0, 0] = [-0.25, 1.75, 2.5, 300.25]
    (file,) = write_image(
        image,
        tmp_path / "photo",
        {},
        reader_writer=NaturalImage2DIO,
        file_ending=".tif",
        reference_dtype=dtypes,
        num_files=1,
    )
    for channel in io.imread(file)[0].T:
        np.testing.assert_array_equal(channel, expected)


def test_grey_images_of_different_dtypes_are_no_colour_image(tmp_path):
    image = np.full((3, 1, 2, 2), 300, np.float32)
    files = write_image(
        image,
        tmp_path / "photo",
        {},
        reader_writer=NaturalImage2DIO,
        file_ending=".png",
        reference_dtype=["uint8", "uint16", "uint8"],
    )
    assert [io.imread(file).max() for file in files] == [255, 300, 255]


@pytest.mark.parametrize("num_channels", [3, 4])
def test_channels_of_16_bits_are_grey_images(tmp_path, num_channels):
    files = write_image(
        np.full((num_channels, 1, 2, 3), 300, np.float32),
        tmp_path / "photo",
        {},
        reader_writer=NaturalImage2DIO,
        file_ending=".png",
        reference_dtype="uint16",
    )
    assert [f.name for f in files] == [f"photo_{i:04d}.png" for i in range(num_channels)]
    assert all((io.imread(file) == 300).all() for file in files)


def test_one_file_cannot_hold_16_bit_colours(tmp_path):
    with pytest.raises(ValueError, match=r"photo_0000.png' can hold colours of 8 bits, got uint16"):
        write_image(
            np.zeros((3, 1, 2, 2)),
            tmp_path / "photo",
            {},
            reader_writer=NaturalImage2DIO,
            file_ending=".png",
            reference_dtype="uint16",
            num_files=1,
        )


def test_as_many_dtypes_as_channels(tmp_path):
    with pytest.raises(ValueError, match=r"3 channels need one dtype or 3, got 2 \(photo\)"):
        write_image(
            np.zeros((3, 1, 2, 2)),
            tmp_path / "photo",
            {},
            reader_writer=NaturalImage2DIO,
            file_ending=".png",
            reference_dtype=["uint8", "uint16"],
        )


def test_segmentation_is_written_by_the_reader_s_own_writer(tmp_path):
    source = write_volume(tmp_path / "in.nii.gz", np.zeros(SHAPE, np.uint8))
    labels = np.random.default_rng(0).integers(0, 4, SHAPE)
    for reader in VOLUME_READERS:
        image, properties = reader().read_images((str(source),))
        turned = labels.reshape(image.shape)
        file = tmp_path / "seg" / f"{reader.__name__}.nii.gz"
        assert write_segmentation(turned, file, properties, reader_writer=reader) == file
        back, back_properties = reader().read_seg(str(file))
        np.testing.assert_array_equal(back, turned)
        difference = np.subtract(back_properties["spacing"], properties["spacing"])
        np.testing.assert_allclose(difference, 0, atol=1e-6)
    assert len(list((tmp_path / "seg").iterdir())) == len(VOLUME_READERS)


def test_tiff_segmentation_keeps_its_spacing_file(tmp_path):
    labels = np.random.default_rng(0).integers(0, 4, SHAPE)
    write_segmentation(
        labels, tmp_path / "out" / "c.tif", {"spacing": [3.0, 2.0, 1.0]}, reader_writer=Tiff3DIO
    )
    back, properties = Tiff3DIO().read_seg(str(tmp_path / "out" / "c.tif"))
    np.testing.assert_array_equal(back[0], labels)
    assert properties["spacing"] == [3.0, 2.0, 1.0]


@pytest.mark.parametrize("function", [write_image, write_segmentation])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, function):
    source = write_volume(tmp_path / "in.nii.gz", random_image(SHAPE))
    image, properties = NibabelIO().read_images((str(source),))
    out = tmp_path / "out"
    out.mkdir()
    old = out / ("case_0000.nii.gz" if function is write_image else "case.nii.gz")
    old.write_bytes(b"old")

    def fail_half_way(_, file):
        open(file, "wb").write(b"half")  # noqa: PTH123, SIM115
        raise OSError("disk full")

    monkeypatch.setattr(nibabel, "save", fail_half_way)
    arguments = {"reader_writer": NibabelIO}
    if function is write_image:
        arguments["file_ending"] = ".nii.gz"
    target = out / "case" if function is write_image else old
    with pytest.raises(OSError, match="disk full"):
        function(image, target, properties, **arguments)
    assert [p.name for p in out.iterdir()] == [old.name]
    assert old.read_bytes() == b"old"


def test_stored_dtype_of_formats(tmp_path):
    for dtype in (np.uint8, np.int16, np.float32, np.float64):
        write_volume(tmp_path / "x.nrrd", np.zeros(SHAPE, dtype))
        assert stored_dtype(tmp_path / "x.nrrd") == dtype
        tifffile.imwrite(tmp_path / "x.tif", np.zeros(SHAPE, dtype))
        assert stored_dtype(tmp_path / "x.tif") == dtype
    io.imsave(tmp_path / "x.png", np.zeros((6, 5, 3), np.uint8), check_contrast=False)
    assert stored_dtype(tmp_path / "x.png") == np.uint8


def test_stored_dtypes_of_the_channels(tmp_path):
    """One file a channel, or one for all of them; else what holds them all."""
    colour, grey = tmp_path / "colour.png", tmp_path / "grey.png"
    io.imsave(colour, np.zeros((6, 5, 3), np.uint8), check_contrast=False)
    io.imsave(grey, np.zeros((6, 5), np.uint16), check_contrast=False)
    assert stored_dtypes([colour], 3) == [np.uint8] * 3
    assert stored_dtypes([colour, grey], 2) == [np.uint8, np.uint16]
    assert stored_dtypes([colour, grey], 4) == [np.uint8] * 2 + [np.uint16] * 2
    assert stored_dtypes([colour, grey, colour], 5) == [np.uint16] * 5


def test_stored_dtype_with_a_slope_is_float(tmp_path):
    header = nibabel.Nifti1Image(np.zeros(SHAPE, np.int16), np.eye(4))
    header.header.set_slope_inter(0.5, 3)
    nibabel.save(header, tmp_path / "slope.nii.gz")
    assert stored_dtype(tmp_path / "slope.nii.gz").kind == "f"
    sheared = np.eye(4)
    sheared[0, 1] = 0.6  # ITK refuses it
    for slope, kind in ((1, "i"), (0.5, "f")):
        image = nibabel.Nifti1Image(np.zeros(SHAPE, np.int16), sheared)
        image.header.set_slope_inter(slope, 0)
        nibabel.save(image, tmp_path / "sheared.nii")
        assert stored_dtype(tmp_path / "sheared.nii").kind == kind


@pytest.mark.parametrize("name", ["x.nii.gz", "x.tif", "x.nrrd"])
def test_stored_dtype_names_a_corrupt_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"nothing of the sort")
    with pytest.raises(ValueError, match=f"cannot read '.*{name}'"):
        stored_dtype(tmp_path / name)


@pytest.mark.parametrize(
    ("shape", "reader", "num_files", "message"),
    [
        ((5, 8, 7), SimpleITKIO, None, r"must be \(C, Z, Y, X\)"),
        ((3, 1, 8, 7), NaturalImage2DIO, 2, "cannot be spread evenly over 2 files"),
        ((2, 5, 8, 7), Tiff3DIO, 1, "can hold one channel, got 2"),
        ((1, 5, 8, 7), NaturalImage2DIO, 1, "can hold one slice, got 5"),
        ((2, 1, 8, 7), NaturalImage2DIO, 1, "can hold 1, 3 or 4 channels, got 2"),
        ((1, 5, 8, 7), dict, None, "images of reader dict cannot be written; known: SimpleITKIO"),
    ],
)
def test_images_that_do_not_fit(tmp_path, shape, reader, num_files, message):
    with pytest.raises(ValueError, match=message):
        write_image(
            np.zeros(shape),
            tmp_path / "x",
            {"spacing": (1, 1, 1)},
            reader_writer=reader,
            file_ending=".png",
            num_files=num_files,
        )
    assert not list(tmp_path.iterdir())


def test_segmentation_must_be_one_volume(tmp_path):
    with pytest.raises(ValueError, match=r"must be \(Z, Y, X\), got shape \(2, 5, 8, 7\)"):
        write_segmentation(
            np.zeros((2, 5, 8, 7)), tmp_path / "x.nii.gz", {}, reader_writer=SimpleITKIO
        )
