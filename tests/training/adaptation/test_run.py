"""What a request becomes: patch, strides and frame, and what is refused before images are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srseg.training.adaptation.run import AdaptationRequest, describe
from tests.training.adaptation.domains import SHAPE, domain

SOURCE, TARGET = domain(target=False), domain(target=True)


def request(**changes):
    return AdaptationRequest(source="s", target="t", output=Path("o"), **changes)


@pytest.mark.parametrize(
    ("patch_size", "expected", "strides"),
    [
        ((16, 32, 32), (5, 10, 12), [[1, 2, 2], [1, 1, 1]]),  # of images of 5 x 9 x 11
        ((4, 8, 8), (4, 8, 8), [[1, 2, 2], [1, 1, 1]]),
        ((3, 7, 7), (3, 7, 7), [[1, 1, 1], [1, 1, 1]]),
        ((8, 10), (8, 10), [[2, 2], [1, 1]]),
    ],
)
def test_the_patch_fits_images_and_strides(patch_size, expected, strides):
    described = describe(request(patch_size=patch_size), SOURCE, TARGET)
    assert SHAPE == (5, 9, 11)
    assert described.network["strides"] == strides
    assert described.patch_size == expected


def test_the_source_frame_is_that_of_the_source_alone():
    described = describe(request(method="none"), SOURCE, TARGET)
    ((slope, intercept),) = described.source_frame
    lows = [(-1 - v.maps[0].intercept) / v.maps[0].slope for v in SOURCE.volumes]
    assert (-1 - intercept) / slope == pytest.approx(np.median(lows))
    assert described.network == {}


def test_a_histogram_is_of_all_source_bodies():
    described = describe(request(method="histogram"), SOURCE, TARGET)
    pooled = np.concatenate([v.image[v.bodies] for v in SOURCE.volumes])
    (table,) = described.quantiles
    assert table[500] == pytest.approx(np.median(pooled), abs=1e-4)
    assert (table[0], table[-1]) == pytest.approx((pooled.min(), pooled.max()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "stargan"}, "unknown method 'stargan'; known: vama"),
        ({"units": "mm"}, "unknown units 'mm'"),
        ({"seed": -1}, "-seed at least 0"),
    ],
)
def test_wrong_requests(changes, words):
    with pytest.raises(ValueError, match=words):
        request(**changes)
