"""The picture puts every grid into one frame and writes a PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from srseg.cli.demo_picture import busiest_slice, draw_picture, slice_panels

HR_SHAPE, LR_SHAPE, SCALE = (5, 21, 16), (3, 7, 8), (2, 3, 2)  # Z is padded: 6 = 3 * 2
SR_SHAPE = (6, 21, 16)


def volumes() -> dict[str, np.ndarray]:
    hr_image = np.arange(np.prod(HR_SHAPE), dtype=np.float32).reshape(HR_SHAPE)
    return {"LR": np.full(LR_SHAPE, 7.0), "SR": np.resize(hr_image, SR_SHAPE), "HR": hr_image}


def masks() -> dict[str, np.ndarray]:
    labels = np.zeros(HR_SHAPE, np.uint8)
    labels[3, 6:15, 4:11] = 1
    labels[3, 8:11, 5:8] = 2
    labels[1, 3:5, 3:5] = 1
    return {"SR": np.pad(labels, [(0, 1), (0, 0), (0, 0)]), "HR": labels}


def test_busiest_slice_has_most_edges():
    assert busiest_slice(masks()["HR"]) == 3


def test_panels_share_the_hr_frame():
    lr_panel, sr_panel, hr_panel = slice_panels(
        volumes(), masks(), scale=SCALE, captions={"SR": "30 dB"}
    )
    assert lr_panel.voxel == (3, 2)
    assert np.multiply(lr_panel.image.shape, lr_panel.voxel).tolist() == [21, 16]
    assert sr_panel.image.shape == hr_panel.image.shape == (21, 16)
    assert sr_panel.labels.shape == hr_panel.labels.shape == (21, 16)
    np.testing.assert_array_equal(hr_panel.image, volumes()["HR"][3])
    assert lr_panel.labels is None
    assert sr_panel.title == "SR\n30 dB"


def test_lr_slice_is_the_one_that_covers_the_hr_slice():
    pile = volumes()
    pile["LR"] = np.arange(3.0)[:, None, None] * np.ones(LR_SHAPE)
    assert slice_panels(pile, masks(), scale=SCALE)[0].image.max() == 3 // 2


def test_scale_of_ones_is_shown_voxel_by_voxel():
    image = np.zeros((4, 6, 5))
    labels = np.zeros((4, 6, 5), np.uint8)
    panels = slice_panels({"LR": image, "HR": image}, {"HR": labels}, scale=(1, 1, 1))
    assert [panel.voxel for panel in panels] == [(1, 1), (1, 1)]


def test_picture_is_written(tmp_path: Path):
    panels = slice_panels(volumes(), masks(), scale=SCALE)
    file = draw_picture(
        panels, tmp_path / "picture.png", label_names={1: "grey_matter", 2: "white_matter"}
    )
    pixels = imread(file)
    assert pixels.shape[1] == pytest.approx(3 * 3.2 * 150, abs=2)
    colours = {tuple(np.round(c * 255).astype(int)) for c in pixels.reshape(-1, 4)[:, :3]}
    assert (0xFF, 0x9F, 0x1C) in colours  # an outline of label 1
    assert (0x2E, 0xC4, 0xFF) in colours  # an outline of label 2
