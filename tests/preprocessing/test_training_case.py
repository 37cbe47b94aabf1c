"""The world-ramp law, the frame of intensities and the stock export of a training case."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)

from srseg.geometry.grid import pad_to_multiple
from srseg.images.properties import grid_of
from srseg.preprocessing.intensity import maps_of
from srseg.preprocessing.raw_cases import RawCase
from srseg.preprocessing.training_case import class_locations, training_case
from tests.preprocessing.hand_plans import (
    TRANSPOSES,
    half_space,
    hand_plans,
    itk_properties,
    managers,
    spec_json,
    world_at,
    world_ramp,
)

SCALES = ((1, 1, 1), (2, 1, 1), (1, 2, 2), (3, 2, 1))
SHAPE = (53, 46, 43)
SPACING = (2.0, 0.75, 0.5)
LABELS = {"labels": {"background": 0, "side": 1}}


def planned_spacing(plan_order, zoom=(1.0, 1.0, 1.0)):
    return [SPACING[axis] * zoom[axis] for axis in plan_order]


def make(raw: RawCase, plans: dict, dataset_json: dict = LABELS):
    plans_manager, configuration_manager = managers(plans)
    labels = plans_manager.get_label_manager(dataset_json)
    return training_case(raw, plans_manager, configuration_manager, labels), plans_manager


def stored_index(shape, box, start_of_grid=(0, 0, 0)):
    """Return (3, Z, Y, X): the native continuous index of each stored voxel, in plan order."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")).astype(float)
    for axis, (start, stop) in enumerate(box):
        index[axis] = (index[axis] + 0.5) * (stop - start) / shape[axis] - 0.5 + start
    return index


@pytest.mark.parametrize("zoom", [(1.0, 1.0, 1.0), (0.8, 1.3, 1.1)], ids=["native", "resampled"])
@pytest.mark.parametrize("transpose", TRANSPOSES)
@pytest.mark.parametrize("scale", SCALES)
def test_world_ramp(scale, transpose, zoom):
    """Stored HR voxels hold the world of the HR grid, LR voxels that of the LR grid."""
    raw = world_ramp(SHAPE, SPACING, border=3)
    plans = hand_plans(
        planned_spacing(transpose, zoom), scale, transpose=transpose,
        normalization=["NoNormalization"] * 3,
    )  # fmt: skip
    case, plans_manager = make(raw, plans)

    native_scale = plans_manager.native(scale)
    padded = pad_to_multiple(raw.hr_image, native_scale)
    hr_grid = grid_of(raw.properties, padded.shape)
    hr_box = case.properties["bbox_used_for_cropping"]
    lr_box = [[start // s, stop // s] for (start, stop), s in zip(hr_box, scale, strict=True)]
    for image, grid, box, factor in (
        (case.hr_image, hr_grid, hr_box, scale),
        (case.lr_image, hr_grid.coarsened(native_scale), lr_box, (1, 1, 1)),
    ):
        index = stored_index(image.shape[1:], box)
        native_index = index[list(plans_manager.transpose_backward)]
        # four LR voxels from the crop's border the kernels see no zeros
        inside = (slice(None), *(slice(4 * s, -4 * s) for s in factor))
        expected = world_at(grid, native_index)
        assert min(image[inside].shape) > 0

        np.testing.assert_allclose(image[inside], expected[inside], atol=5e-4)  # mm
    hr_shape = tuple(n * s for n, s in zip(case.lr_image.shape[1:], scale, strict=True))
    assert case.hr_image.shape[1:] == case.hr_seg.shape[1:] == hr_shape
    assert case.properties["srseg"]["hr_shape"] == hr_shape
    assert case.properties["srseg"]["lr_shape"] == case.lr_image.shape[1:]


@pytest.mark.parametrize("transpose", TRANSPOSES)
def test_labels_stay_where_the_image_says(transpose):
    """A half-space by world coordinates is the same half-space in the stored arrays."""
    raw = world_ramp(SHAPE, SPACING)
    plans = hand_plans(
        planned_spacing(transpose, (0.8, 1.3, 1.1)), (1, 2, 2), transpose=transpose,
        normalization=["NoNormalization"] * 3,
    )  # fmt: skip
    case, _ = make(raw, plans)
    world = case.hr_image
    direction = np.array([0.5, 0.7, -0.4])
    side = np.tensordot(direction, world, axes=1)
    threshold = np.median(np.tensordot(direction, raw.hr_image, axes=1))
    clear = np.abs(side - threshold) > 1.0  # mm, about a voxel
    assert np.array_equal(case.hr_seg[0][clear], (side > threshold)[clear])


def noise_case(shape=(9, 14, 11), *, border=0, spacing=SPACING, channels=1) -> RawCase:
    generator = np.random.default_rng(4)
    image = generator.uniform(50, 900, (channels, *shape)).astype(np.float32)
    labels = generator.integers(0, 3, (1, *shape)).astype(np.int16)
    if border:
        kept = np.zeros(shape, dtype=bool)
        kept[(slice(border, -border),) * 3] = True
        image[:, ~kept], labels[:, ~kept] = 0, 0
    return RawCase(image, labels, itk_properties(spacing), ["int16"] * channels)


@pytest.mark.parametrize("transpose", TRANSPOSES)
@pytest.mark.parametrize("scale", SCALES)
def test_stock_export_of_the_stored_labels_is_the_raw_file(scale, transpose):
    """Odd sizes were padded, a border was cropped: nnU-Net's own export undoes both."""
    raw = noise_case(border=2)
    plans = hand_plans(planned_spacing(transpose), scale, transpose=transpose)
    dataset_json = {"labels": {"background": 0, "a": 1, "b": 2}}
    case, plans_manager = make(raw, plans, dataset_json)
    labels = np.maximum(case.hr_seg[0], 0)
    logits = np.stack([labels == label for label in range(3)]).astype(np.float32)

    class HRGrid:  # the export reads the spacing and the resampling, nothing else
        spacing = plans_manager.get_configuration("3d_fullres").hr_spacing
        resampling_fn_probabilities = plans_manager.get_configuration(
            "3d_fullres"
        ).resampling_fn_probabilities

    exported = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans_manager, HRGrid, plans_manager.get_label_manager(dataset_json),
        case.properties, num_threads_torch=1,
    )  # fmt: skip
    np.testing.assert_array_equal(exported, raw.hr_seg[0])


def test_intensities_share_one_frame_from_the_lr_image():
    """LR has mean 0 and deviation 1; HR goes back to raw by the stored map alone."""
    raw = noise_case((8, 12, 10), channels=2)
    plans = hand_plans(SPACING, (2, 2, 1), normalization=["ZScoreNormalization"] * 2)
    case, _ = make(raw, plans)
    for channel, intensity in enumerate(maps_of(case.properties)):
        lr_image = case.lr_image[channel]
        assert abs(lr_image.mean()) < 1e-5
        assert lr_image.std() == pytest.approx(1, abs=1e-4)
        assert case.hr_image[channel].std() > 1.5  # noise: averaging took most of it from the LR
        np.testing.assert_allclose(
            intensity.invert(case.hr_image[channel]), raw.hr_image[channel], rtol=1e-5
        )


def test_nothing_that_is_stored_is_clipped():
    """The SR image starts from the interpolated LR image: bone and air must be in it."""
    raw = noise_case((8, 12, 10))
    raw.hr_image[:] = raw.hr_image * 0.5 - 200  # far outside the dataset's -10 ... 90
    case, _ = make(raw, hand_plans(SPACING, (2, 1, 1), normalization=["CTNormalization"]))
    assert case.lr_image.min() < (-150 - 40) / 20
    np.testing.assert_allclose(case.hr_image, (raw.hr_image - 40) / 20, atol=1e-4)
    assert case.properties["srseg"]["background"] == [-2.0]
    assert case.properties["srseg"]["dtype"] == ["int16"]


def test_outside_the_nonzero_mask_is_marked():
    """Background whose LR voxel is exactly zero is -1, labelled voxels never are."""
    raw = noise_case((8, 12, 10))
    raw.hr_image[:, :4, :6, :5] = 0
    raw.hr_seg[:, :4, :6, :5] = 0
    raw.hr_seg[0, 0, 0, 0] = 2
    case, _ = make(raw, hand_plans(SPACING, (2, 2, 1)), {"labels": {"background": 0, "b": 2}})
    expected = raw.hr_seg.copy()
    expected[:, :4, :6, :5] = -1
    expected[0, 0, 0, 0] = 2
    np.testing.assert_array_equal(case.hr_seg, expected)


def test_a_2d_configuration_keeps_its_slices():
    raw = noise_case((5, 14, 11))
    plans = hand_plans((0.6, 0.5), (2, 2), degradation=spec_json("identity", "area", "area"))
    case, _ = make(raw, plans)
    # in-plane 14 x 11 voxels of 0.75 x 0.5 mm, padded to 14 x 12, LR voxels of 1.2 x 1.0 mm
    assert case.lr_image.shape == (1, 5, 9, 6)
    assert case.hr_image.shape == (1, 5, 18, 12)


def test_class_locations_are_few_small_and_true():
    raw = noise_case((30, 42, 34))
    dataset_json = {"labels": {"background": 0, "a": 1, "b": 2}}
    case, _ = make(raw, hand_plans(SPACING, (2, 1, 1)), dataset_json)
    found = case.properties["class_locations"]
    assert set(found) == {1, 2}
    for label, voxels in found.items():
        assert voxels.shape == (10_000, 4)
        assert voxels.dtype == np.int32
        assert (case.hr_seg[tuple(voxels.T)] == label).all()


def test_class_locations_of_regions_and_ignore_label():
    plans_manager, _ = managers(hand_plans(SPACING, (2, 1, 1)))
    labels = plans_manager.get_label_manager(
        {
            "labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3},
            "regions_class_order": [1, 2],
        }
    )
    hr_seg = np.array([[[[0, 1, 3, 3, 2, -1]]]], dtype=np.int16)
    found = class_locations(hr_seg, labels)
    assert sorted(found[(1, 2)][:, 3]) == [1, 4]
    assert found[(2,)].tolist() == [[0, 0, 0, 4]]
    assert sorted(found[(-1, 0, 1, 2)][:, 3]) == [0, 1, 4, 5]  # all that is annotated
    assert len(class_locations(hr_seg[..., :4], labels)[(2,)]) == 0


def test_a_case_without_labels_locates_nothing():
    """With an ignore label, background is annotated; a case without labels is not."""
    labels = {"labels": {"background": 0, "side": 1, "ignore": 2}}
    raw = world_ramp((12, 14, 10), SPACING, border=2)
    raw = replace(raw, hr_seg=np.zeros_like(raw.hr_seg))
    plans = hand_plans(SPACING, (1, 2, 2), normalization=["ZScoreNormalization"] * 3)
    background = make(raw, plans, labels)[0]
    unlabelled = make(replace(raw, labelled=False), plans, labels)[0]
    assert background.properties["class_locations"]
    assert unlabelled.properties["class_locations"] == {}
    np.testing.assert_array_equal(unlabelled.hr_seg, background.hr_seg)
    np.testing.assert_array_equal(unlabelled.lr_image, background.lr_image)


def test_a_real_pair_is_not_degraded():
    raw = noise_case((8, 12, 10))
    lr_image = np.random.default_rng(1).uniform(1, 2, (1, 4, 6, 10)).astype(np.float32)
    valid = np.ones((8, 12, 10), dtype=bool)
    valid[:3] = False
    plans = hand_plans(
        SPACING, (2, 2, 1), normalization=["NoNormalization"], degradation=spec_json("paired")
    )
    case, _ = make(replace(raw, lr_image=lr_image, valid=valid), plans)
    np.testing.assert_array_equal(case.lr_image, lr_image)
    np.testing.assert_array_equal(case.valid[0], valid)
    everywhere, _ = make(replace(raw, lr_image=lr_image, valid=valid | True), plans)
    assert everywhere.valid is None


def test_the_raw_case_is_left_as_it_was():
    raw = noise_case(border=2)
    before = raw.hr_image.copy(), raw.hr_seg.copy(), dict(raw.properties)
    make(raw, hand_plans(SPACING, (1, 2, 2)))
    np.testing.assert_array_equal(raw.hr_image, before[0])
    np.testing.assert_array_equal(raw.hr_seg, before[1])
    assert raw.properties == before[2]


def test_half_space_helper_is_a_half_space():
    labels = half_space(np.stack(np.meshgrid(*(np.arange(5.0),) * 3, indexing="ij")))
    assert 0.3 < labels.mean() < 0.7
