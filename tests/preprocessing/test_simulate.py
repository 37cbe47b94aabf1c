"""Simulated LR files lie where the HR file does and hold what training saw."""

from __future__ import annotations

import json

import numpy as np
import pytest
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from skimage import io

from srseg.degradation.spec import AxisDegradation, DegradationSpec
from srseg.geometry.grid import pad_to_multiple
from srseg.images.properties import grid_of
from srseg.preprocessing.simulate import Simulation, simulate_folder, simulate_native
from tests.preprocessing.hand_plans import TRANSPOSES, hand_plans, managers, spec_json
from tests.tiny_dataset import SPACING, read_volume, save_volume

SCALES = ((1, 1, 1), (2, 1, 1), (1, 2, 2), (3, 2, 1))
READERS = ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient")


def simulation(dataset, output, *, labels=None, dataset_json=None, **options):
    options.setdefault("scale", (1, 2, 2))
    options.setdefault("hr_spacing", SPACING)
    plans = hand_plans(options.pop("hr_spacing"), options.pop("scale"), **options)
    return Simulation(
        *managers(plans),
        dataset_json or json.loads((dataset / "dataset.json").read_text()),
        output,
        labels,
        None if labels is None else output / "labels_hr",
    )


def read(file, reader="SimpleITKIO"):
    plans_manager, _ = managers(hand_plans(SPACING, (1, 1, 1), reader=reader))
    image, properties = plans_manager.image_reader_writer_class().read_images([str(file)])
    return image, grid_of(properties, image.shape)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("scale", "transpose"), list(zip(SCALES, TRANSPOSES, strict=True)))
def test_world_ramp_from_file_to_file(tiny_copy, tmp_path, reader, scale, transpose):
    """The file's own grid says where its voxels are, and its values say the same."""
    hr_file = tiny_copy / "imagesTr" / "tiny_1_0000.nii.gz"
    hr_image, _ = read(hr_file)
    for axis in range(3):
        (tmp_path / "hr").mkdir(exist_ok=True)
        world = grid_of_file(hr_file).world_coordinates()[axis].astype(np.float32)
        _, affine = read_volume(hr_file)
        save_volume(world, tmp_path / "hr" / f"ramp{axis}_0000.nii.gz", affine)
    plan_scale = [scale[i] for i in transpose]
    done = simulation(
        tiny_copy, tmp_path / "lr", scale=plan_scale, transpose=transpose, reader=reader,
        hr_spacing=[SPACING[i] for i in transpose],
    )  # fmt: skip
    assert simulate_folder(tmp_path / "hr", done, num_processes=1) == 3
    for axis in range(3):
        lr_image, lr_grid = read(tmp_path / "lr" / f"ramp{axis}_0000.nii.gz", "SimpleITKIO")
        assert lr_grid.shape == tuple(
            -(-n // s) for n, s in zip(hr_image.shape[1:], scale, strict=True)
        )
        inner = tuple(slice(0, n // s) for n, s in zip(hr_image.shape[1:], scale, strict=True))
        expected = lr_grid.world_coordinates()[axis]
        np.testing.assert_allclose(lr_image[0][inner], expected[inner], atol=1e-3)


def grid_of_file(file):
    return read(file)[1]


def test_odd_sizes_are_edge_padded_at_the_high_end(tiny_dataset):
    plans = hand_plans(SPACING, (1, 2, 2))
    image = np.arange(2 * 5 * 3, dtype=np.float32).reshape(1, 2, 5, 3)
    lr_image = simulate_native(image, list(SPACING), *managers(plans))
    padded = pad_to_multiple(image, (1, 2, 2))
    expected = padded.reshape(1, 2, 3, 2, 2, 2).mean((3, 5))
    np.testing.assert_allclose(lr_image, expected, rtol=1e-6)


@pytest.mark.parametrize("transpose", TRANSPOSES)
def test_kernels_in_mm_do_not_depend_on_the_plan_s_axis_order(transpose):
    image = np.random.default_rng(2).random((1, 9, 14, 12), dtype=np.float32)
    axes = (
        AxisDegradation("slice_gauss", {"thickness_mm": 5.0}),
        AxisDegradation("slab_mean", {"thickness_mm": 1.7}),
        AxisDegradation("kspace_crop", {"window": "hamming"}),
    )
    spacing, scale = (1.5, 0.8, 0.5), (3, 2, 1)

    def simulated(order):
        plans = hand_plans(
            [spacing[i] for i in order],
            [scale[i] for i in order],
            transpose=order,
            degradation=DegradationSpec(tuple(axes[i] for i in order)).to_json(),
        )
        return simulate_native(image, list(spacing), *managers(plans))

    np.testing.assert_allclose(simulated(transpose), simulated((0, 1, 2)), atol=1e-6)


def test_all_cases_under_their_names(tiny_dataset, tmp_path):
    work = simulation(tiny_dataset, tmp_path / "lr", labels=tiny_dataset / "labelsTr")
    assert simulate_folder(tiny_dataset / "imagesTr", work, num_processes=2) == 5
    names = sorted(file.name for file in (tmp_path / "lr").glob("*.nii.gz"))
    assert names == sorted(file.name for file in (tiny_dataset / "imagesTr").iterdir())
    assert {file.name for file in (tmp_path / "lr").iterdir()} - set(names) == {"labels_hr"}


def test_labels_are_padded_to_the_grid_of_a_prediction(tiny_dataset, tmp_path):
    work = simulation(tiny_dataset, tmp_path / "lr", labels=tiny_dataset / "labelsTr")
    simulate_folder(tiny_dataset / "imagesTr", work, num_processes=1)
    for number in range(5):
        raw, affine = read_volume(tiny_dataset / "labelsTr" / f"tiny_{number}.nii.gz")
        padded, padded_affine = read_volume(tmp_path / "lr/labels_hr" / f"tiny_{number}.nii.gz")
        np.testing.assert_array_equal(padded, pad_to_multiple(raw, (1, 2, 2)))
        np.testing.assert_allclose(padded_affine, affine, atol=1e-5)
        lr_image, _ = read_volume(tmp_path / "lr" / f"tiny_{number}_0000.nii.gz")
        assert padded.shape == tuple(n * s for n, s in zip(lr_image.shape, (1, 2, 2), strict=True))


def spoilt(tiny_copy, change):
    file = tiny_copy / "imagesTr" / "tiny_0_0000.nii.gz"
    image, affine = read_volume(file)
    save_volume(change(image), file, affine)
    return file


def test_integers_stay_integers_where_they_fit(tiny_copy, tmp_path):
    spoilt(tiny_copy, lambda image: image.astype(np.int16))
    for name, operator, dtype in (
        ("means", "area", np.float32),
        ("copies", "legacy_nearest", np.int16),
    ):
        work = simulation(tiny_copy, tmp_path / name, degradation=spec_json(operator))
        work((tiny_copy / "imagesTr" / "tiny_0_0000.nii.gz",))
        lr_image, _ = read_volume(tmp_path / name / "tiny_0_0000.nii.gz")
        assert lr_image.dtype == dtype, operator


@pytest.mark.parametrize(
    ("operator", "dtypes"),
    [("legacy_nearest", ["int16", "float32", "int32"]), ("area", ["float32"] * 3)],
)
def test_every_channel_has_its_own_dtype(tmp_path, operator, dtypes):
    """An integer channel neither rounds the float one after it nor cuts off a wider one."""
    generator = np.random.default_rng(3)
    image = generator.uniform(1, 300, (3, 4, 8, 6)).astype(np.float32)
    image[0], image[2] = np.rint(image[0]), np.rint(image[2] * 1000)
    (tmp_path / "hr").mkdir()
    for channel, dtype in enumerate((np.int16, np.float32, np.int32)):
        file = tmp_path / "hr" / f"a_{channel:04d}.nii.gz"
        save_volume(image[channel].astype(dtype), file)
    names = {str(channel): f"MR{channel}" for channel in range(3)}
    work = simulation(
        tmp_path, tmp_path / "lr", degradation=spec_json(operator),
        normalization=["ZScoreNormalization"] * 3,
        dataset_json={"channel_names": names, "file_ending": ".nii.gz"},
    )  # fmt: skip
    simulate_folder(tmp_path / "hr", work, num_processes=1)
    expected = simulate_native(image, list(SPACING), work.plans_manager, work.configuration_manager)
    for channel, dtype in enumerate(dtypes):
        lr_image, _ = read_volume(tmp_path / "lr" / f"a_{channel:04d}.nii.gz")
        assert lr_image.dtype == dtype
        np.testing.assert_array_equal(lr_image, expected[channel])


def test_colour_images_stay_colour_images(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (9, 12, 3)).astype(np.uint8)
    (tmp_path / "hr").mkdir()
    io.imsave(str(tmp_path / "hr" / "cell_0000.png"), picture)
    work = simulation(
        tmp_path, tmp_path / "lr", scale=(3, 2), hr_spacing=(1, 1), reader="NaturalImage2DIO",
        normalization=["RGBTo01Normalization"] * 3,
        degradation=spec_json("identity", "area", "area"),
        dataset_json={"channel_names": {str(c): "rgb"[c] for c in range(3)}, "file_ending": ".png"},
    )  # fmt: skip
    simulate_folder(tmp_path / "hr", work, num_processes=1)
    lr_picture = io.imread(str(tmp_path / "lr" / "cell_0000.png"))
    expected = np.rint(picture.reshape(3, 3, 6, 2, 3).astype(float).mean((1, 3)))
    assert lr_picture.dtype == np.uint8
    np.testing.assert_allclose(lr_picture, expected, atol=1)
    read_again, _ = NaturalImage2DIO().read_images([str(tmp_path / "lr" / "cell_0000.png")])
    assert read_again.shape == (3, 1, 3, 6)


def test_a_missing_label_is_named(tiny_copy, tmp_path):
    (tiny_copy / "labelsTr" / "tiny_4.nii.gz").unlink()
    work = simulation(tiny_copy, tmp_path / "lr", labels=tiny_copy / "labelsTr")
    with pytest.raises(RuntimeError, match=r"case tiny_4: the label file .* is missing"):
        simulate_folder(tiny_copy / "imagesTr", work, num_processes=1)
    assert not (tmp_path / "lr" / "tiny_4_0000.nii.gz").exists()


def test_real_pairs_cannot_be_simulated(tiny_dataset, tmp_path):
    work = simulation(tiny_dataset, tmp_path / "lr", degradation=spec_json("paired"))
    with pytest.raises(RuntimeError, match="case tiny_0: the degradation is 'paired'"):
        simulate_folder(tiny_dataset / "imagesTr", work, num_processes=1)


def test_wrong_number_of_channels(tiny_dataset, tmp_path):
    description = {"channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz"}
    work = simulation(tiny_dataset, tmp_path / "lr", dataset_json=description)
    with pytest.raises(RuntimeError, match=r"case tiny_0 has 1 channel\(s\)"):
        simulate_folder(tiny_dataset / "imagesTr", work, num_processes=1)


@pytest.mark.parametrize("output", ["imagesTr", "labelsTr"])
def test_input_is_never_overwritten(tiny_copy, output):
    work = simulation(tiny_copy, tiny_copy / output, labels=tiny_copy / "labelsTr")
    with pytest.raises(ValueError, match="is an input folder"):
        simulate_folder(tiny_copy / "imagesTr", work, num_processes=1)


def test_an_empty_folder(tiny_dataset, tmp_path):
    work = simulation(tiny_dataset, tmp_path / "lr")
    with pytest.raises(FileNotFoundError, match="has no files named <case>_0000.nii.gz"):
        simulate_folder(tmp_path, work, num_processes=1)
