"""Identity network, world ramp and half-space through the whole path: file in, files out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from srseg.geometry.grid import Grid
from srseg.images.properties import grid_of
from srseg.images.write import stored_dtype
from tests.images.readers import (
    ORIGIN_XYZ,
    SCALES,
    SPACING,
    itk_world_xyz,
    nibabel_world_xyz,
    oblique_direction,
    write_volume,
)
from tests.inference.known_networks import (
    RAMP_NORMAL_XYZ,
    RAMP_OFFSET_MM,
    NearestNetwork,
    RampNetwork,
    dataset_json,
    known_predictor,
    random_case,
    repeated,
)
from tests.preprocessing.hand_plans import TRANSPOSES

READERS = (SimpleITKIO, NibabelIO, NibabelIOWithReorient)
SHAPE = (7, 10, 9)
PATCHES = {"padded": (12, 12, 13), "tiled": (5, 6, 4)}


def spacing_read(reader: type, file: Path) -> tuple[float, ...]:
    """Return the spacing (Z, Y, X) in the axis order of the reader's array."""
    return tuple(reader().read_images([str(file)])[1]["spacing"])


def hr_spacing_for(reader, file, transpose, scale, factor=(1, 1, 1)):
    """Return the HR spacing, plan order, whose LR spacing is `factor` times the file's."""
    native = spacing_read(reader, file)
    return [native[axis] * f / s for axis, s, f in zip(transpose, scale, factor, strict=True)]


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("transpose", TRANSPOSES)
@pytest.mark.parametrize("reader", READERS)
def test_identity_network_repeats_the_file(tmp_path, reader, transpose, scale, patch):
    """In its own units, with zeros kept, at scale times the voxels; the mask likewise."""
    raw = random_case(tmp_path / "in", "a", SHAPE)
    predictor = known_predictor(
        NearestNetwork(scale),
        scale,
        hr_spacing=hr_spacing_for(reader, tmp_path / "in/a_0000.nii.gz", transpose, scale),
        patch_size=PATCHES[patch],
        transpose=transpose,
        reader=reader.__name__,
    )
    predictor.predict_files(tmp_path / "in", tmp_path / "out", show_progress=False)
    image, _ = reader().read_images([str(tmp_path / "in/a_0000.nii.gz")])
    sr_image, _ = reader().read_images([str(tmp_path / "out/sr/a_0000.nii.gz")])
    segmentation, _ = reader().read_seg(str(tmp_path / "out/a.nii.gz"))

    native_scale = [scale[transpose.index(axis)] for axis in range(3)]
    expected = repeated(image, native_scale)
    assert sr_image.shape == expected.shape
    np.testing.assert_allclose(sr_image, expected, rtol=0, atol=2e-4)
    crop = raw[1:, :-2, 1:]  # the border of zeros is cut off before statistics are taken
    expected_mask = expected > crop.mean()
    np.testing.assert_array_equal(segmentation, expected_mask)


@pytest.mark.parametrize("reader", READERS)
def test_every_channel_keeps_its_own_dtype(tmp_path, reader):
    """An integer channel neither rounds the float one after it nor cuts off a wider one."""
    scale, generator = (1, 2, 2), np.random.default_rng(0)
    raw = generator.uniform(1, 200, (3, *SHAPE)).astype(np.float32)
    raw[0], raw[1], raw[2] = np.rint(raw[0]), raw[1] / 200, np.rint(raw[2] * 500)
    dtypes = ("int16", "float32", "int32")
    (tmp_path / "in").mkdir()
    for channel, dtype in enumerate(dtypes):
        write_volume(tmp_path / f"in/a_{channel:04d}.nii.gz", raw[channel].astype(dtype))
    spacing = spacing_read(reader, tmp_path / "in/a_0000.nii.gz")
    predictor = known_predictor(
        NearestNetwork(scale),
        scale,
        hr_spacing=np.divide(spacing, scale),
        num_channels=3,
        reader=reader.__name__,
    )
    predictor.predict_files(tmp_path / "in", tmp_path / "out", show_progress=False)
    files = [tmp_path / f"out/sr/a_{channel:04d}.nii.gz" for channel in range(3)]
    assert [stored_dtype(file).name for file in files] == list(dtypes)
    image, _ = reader().read_images([str(tmp_path / "in" / file.name) for file in files])
    sr_image, _ = reader().read_images([str(file) for file in files])
    np.testing.assert_allclose(sr_image, repeated(image, scale), rtol=1e-5, atol=1e-5)
    whole = np.rint(image).astype(np.int32)
    from_array = predictor.predict(whole, spacing).sr_image
    np.testing.assert_allclose(from_array, repeated(whole, scale), rtol=1e-5, atol=1e-5)


def test_every_channel_of_a_training_case_keeps_its_own_dtype(tmp_path):
    """What validation exports, with the properties that preprocessing stores."""
    raw = np.random.default_rng(0).uniform(1, 200, (2, *SHAPE)).astype(np.float32)
    raw[0] = np.rint(raw[0])
    files = [tmp_path / f"a_{channel:04d}.nii.gz" for channel in range(2)]
    for file, channel, dtype in zip(files, raw, (np.int16, np.float32), strict=True):
        write_volume(file, channel.astype(dtype))
    write_volume(tmp_path / "a.nii.gz", (raw[0] > 100).astype(np.uint8))
    predictor = known_predictor(
        NearestNetwork((1, 1, 1)), (1, 1, 1), hr_spacing=SPACING, num_channels=2
    )
    preprocessor = predictor.configuration_manager.preprocessor_class()
    hr_image, _, properties = preprocessor.run_case(
        [str(file) for file in files], str(tmp_path / "a.nii.gz"),
        predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json,
    )  # fmt: skip
    logits, sr_image = predictor.predict_preprocessed(hr_image)
    predictor.export_case(
        "a", logits, sr_image, hr_properties=properties, out_folder=tmp_path / "out"
    )
    written = [str(tmp_path / "out/sr" / file.name) for file in files]
    assert [stored_dtype(file).name for file in written] == ["int16", "float32"]
    np.testing.assert_allclose(SimpleITKIO().read_images(written)[0], raw, rtol=1e-5, atol=1e-5)


def write_ramp(folder: Path, case: str, shape=SHAPE, permuted=False) -> Grid:
    """Write three channels, the world x, y and z of every voxel; return their grid."""
    folder.mkdir(parents=True, exist_ok=True)
    direction = oblique_direction(permuted)
    grid = Grid(shape, SPACING, ORIGIN_XYZ, tuple(direction.ravel()))
    for channel, values in enumerate(grid.world_coordinates().astype(np.float32)):
        write_volume(folder / f"{case}_{channel:04d}.nii.gz", values, direction=direction)
    return grid


@pytest.mark.parametrize("spacing_factor", [(1, 1, 1), (0.8, 1.25, 1.1)], ids=["same", "other"])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("transpose", TRANSPOSES)
@pytest.mark.parametrize("reader", READERS)
def test_world_ramp_stays_a_world_ramp(tmp_path, reader, transpose, scale, spacing_factor):
    """Each SR voxel holds its own world point, and the mask is the half-space it was asked for."""
    shape = (19, 24, 22)
    write_ramp(tmp_path / "in", "a", shape, permuted=True)
    predictor = known_predictor(
        RampNetwork(scale),
        scale,
        hr_spacing=hr_spacing_for(
            reader, tmp_path / "in/a_0000.nii.gz", transpose, scale, spacing_factor
        ),
        patch_size=(32, 32, 32),  # one tile: this network clamps at the borders of each
        transpose=transpose,
        reader=reader.__name__,
        num_channels=3,
        normalization=("NoNormalization",) * 3,
    )
    predictor.predict_files(tmp_path / "in", tmp_path / "out", show_progress=False)
    files = [str(tmp_path / f"out/sr/a_{channel:04d}.nii.gz") for channel in range(3)]
    sr_image, sr_properties = reader().read_images(files)
    grid = grid_of(sr_properties, sr_image.shape)
    world = grid.world_coordinates()
    native_scale = [scale[transpose.index(axis)] for axis in range(3)]
    # the network clamps its input's edges, and resampling sees that 6 voxels further inside
    inner = (..., *(slice(8 * s, -8 * s) for s in native_scale))
    np.testing.assert_allclose(sr_image[inner], world[inner], atol=2e-3)

    segmentation, seg_properties = reader().read_seg(str(tmp_path / "out/a.nii.gz"))
    assert grid_of(seg_properties, segmentation.shape) == grid
    distance = np.tensordot(RAMP_NORMAL_XYZ, world, axes=1) - RAMP_OFFSET_MM
    clear = np.abs(distance) > 0.5 * max(SPACING)
    wrong = (segmentation[0] == 1) != (distance > 0)
    assert not wrong[clear].any()
    corner = (2, 5, 3)  # the file's own headers, read by ITK or nibabel
    if reader is SimpleITKIO:
        at = itk_world_xyz(Path(files[0]), corner)
        np.testing.assert_allclose(world[(slice(None), *corner)], at, atol=1e-3)
    elif reader is NibabelIO:
        at = nibabel_world_xyz(Path(files[0]), corner)
        np.testing.assert_allclose(world[(slice(None), *corner)], at, atol=1e-3)


@pytest.mark.parametrize("scale", SCALES)
def test_field_of_view_is_the_input_s(tmp_path, scale):
    """The outer corners of the first and last voxel stay where they are."""
    grid = write_ramp(tmp_path / "in", "a")
    predictor = known_predictor(
        RampNetwork(scale), scale, num_channels=3, hr_spacing=np.divide(SPACING, scale)
    )
    predictor.predict_files(tmp_path / "in", tmp_path / "out", show_progress=False)
    segmentation, properties = SimpleITKIO().read_seg(str(tmp_path / "out/a.nii.gz"))
    hr_grid = grid_of(properties, segmentation.shape)
    for corner, hr_corner in (
        ([-0.5] * 3, [-0.5] * 3),
        (np.array(grid.shape) - 0.5, np.array(hr_grid.shape) - 0.5),
    ):
        expected = grid.world_xyz(corner)
        assert hr_grid.world_xyz(hr_corner) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("step_size", [0.5, 1.0])
def test_slices_of_a_2d_configuration(tmp_path, step_size):
    raw = random_case(tmp_path / "in", "a", SHAPE)
    predictor = known_predictor(
        NearestNetwork((2, 3)),
        (2, 3),
        hr_spacing=(SPACING[1] / 2, SPACING[2] / 3),
        patch_size=(6, 4),
        mirroring_axes=(0, 1),
        settings={"step_size": step_size},
    )
    predictor.predict_files(tmp_path / "in", tmp_path / "out", show_progress=False)
    sr_image, _ = SimpleITKIO().read_images([str(tmp_path / "out/sr/a_0000.nii.gz")])
    np.testing.assert_allclose(sr_image[0], repeated(raw, (1, 2, 3)), atol=2e-4)


@pytest.mark.parametrize("num_channels", [1, 3])
def test_natural_images_grow_by_the_scale(tmp_path, num_channels):
    """PNG knows no geometry, and a colour image stays one file with three channels."""
    from skimage import io

    (tmp_path / "in").mkdir()
    shape = (9, 14, 3) if num_channels == 3 else (9, 14)
    raw = np.random.default_rng(0).integers(1, 255, shape, dtype=np.uint8)
    io.imsave(tmp_path / "in/a_0000.png", raw, check_contrast=False)
    predictor = known_predictor(
        NearestNetwork((2, 3)),
        (2, 3),
        hr_spacing=(1 / 2, 1 / 3),
        patch_size=(8, 8),
        mirroring_axes=(0, 1),
        num_channels=num_channels,
        reader="NaturalImage2DIO",
        description=dataset_json(num_channels, ".png"),
    )
    predictor.predict_files(tmp_path / "in", tmp_path / "out", show_progress=False)
    sr_image = io.imread(tmp_path / "out/sr/a_0000.png")
    assert sr_image.dtype == np.uint8
    np.testing.assert_array_equal(sr_image, raw.repeat(2, axis=0).repeat(3, axis=1))
    assert io.imread(tmp_path / "out/a.png").shape == (18, 42)
