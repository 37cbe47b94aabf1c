"""A known motion is found from intensities alone, the same every time."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from srseg.images.registration import RegistrationOptions, register
from tests.images.moved_volumes import (
    FIXED,
    MOVING,
    Motion,
    body,
    empty,
    errors_mm,
    filled,
    rotation,
    scans,
    voxel_points,
)

MOTION = Motion((6, -8, 10), (5.0, -4.0, 6.0))
TOLERANCE_MM = 0.1 * min(FIXED[1])  # a tenth of the fixed scan's smallest voxel edge


def other_contrast(values):
    return 1000 * np.exp(-2 * values)


@pytest.mark.parametrize(
    ("metric", "contrast"), [("mi", other_contrast), ("correlation", lambda v: 40 * v - 3)]
)
def test_a_known_motion_is_found(metric, contrast):
    fixed, moving = scans(MOTION, contrast)
    assert errors_mm(sitk.Transform(3, sitk.sitkIdentity), MOTION).min() > 3
    found = register(fixed, moving, RegistrationOptions(metric=metric))
    assert errors_mm(found.transform, MOTION).max() < TOLERANCE_MM


def test_the_best_of_several_starts_goes_on():
    shift_mm = (35.0, -20.0, 20.0)  # too far for the headers to be a start
    motion = Motion((6, -8, 10), shift_mm)
    pair = scans(motion, other_contrast, moved_by_mm=shift_mm)
    by_headers = register(*pair, RegistrationOptions(start="world"))
    assert errors_mm(by_headers.transform, motion).max() > 20
    found = register(*pair)
    assert errors_mm(found.transform, motion).max() < TOLERANCE_MM
    assert found.start in ("geometry", "moments")
    assert found.metric < by_headers.metric


def test_twice_gives_the_same():
    fixed, moving = scans(MOTION)

    def result(**options):
        options = RegistrationOptions(start="world", iterations=5, **options)
        return register(fixed, moving, options).transform.GetParameters()

    first = result(seed=1)
    assert result(seed=1) == first


def test_itks_number_of_threads_is_put_back():
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(3)
    try:
        register(*scans(MOTION), RegistrationOptions(start="world", iterations=1))
        assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 3
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def test_samples_of_a_large_volume_are_seeded(monkeypatch):
    from srseg.images import registration

    monkeypatch.setattr(registration, "_MOST_SAMPLES", 3000)
    fixed, moving = scans(MOTION)
    options = [RegistrationOptions(start="world", iterations=4, seed=s) for s in (1, 1, 2)]
    first, same, other = (register(fixed, moving, o).transform.GetParameters() for o in options)
    assert first == same != other


def test_two_coordinate_systems_need_a_start_that_says_so():
    far = Motion((6, -8, 10), (900.0, -4.0, 6.0))
    fixed, moving = scans(MOTION)
    moving.SetOrigin(np.add(moving.GetOrigin(), (895.0, 0, 0)).tolist())
    for start in ("auto", "world"):
        with pytest.raises(ValueError, match="do not overlap in world coordinates; .*-init geom"):
            register(fixed, moving, RegistrationOptions(start=start))
    for start in ("geometry", "moments"):
        found = register(fixed, moving, RegistrationOptions(metric="correlation", start=start))
        assert errors_mm(found.transform, far).max() < TOLERANCE_MM
        assert found.start == start


@pytest.mark.parametrize("metric", ["mi", "correlation"])
def test_a_sliver_of_overlap_is_no_registration(metric):
    fixed, _ = scans(Motion((0, 0, 0), (0, 0, 0)))
    beside = rotation(FIXED[2]) @ np.array((57.0, 0, 0))
    moving = empty(MOVING[0], MOVING[1], FIXED[2], beside)
    moving = filled(moving, body(voxel_points(moving)).astype(np.float32))
    options = RegistrationOptions(metric=metric, start="world", iterations=1)
    with pytest.raises(
        ValueError, match="only 8% of the smaller field of view overlap, at least 10%"
    ):
        register(fixed, moving, options)


def test_a_constant_image_is_refused():
    fixed, moving = scans(MOTION)
    flat = filled(empty(*FIXED), np.full(FIXED[0], 7, np.float32))
    with pytest.raises(ValueError, match="the fixed image is 7 everywhere"):
        register(flat, moving)
    with pytest.raises(ValueError, match="the moving image is 7 everywhere"):
        register(fixed, flat)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "ssd"}, "unknown metric 'ssd'; known: mi, correlation"),
        ({"start": "centre"}, "unknown start 'centre'; known: world, geometry, moments, auto"),
        ({"iterations": 0}, "whole numbers from 1 on"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(ValueError, match=message):
        RegistrationOptions(**options)
