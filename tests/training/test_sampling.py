"""Patches lie inside the case, centred where it is too small, and show what they must."""

import itertools

import numpy as np
import pytest
from acvl_utils.cropping_and_padding.padding import pad_nd_image

from srseg.training.sampling import (
    draw_start,
    draw_voxel,
    num_unlabelled,
    padding_below,
    single_sample_share,
    wants_foreground,
)

PATCH = (4, 6, 5)


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("batch_size", "percent", "expected"),
    [
        (2, 0.33, [False, True]),  # by hand: round(2 * 0.67) = 1
        (3, 0.33, [False, False, True]),
        (9, 0.33, [False] * 6 + [True] * 3),
        (1, 0.33, [False]),
        (2, 0.0, [False, False]),
        (2, 1.0, [True, True]),
    ],
)
def test_the_last_third_of_a_batch_shows_foreground(batch_size, percent, expected):
    assert [wants_foreground(i, batch_size, percent) for i in range(batch_size)] == expected


@pytest.mark.parametrize(
    ("batch_size", "fraction", "expected"),
    [
        (1, 0.5, [0, 1, 0, 1]),  # by hand: single samples alternate
        (1, 0.25, [0, 0, 0, 1]),
        (2, 0.5, [1, 1, 1, 1]),
        (2, 0.25, [0, 1, 0, 1]),
        (3, 0.5, [1, 2, 1, 2]),
        (2, 0.9, [1, 1, 1, 1]),  # one of two stays labelled
        (4, 0.99, [3, 3, 3, 3]),
        (9, 0.0, [0, 0, 0, 0]),
    ],
)
def test_the_share_of_unlabelled_samples_holds_over_batches(batch_size, fraction, expected):
    assert [num_unlabelled(i, batch_size, fraction) for i in range(4)] == expected


@pytest.mark.parametrize("fraction", [0.1, 0.29, 1 / 3, 0.7])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 10])
def test_no_share_is_lost_to_rounding(batch_size, fraction):
    counts = [num_unlabelled(i, batch_size, fraction) for i in range(1000)]
    share = min(batch_size * fraction, max(1, batch_size - 1))
    assert abs(sum(counts) - 1000 * share) <= 1
    assert max(counts) - min(counts) <= 1


def test_patches_stay_inside_and_reach_every_place():
    shape = (6, 8, 5)
    rng = generator()
    starts = {tuple(draw_start(rng, shape, PATCH).tolist()) for _ in range(500)}
    assert starts == set(itertools.product(range(3), range(3), range(1)))


def test_a_patch_larger_than_the_case_is_centred_as_the_predictor_pads():
    shape = (3, 3, 9)
    start = draw_start(generator(), shape, PATCH)
    _, inside = pad_nd_image(np.zeros(shape), PATCH, return_slicer=True)
    assert [-int(s) for s in start[:2]] == [part.start for part in inside[:2]]
    assert 0 <= start[2] <= 4
    assert padding_below(shape, PATCH).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("centre", "expected"),
    [((10, 10, 10), (8, 7, 8)), ((0, 1, 2), (0, 0, 0)), ((19, 20, 21), (16, 15, 17))],
)
def test_a_wanted_voxel_is_in_the_middle_or_as_near_as_the_border_allows(centre, expected):
    start = draw_start(generator(), (20, 21, 22), PATCH, centre=centre)
    assert tuple(start) == expected
    assert all(s <= c < s + n for s, c, n in zip(start, centre, PATCH, strict=True))


def test_a_centre_changes_no_later_draw():
    one, other = generator(), generator()
    draw_start(one, (20, 21, 22), PATCH)
    draw_start(other, (20, 21, 22), PATCH, centre=(3, 3, 3))
    assert one.random() == other.random()


ANNOTATED = (-1, 0, 1, 2)
LOCATIONS = {
    1: np.array([[1, 2, 3]]),
    2: np.array([[4, 5, 6], [7, 8, 9]]),
    3: np.zeros((0, 3), int),
    ANNOTATED: np.array([[10, 11, 12]]),
}


def drawn(locations, *, foreground):
    rng = generator()
    voxels = [
        draw_voxel(rng, locations, annotated=ANNOTATED, foreground=foreground) for _ in range(200)
    ]
    return [None if voxel is None else tuple(voxel) for voxel in voxels]


def test_classes_are_drawn_evenly_whatever_their_size():
    voxels = drawn(LOCATIONS, foreground=True)
    assert set(voxels) == {(1, 2, 3), (4, 5, 6), (7, 8, 9)}
    assert 70 < voxels.count((1, 2, 3)) < 130


def test_without_foreground_an_annotated_voxel_is_shown():
    assert set(drawn(LOCATIONS, foreground=False)) == {(10, 11, 12)}


def test_annotated_voxels_stand_in_where_there_is_no_foreground():
    assert set(drawn({ANNOTATED: LOCATIONS[ANNOTATED]}, foreground=True)) == {(10, 11, 12)}


@pytest.mark.parametrize("foreground", [True, False])
def test_a_case_without_foreground_asks_for_nothing(foreground):
    assert drawn({1: LOCATIONS[3]}, foreground=foreground)[0] is None


@pytest.mark.parametrize(("percent", "share"), [(0.33, 0.5), (0.0, 0.0), (1.0, 1.0), (0.2, 0.0)])
def test_a_single_sample_shows_foreground_as_often_as_one_of_two(percent, share):
    assert single_sample_share(percent) == share
