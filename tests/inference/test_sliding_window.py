"""Known predictors: what the network answers is known, so the stitched volume is known too."""

import numpy as np
import pytest
import torch

from srseg.inference.sliding_window import (
    pad_edges,
    padded_shape,
    stitch,
    tile_starts,
    tile_weights,
)

SCALES = [(1, 1, 1), (2, 1, 1), (1, 2, 2), (3, 2, 1)]


def repeat(image, scale):
    for axis, s in enumerate(scale):
        image = image.repeat_interleave(s, dim=axis + 2)
    return image


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(7, 11, 9), (5, 6, 4), (13, 6, 10)])
@pytest.mark.parametrize("step_size", [0.5, 0.75, 1.0])
def test_nearest_upsampling_stitches_to_repeat(shape, scale, step_size):
    lr_image = torch.randn(1, 2, *shape, generator=torch.Generator().manual_seed(0))
    actual = stitch(
        lambda tile: repeat(tile, scale),
        lr_image,
        tile_size=(5, 6, 4),
        scale=scale,
        step_size=step_size,
    )
    torch.testing.assert_close(actual, repeat(lr_image, scale), rtol=0, atol=1e-6)


def test_slices_of_a_2d_network_are_a_batch():
    lr_image = torch.randn(3, 1, 9, 7, generator=torch.Generator().manual_seed(0))
    actual = stitch(
        lambda tile: repeat(tile, (2, 3)), lr_image, tile_size=(4, 6), scale=(2, 3), step_size=0.5
    )
    torch.testing.assert_close(actual, repeat(lr_image, (2, 3)), rtol=0, atol=1e-6)


def test_constant_stays_constant_where_tiles_overlap():
    lr_image = torch.zeros(1, 1, 13, 11, 9)
    actual = stitch(
        lambda tile: torch.full((1, 1, 12, 8, 4), 3.5),
        lr_image,
        tile_size=(6, 8, 4),
        scale=(2, 1, 1),
    )
    torch.testing.assert_close(actual, torch.full_like(actual, 3.5), rtol=0, atol=2e-6)


def test_middle_of_a_tile_counts_more_than_its_border():
    """Two tiles that disagree: each voxel lies nearer to the answer of the nearer tile's centre."""
    answers = iter([0.0, 1.0])
    lr_image = torch.zeros(1, 1, 12, 3, 5)
    actual = stitch(
        lambda tile: torch.full((1, 1, 8, 3, 5), next(answers)),
        lr_image,
        tile_size=(8, 3, 5),
        scale=(1, 1, 1),
    )[0, 0, :, 1, 2]
    assert torch.all(actual[:4] == 0)
    assert torch.all(actual[8:] == 1)
    assert torch.all(actual[4:6] < 0.5)
    assert torch.all(actual[6:8] > 0.5)
    torch.testing.assert_close(actual + actual.flip(0), torch.ones(12))  # blending is symmetric


@pytest.mark.parametrize(("n", "tile", "step"), [(110, 64, 0.5), (7, 5, 0.5), (5, 5, 0.5)])
def test_weights_add_up_to_one(n, tile, step):
    starts = tile_starts((n,), (tile,), step)[0]
    total = np.zeros(n)
    for start, weights in zip(starts, tile_weights(starts, tile), strict=True):
        total[start : start + tile] += weights
    np.testing.assert_allclose(total, 1, rtol=1e-12)


def test_tiles_begin_and_end_at_the_borders():
    assert tile_starts((110, 64, 70), (64, 64, 32), 0.5) == [[0, 23, 46], [0], [0, 13, 25, 38]]


@pytest.mark.parametrize("step_size", [0, -0.5, 1.5])
def test_step_outside_its_range_is_refused(step_size):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        tile_starts((8, 9, 7), (4, 4, 4), step_size)


def test_volume_smaller_than_a_tile_is_refused():
    with pytest.raises(ValueError, match="smaller than a tile"):
        tile_starts((8, 3, 7), (4, 4, 4), 0.5)


def test_wrong_answer_of_the_network_is_refused():
    with pytest.raises(ValueError, match=r"must be \(8, 4, 5\)"):
        stitch(lambda tile: tile, torch.zeros(1, 1, 6, 4, 5), tile_size=(4, 4, 5), scale=(2, 1, 1))


@pytest.mark.parametrize(
    ("shape", "one_pass", "expected"),
    [
        ((7, 11, 9), False, (8, 16, 12)),  # smaller: padded to the patch, as in training
        ((7, 11, 9), True, (8, 16, 12)),
        ((9, 17, 12), False, (9, 17, 12)),  # larger: tiles reach everywhere without padding
        ((9, 17, 12), True, (12, 20, 12)),  # larger in one pass: a multiple of the strides
        ((3, 40, 13), True, (8, 40, 14)),
    ],
)
def test_padding_follows_the_patch_then_the_strides(shape, one_pass, expected):
    actual = padded_shape(shape, (8, 16, 12), multiple=(4, 4, 2), one_pass=one_pass)
    assert actual == expected


def test_padding_repeats_edges_around_the_centre():
    lr_image = torch.arange(2.0 * 2 * 3 * 4).reshape(1, 2, 2, 3, 4)
    padded, where = pad_edges(lr_image, (5, 3, 6))
    assert where == (slice(1, 3), slice(0, 3), slice(1, 5))
    expected = np.pad(lr_image.numpy(), [(0, 0), (0, 0), (1, 2), (0, 0), (1, 1)], mode="edge")
    np.testing.assert_array_equal(padded.numpy(), expected)
    torch.testing.assert_close(padded[(..., *where)], lr_image)


def test_padding_wider_than_the_image():
    padded, where = pad_edges(torch.tensor([[[[1.0, 2.0]]]]), (4, 9))
    assert padded.shape == (1, 1, 4, 9)
    assert padded[0, 0, 2].tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 2]
    assert where == (slice(1, 2), slice(3, 5))
