"""Refining and coarsening keep the field of view, in the eyes of ITK and of nibabel."""

from __future__ import annotations

import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from srseg.geometry.grid import Grid
from srseg.images.properties import (
    coarsen_properties,
    grid_of,
    refine_properties,
    upscale_properties,
)
from tests.images.readers import (
    ORIGIN_XYZ,
    SCALES,
    SHAPE,
    SPACING,
    VOLUME_READERS,
    itk_world_xyz,
    nibabel_world_xyz,
    oblique_direction,
    write_volume,
)

CENTRE_AND_CORNERS = [0.5, *itertools.product((0.0, 1.0), repeat=3)]


def at(shape, part) -> tuple[float, ...]:
    """Return the continuous index of a point of the field of view, 0..1 from face to face."""
    return tuple(p * n - 0.5 for p, n in zip(np.broadcast_to(part, 3), shape, strict=True))


def read(reader, file):
    image, properties = reader().read_images((str(file),))
    return image, properties


def written(reader, properties, shape, file):
    """Return a file that nnU-Net's own writer made with `properties`."""
    reader().write_seg(np.arange(np.prod(shape)).reshape(shape) % 5, str(file), properties)
    return file


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("reader", VOLUME_READERS)
@pytest.mark.parametrize("permuted", [False, True])
def test_refined_files_have_the_same_field_of_view(tmp_path, capsys, reader, scale, permuted):
    lr_file = write_volume(
        tmp_path / "lr.nii.gz",
        np.zeros(SHAPE, np.float32),
        direction=oblique_direction(permuted),
    )
    image, properties = read(reader, lr_file)
    hr_shape = tuple(n * s for n, s in zip(image.shape[1:], scale, strict=True))
    hr_file = written(
        reader, refine_properties(properties, scale), hr_shape, tmp_path / "hr.nii.gz"
    )
    assert "does not match" not in capsys.readouterr().out  # the reorienting reader's complaint
    # The reorienting readers turn the axes, so the files' own shapes are compared.
    lr_on_disk, hr_on_disk = (sitk.ReadImage(str(f)).GetSize()[::-1] for f in (lr_file, hr_file))
    assert np.prod(hr_on_disk) == np.prod(lr_on_disk) * np.prod(scale)
    for part in CENTRE_AND_CORNERS:
        for world_xyz in (itk_world_xyz, nibabel_world_xyz):
            here = world_xyz(hr_file, at(hr_on_disk, part))
            np.testing.assert_allclose(here, world_xyz(lr_file, at(lr_on_disk, part)), atol=1e-4)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("reader", VOLUME_READERS)
def test_properties_and_grid_refine_alike(tmp_path, reader, scale):
    file = write_volume(tmp_path / "lr.nii.gz", np.zeros(SHAPE, np.float32))
    image, properties = read(reader, file)
    expected = grid_of(properties, image.shape).refined(scale)
    actual = grid_of(refine_properties(properties, scale), expected.shape)
    np.testing.assert_allclose(actual.spacing, expected.spacing, rtol=1e-6)
    np.testing.assert_allclose(actual.origin_xyz, expected.origin_xyz, atol=1e-5)
    np.testing.assert_allclose(actual.direction_xyz, expected.direction_xyz, atol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("reader", VOLUME_READERS)
def test_coarsening_undoes_refining(tmp_path, reader, scale):
    file = write_volume(
        tmp_path / "lr.nii.gz", np.zeros(SHAPE, np.float32), direction=oblique_direction(True)
    )
    _, properties = read(reader, file)
    there_and_back = coarsen_properties(refine_properties(properties, scale), scale)
    assert there_and_back.keys() == properties.keys()
    np.testing.assert_allclose(there_and_back["spacing"], properties["spacing"], rtol=1e-12)
    for key in ("sitk_stuff", "nibabel_stuff"):
        for name, value in properties.get(key, {}).items():
            if isinstance(value, str):
                assert there_and_back[key][name] == value
            else:
                np.testing.assert_allclose(there_and_back[key][name], value, atol=1e-12)


def test_the_grid_is_the_one_of_the_array_for_every_reader(tmp_path):
    """A ramp of world coordinates is found where `grid_of` says, turned axes included."""
    direction = oblique_direction(True)
    truth = Grid(SHAPE, SPACING, ORIGIN_XYZ, tuple(direction.ravel()))
    for axis, ramp in enumerate(truth.world_coordinates()):
        file = write_volume(tmp_path / "x.nii.gz", ramp.astype(np.float32), direction=direction)
        for reader in VOLUME_READERS:
            image, properties = read(reader, file)
            seen = grid_of(properties, image.shape).world_coordinates()[axis]
            np.testing.assert_allclose(seen, image[0], atol=1e-4, err_msg=reader.__name__)


def test_reoriented_files_take_the_scale_of_their_own_axes():
    """The array's z is the file's x here: only the file's x may change."""
    original = np.array([[0, 0, 2.0, 5], [0, 3.0, 0, 6], [4.0, 0, 0, 7], [0, 0, 0, 1]])
    canonical = np.diag([2.0, 3.0, 4.0, 1.0])
    canonical[:3, 3] = 5, 6, 7
    properties = {
        "nibabel_stuff": {"original_affine": original, "reoriented_affine": canonical},
        "spacing": [4.0, 3.0, 2.0],
    }
    fine = refine_properties(properties, (2, 1, 1))["nibabel_stuff"]
    expected = original.copy()
    expected[:3, 0] /= 2
    expected[:3, 3] = 5, 6, 6  # a quarter of the 4 mm voxel back
    np.testing.assert_allclose(fine["original_affine"], expected)


def test_properties_of_the_caller_stay_as_they_are(tmp_path):
    file = write_volume(tmp_path / "lr.nii.gz", np.zeros(SHAPE, np.float32))
    for reader in VOLUME_READERS:
        _, properties = read(reader, file)
        _, again = read(reader, file)
        refine_properties(properties, (3, 2, 1))
        np.testing.assert_equal(properties, again)


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_upscaling_multiplies_the_crop_in_plan_order(transpose):
    backward = tuple(int(i) for i in np.argsort(transpose))
    properties = {
        "spacing": [4.0, 0.75, 0.5],
        "shape_before_cropping": (5, 8, 7),
        "shape_after_cropping_and_before_resampling": (4, 6, 5),
        "bbox_used_for_cropping": [[1, 5], [2, 8], [0, 5]],
        "class_locations": {1: [[0, 1, 2, 3]]},
    }
    fine = upscale_properties(properties, (3, 2, 1), backward)
    assert fine["shape_before_cropping"] == (15, 16, 7)
    assert fine["shape_after_cropping_and_before_resampling"] == (12, 12, 5)
    assert fine["bbox_used_for_cropping"] == [[3, 15], [4, 16], [0, 5]]
    native = [(3, 2, 1)[axis] for axis in backward]
    np.testing.assert_allclose(fine["spacing"], np.divide([4.0, 0.75, 0.5], native))
    assert fine["class_locations"] == properties["class_locations"]


def test_two_dimensional_itk_files(tmp_path):
    image = sitk.GetImageFromArray(np.zeros((6, 5), np.float32))
    image.SetSpacing((0.5, 0.75))
    image.SetOrigin((3.0, -4.0))
    image.SetDirection((0.8, -0.6, 0.6, 0.8))
    sitk.WriteImage(image, str(tmp_path / "flat.nrrd"))
    array, properties = read(SimpleITKIO, tmp_path / "flat.nrrd")
    assert array.shape == (1, 1, 6, 5)
    fine = refine_properties(properties, (1, 3, 2))
    fine_file = written(SimpleITKIO, fine, (1, 18, 10), tmp_path / "fine.nrrd")
    for part in ((0.5, 0.5), (0, 0), (1, 1), (0, 1)):
        lr_index = [p * n - 0.5 for p, n in zip(part, (5, 6), strict=True)]
        hr_index = [p * n - 0.5 for p, n in zip(part, (10, 18), strict=True)]
        here = sitk.ReadImage(str(fine_file)).TransformContinuousIndexToPhysicalPoint(hr_index)
        np.testing.assert_allclose(here, image.TransformContinuousIndexToPhysicalPoint(lr_index))
    grid = grid_of(fine, (1, 18, 10))
    assert grid == grid_of(properties, array.shape).refined((1, 3, 2))
    assert grid.rotation_xyz[2].tolist() == [0, 0, 1]


def test_formats_without_geometry():
    properties = {"spacing": (999, 1, 1)}
    assert grid_of(properties, (3, 1, 8, 6)) is None
    assert refine_properties(properties, (1, 2, 4)) == {"spacing": [999.0, 0.5, 0.25]}


def test_sheared_affines_keep_their_shear(tmp_path):
    affine = np.array([[2, 0.3, 0, 1], [0, 3, 0.2, 2], [0, 0, 4, 3], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 6, 7), np.float32), affine), tmp_path / "s.nii")
    array, properties = read(NibabelIO, tmp_path / "s.nii")
    fine = refine_properties(properties, (3, 2, 1))["nibabel_stuff"]["original_affine"]
    np.testing.assert_allclose(fine @ [-0.5, -0.5, -0.5, 1], affine @ [-0.5, -0.5, -0.5, 1])
    np.testing.assert_allclose(fine @ [4.5, 11.5, 20.5, 1], affine @ [4.5, 5.5, 6.5, 1])
    point = grid_of(properties, array.shape).world_xyz((3, 2, 1))
    np.testing.assert_allclose(point, (affine @ [1, 2, 3, 1])[:3] * [-1, -1, 1])


@pytest.mark.parametrize("change", [refine_properties, coarsen_properties])
def test_scale_must_be_whole(change):
    with pytest.raises(ValueError, match=r"whole numbers >= 1 per axis, got \(1, 0, 2\)"):
        change({"spacing": [1.0, 1.0, 1.0]}, (1, 0, 2))
