"""Rows of a case: what is in them, what is left out, and what the mean says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from scipy import ndimage

from srseg.metrics.baselines import upsample_cubic, upsample_sinc
from srseg.metrics.image import body_mask, data_range_of, psnr, ssim3d
from srseg.metrics.summary import (
    count_valid,
    mean_metrics,
    segmentation_metrics,
    sr_metrics,
    sr_metrics_per_channel,
    voxel_tolerances_mm,
)

SPACING = (3.0, 2.0, 1.0)
TOLERANCES = {"hr_voxel": 1.0, "lr_voxel": 2.0}


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ((1, 2, 2), (0.7, 1.4)),
        ((3, 1, 1), (5.0, 15.0)),
        ((2, 3, 1), (0.9, 2.7)),
        ((1, 1, 1), (0.7, 0.7)),
    ],
)
def test_tolerances_are_of_refined_axes(scale, expected):
    tolerances = voxel_tolerances_mm((5.0, 0.9, 0.7), scale)
    assert (tolerances["hr_voxel"], tolerances["lr_voxel"]) == pytest.approx(expected)


def label_maps():
    generator = np.random.default_rng(0)
    maps = [
        np.digitize(ndimage.gaussian_filter(generator.normal(size=(9, 12, 15)), 1.5), [0, 0.1])
        for _ in range(2)
    ]
    return [m.astype(np.float32) for m in maps]


class _ArrayReader:
    """Hands arrays to nnU-Net's own evaluation as if they were files."""

    def __init__(self, **arrays):
        self.arrays = arrays

    def read_seg(self, name):
        return self.arrays[name][None], {}


@pytest.mark.parametrize("ignore_label", [None, 2])
@pytest.mark.parametrize("labels", [[1, 2], [(1, 2), (1,)]])
def test_overlap_is_nnunets_own(labels, ignore_label):
    segmentation, reference = label_maps()
    ours = segmentation_metrics(
        segmentation,
        reference,
        labels,
        spacing=SPACING,
        tolerances_mm=TOLERANCES,
        ignore_label=ignore_label,
    )
    stock = compute_metrics(
        "ref", "pred", _ArrayReader(ref=reference, pred=segmentation), labels, ignore_label
    )["metrics"]
    for label in labels:
        for name, value in stock[label].items():
            assert ours[label][name] == pytest.approx(value, nan_ok=True), (label, name)
    assert set(ours[labels[0]]) - set(stock[labels[0]]) == {
        "nsd_hr_voxel",
        "nsd_lr_voxel",
        "hd95_mm",
        "volume_error_percent",
    }


def test_boundary_by_hand():
    reference = np.zeros((9, 12, 15), np.float32)
    segmentation = reference.copy()
    reference[3, 4, 5] = 1
    segmentation[3, 4, 7] = 1
    row = segmentation_metrics(
        segmentation, reference, [1, 2], spacing=SPACING, tolerances_mm=TOLERANCES
    )
    assert (row[1]["nsd_hr_voxel"], row[1]["nsd_lr_voxel"], row[1]["hd95_mm"]) == (0.5, 1, 2)
    assert row[1]["volume_error_percent"] == 0
    assert math.isnan(row[2]["Dice"])
    assert math.isnan(row[2]["hd95_mm"])


def test_ignored_voxels_have_no_boundary():
    reference = np.zeros((9, 12, 15), np.float32)
    reference[2:6, 3:8, 4:9] = 1
    segmentation = reference.copy()
    segmentation[:, :, 11:] = 1  # wrong, but nobody annotated there
    reference[:, :, 11:] = 3
    row = segmentation_metrics(
        segmentation, reference, [1], spacing=SPACING, tolerances_mm=TOLERANCES, ignore_label=3
    )[1]
    assert (row["Dice"], row["hd95_mm"], row["volume_error_percent"]) == (1, 0, 0)


def test_only_valid_voxels_are_scored():
    reference = np.zeros((9, 12, 15), np.float32)
    reference[2:6, 3:8, 4:9] = 1
    segmentation = reference.copy()
    segmentation[:, :, 11:] = 1  # nobody knows whether that is wrong
    segmentation[2, 3, 4] = 0
    valid = np.broadcast_to(np.arange(15) < 11, reference.shape)
    options = {"spacing": SPACING, "tolerances_mm": TOLERANCES}
    row = segmentation_metrics(segmentation, reference, [1], valid=valid, **options)[1]
    part = segmentation_metrics(segmentation[..., :11], reference[..., :11], [1], **options)[1]
    assert row == pytest.approx(part)
    reference[2, 3, 4] = 2  # the dataset's ignore label besides
    row = segmentation_metrics(
        segmentation, reference, [1], valid=valid, ignore_label=2, **options
    )[1]
    assert (row["Dice"], row["TN"] + row["n_ref"]) == (1, valid.sum() - 1)
    with pytest.raises(ValueError, match=r"valid has shape \(9, 12, 11\), the reference"):
        segmentation_metrics(segmentation, reference, [1], valid=valid[..., :11], **options)


def test_segmentation_shapes_must_agree():
    with pytest.raises(ValueError, match="differ in shape"):
        segmentation_metrics(
            np.zeros((1, 4, 5)),
            np.zeros((3, 4, 5)),
            [1],
            spacing=SPACING,
            tolerances_mm=TOLERANCES,
        )


def images(channels=1, shape=(12, 26, 28)):
    """Return (sr, hr, lr): bright texture in air, an imperfect SR, and a LR of block means."""
    generator = np.random.default_rng(0)
    texture = ndimage.gaussian_filter(generator.normal(size=(channels, *shape)), (0, 1.5, 1.5, 1.5))
    hr_image = 400 + 300 * texture / texture.std()
    hr_image[:, :, :3] = 0
    hr_image = hr_image.astype(np.float32)
    lr_image = block_mean(hr_image)
    sr_image = hr_image + 5 * generator.normal(size=hr_image.shape).astype(np.float32)
    return sr_image, hr_image, lr_image


def block_mean(image):
    c, z, y, x = image.shape
    return image.reshape(c, z, y // 2, 2, x // 2, 2).mean(axis=(3, 5))


def test_sr_row_is_the_metrics_one_by_one():
    sr_image, hr_image, lr_image = images()
    row = sr_metrics(sr_image, hr_image, lr_image, degrade=block_mean)
    sr, hr, lr = sr_image[0], hr_image[0], lr_image[0]
    wide, body = data_range_of(hr), body_mask(hr)
    low = np.percentile(hr, 0.5)
    assert not body.all()
    for name, image in (
        ("", sr),
        ("cubic_", upsample_cubic(lr, (1, 2, 2))),
        ("sinc_", upsample_sinc(lr, (1, 2, 2))),
    ):
        assert row[f"{name}psnr_body_db"] == pytest.approx(
            psnr(image, hr, data_range=wide, mask=body)
        )
        assert row[f"{name}psnr_whole_db"] == pytest.approx(psnr(image, hr, data_range=wide))
        assert row[f"{name}ssim_body"] == pytest.approx(
            ssim3d(image - low, hr - low, data_range=wide, mask=body), abs=1e-6
        )
        assert row[f"{name}lr_consistency_psnr_db"] == pytest.approx(
            psnr(block_mean(image[None])[0], lr, data_range=wide)
        )
        assert {f"{name}{key}" for key in ("ssim_whole", "mae_input_units", "nmse", "hfen")} < set(
            row
        )
    for baseline in ("cubic", "sinc"):
        for where in ("body", "whole"):
            gain = row[f"psnr_{where}_db"] - row[f"{baseline}_psnr_{where}_db"]
            assert row[f"psnr_{where}_gain_over_{baseline}_db"] == pytest.approx(gain)


def test_without_lr_image_there_is_no_baseline():
    sr_image, hr_image, _ = images()
    row = sr_metrics(sr_image, hr_image, degrade=block_mean)
    assert list(row) == [
        "psnr_body_db",
        "psnr_whole_db",
        "ssim_body",
        "ssim_whole",
        "mae_input_units",
        "nmse",
        "hfen",
    ]


def test_padding_beyond_the_reference_does_not_count():
    sr_image, hr_image, _ = images()
    cut = hr_image[:, :, :25, :27]
    expected = sr_metrics(sr_image[:, :, :25, :27], cut)
    for padded in (sr_image, np.where(np.arange(28) == 27, 1e6, sr_image)):
        actual = sr_metrics(padded, cut)
        assert actual == expected


def test_sr_image_without_its_padding_belongs_to_the_lr_image():
    """25 = 2 * 13 - 1: the image is padded by its edge again, as it was before degrading."""
    sr_image, hr_image, _ = images()
    cut_sr, cut_hr = sr_image[:, :, :25, :27], hr_image[:, :, :25, :27]
    padding = ((0, 0), (0, 0), (0, 1), (0, 1))
    lr_image = block_mean(np.pad(cut_hr, padding, mode="edge"))
    row = sr_metrics(cut_sr, cut_hr, lr_image, degrade=block_mean)
    whole = sr_metrics(np.pad(cut_sr, padding, mode="edge"), cut_hr, lr_image, degrade=block_mean)
    assert row == pytest.approx(whole)
    assert row["lr_consistency_psnr_db"] > row["psnr_whole_db"] + 4


def test_channels_are_averaged():
    sr_image, hr_image, lr_image = images(channels=2)
    sr_image[1] += 20
    rows = sr_metrics_per_channel(sr_image, hr_image, lr_image)
    singles = [
        sr_metrics(sr_image[c : c + 1], hr_image[c : c + 1], lr_image[c : c + 1]) for c in (0, 1)
    ]
    for row, single in zip(rows, singles, strict=True):
        assert row == pytest.approx(single)
    mean = sr_metrics(sr_image, hr_image, lr_image)
    assert rows[0]["psnr_body_db"] > rows[1]["psnr_body_db"] + 5
    for key, value in mean.items():
        assert value == pytest.approx((rows[0][key] + rows[1][key]) / 2)


@pytest.mark.parametrize("filler", ["minimum", "far below"])
def test_only_valid_voxels_count(filler):
    """What a straight mask leaves is scored as if nothing else had ever been there."""
    sr_image, hr_image, lr_image = images()
    valid = np.ones(hr_image.shape[1:], dtype=bool)
    valid[:, :, 20:] = valid[:, :1] = False
    spoilt_sr, spoilt_hr = sr_image.copy(), hr_image.copy()
    spoilt_sr[0, ~valid] = 1e5
    spoilt_hr[0, ~valid] = hr_image[0][valid].min() if filler == "minimum" else -1e4
    row = sr_metrics(spoilt_sr, spoilt_hr, lr_image, valid=valid)
    part = sr_metrics(sr_image[:, :, 1:, :20], hr_image[:, :, 1:, :20])
    assert {key: row[key] for key in part} == pytest.approx(part)
    nowhere = sr_metrics(sr_image, hr_image, valid=np.zeros_like(valid))
    assert all(math.isnan(value) for value in nowhere.values())


def test_a_skew_valid_mask_leaves_no_edge_of_its_own():
    """The step between scan and filler is no structure: no window or kernel reaches over it."""
    shape = (30, 33, 35)
    generator = np.random.default_rng(0)
    texture = ndimage.gaussian_filter(generator.normal(size=(1, *shape)), (0, 1.5, 1.5, 1.5))
    hr_image = (400 + 300 * texture / texture.std()).astype(np.float32)
    sr_image = hr_image + 30 * generator.normal(size=hr_image.shape).astype(np.float32)
    z, y, x = np.indices(shape)
    valid = z + y + x < 70
    rows = [
        sr_metrics(sr_image, np.where(valid, hr_image, filler).astype(np.float32), valid=valid)
        for filler in (-2000, 3000)
    ]
    assert rows[0] == pytest.approx(rows[1])
    whole = sr_metrics(sr_image, hr_image)
    for key in ("psnr_whole_db", "ssim_whole", "nmse", "hfen"):
        assert rows[0][key] == pytest.approx(whole[key], rel=0.1)


def test_constant_reference_has_no_range():
    flat = np.full((1, 12, 14, 16), 7.0, np.float32)
    row = sr_metrics(flat + 1, flat, flat, degrade=lambda image: image)
    assert row["mae_input_units"] == 1
    assert all(math.isnan(row[k]) for k in ("psnr_body_db", "ssim_whole", "lr_consistency_psnr_db"))


@pytest.mark.parametrize(
    ("sr", "hr", "lr", "valid", "message"),
    [
        ((2, 6, 8, 8), (1, 6, 8, 8), None, None, "as many channels"),
        ((6, 8, 8), (1, 6, 8, 8), None, None, r"must be \(C, Z, Y, X\)"),
        ((1, 6, 8, 7), (1, 6, 8, 8), None, None, "does not cover the reference"),
        ((1, 6, 8, 8), (1, 6, 8, 8), None, (1, 8, 8), "valid has shape"),
        ((1, 6, 8, 8), (1, 6, 8, 8), (1, 6, 5, 4), None, "no whole-number refinement"),
        ((1, 6, 8, 8), (1, 6, 8, 8), (2, 6, 4, 4), None, "no whole-number refinement"),
    ],
)
def test_shapes_that_do_not_fit(sr, hr, lr, valid, message):
    with pytest.raises(ValueError, match=message):
        sr_metrics(
            np.zeros(sr),
            np.zeros(hr),
            None if lr is None else np.zeros(lr),
            valid=None if valid is None else np.ones(valid, bool),
        )


def test_means_are_over_what_there_is():
    rows = [{"a": 1.0, "b": math.nan}, {"a": 3.0, "b": math.nan}, {"a": math.inf, "c": 2}]
    assert mean_metrics(rows) == pytest.approx({"a": 2, "b": math.nan, "c": 2}, nan_ok=True)
    assert count_valid(rows) == {"a": 2, "b": 0, "c": 1}
    assert mean_metrics([]) == {}
