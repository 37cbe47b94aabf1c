"""Which grids a dataset gets: pairs decide, else the user, else the rules."""

from __future__ import annotations

import numpy as np
import pytest

from srseg.planning.grids import Cases, Wishes, plan_grids, slice_axis_first

SPACINGS = [[3.0, 0.9, 0.8], [3.0, 1.0, 0.8], [4.0, 0.9, 0.7]]
SHAPES = [[7, 33, 30], [8, 35, 29], [9, 36, 40]]


def fingerprint(*, paired: bool = False) -> dict:
    cases: dict = {f"case_{i}": {} for i in range(3)}
    if paired:
        for i, case in enumerate(cases.values()):
            case["lr"] = {
                "spacing": np.multiply(SPACINGS[i], (2, 1, 3)).tolist(),
                "hr_spacing_along_axes": SPACINGS[i],
                "shape_after_crop": [4, 33, 11],
            }
    block = {"paired": paired, "cases": cases, "structure_thickness_mm": {"a": [20, 9, 9]}}
    return {"spacings": SPACINGS, "shapes_after_crop": SHAPES, "srseg": block}


def planned(content: dict, wishes: Wishes | None = None, **options):
    options.setdefault("target_spacing", lambda cases: np.median(cases.spacings, axis=0))
    options.setdefault("fits", lambda *_: True)
    return plan_grids(content, wishes or Wishes(), **options)


def test_rule():
    grids = planned(fingerprint())
    assert grids.choice.scale == (1, 2, 2)
    assert grids.hr_spacing == (3.0, 0.9, 0.8)
    assert grids.transpose == (0, 1, 2)
    assert grids.planned_lr_spacing == pytest.approx((3.0, 1.8, 1.6))


def test_lr_shapes_are_those_that_preprocessing_makes():
    lr_shapes = planned(fingerprint()).planned_lr_shapes
    # the second case: 35 voxels are padded to 18 LR voxels of 2.0 mm, which are 20 of 1.8 mm
    # the third keeps its 9 slices of 4 mm
    assert lr_shapes.tolist() == [[7, 17, 15], [8, 20, 15], [9, 18, 17]]
    assert planned(fingerprint()).planned_lr_median == (8, 18, 15)


def test_memory_rule_asks_for_the_median_lr_volume():
    asked = []

    def fits(lr_spacing, lr_shape, scale):
        asked.append((scale, list(lr_spacing), list(lr_shape)))
        return np.prod(scale) >= 6

    assert planned(fingerprint(), fits=fits).choice.scale == (1, 2, 3)
    assert asked[0] == ((1, 2, 2), [3.0, 1.8, 1.6], [8, 18, 15])
    assert asked[1][0] == (1, 4, 4)  # whether raising can help at all


def test_user_scale():
    grids = planned(fingerprint(), Wishes(scale=(1, 1, 1)))
    assert grids.choice.scale == (1, 1, 1)
    assert "-scale" in grids.choice.reason
    assert grids.planned_lr_shapes.tolist() == [[7, 33, 30], [8, 39, 29], [9, 36, 35]]


def test_slices_far_apart_are_kept_and_their_median_distance_is_planned():
    grids = planned(fingerprint(), target_spacing=lambda cases: (2.0, 0.9, 0.8))
    assert (grids.native_axes, grids.planned_native_axes) == ((0,), [0])
    assert grids.hr_spacing == (3.0, 0.9, 0.8)


@pytest.mark.parametrize(
    ("wishes", "spacings"),
    [
        (Wishes(hr_spacing=(3.0, 0.9, 0.8)), SPACINGS),  # the user has said so
        (Wishes(scale=(2, 1, 1)), SPACINGS),  # refined
        (Wishes(), [[2.5, 0.9, 0.8]] * 3),  # not far apart
        (Wishes(), [[999.0, 0.9, 0.8]] * 3),  # 2-D
    ],
    ids=["asked", "refined", "near", "2-D"],
)
def test_other_axes_are_resampled(wishes, spacings):
    content = {**fingerprint(), "spacings": spacings}
    grids = planned(content, wishes, target_spacing=lambda cases: (2.5, 0.9, 0.8))
    assert grids.native_axes == ()
    assert grids.hr_spacing == (2.5, 0.9, 0.8)


def test_slices_over_twice_as_far_apart_are_resampled():
    content = {**fingerprint(), "spacings": [[3.0, 0.9, 0.8], [3.0, 0.9, 0.8], [9.0, 0.9, 0.8]]}
    assert planned(content).planned_lr_shapes[:, 0].tolist() == [7, 8, 27]


def test_user_lr_spacing():
    grids = planned(fingerprint(), Wishes(lr_spacing=(3.0, 2.0, 3.0)))
    assert grids.choice.scale == (1, 2, 4)
    assert grids.hr_spacing == pytest.approx((3.0, 1.0, 0.75))
    assert grids.planned_lr_spacing == pytest.approx((3.0, 2.0, 3.0))


def test_pairs_decide_and_the_hr_grid_is_the_lr_grid_refined():
    grids = planned(fingerprint(paired=True))
    assert grids.choice.scale == (2, 1, 3)
    assert grids.hr_spacing == pytest.approx((3.0, 0.9, 0.8))
    assert grids.cases.shapes.tolist() == [[8, 33, 33]] * 3
    assert grids.planned_lr_shapes[0].tolist() == [4, 33, 11]


@pytest.mark.parametrize("wish", [{"scale": (2, 2, 2)}, {"lr_spacing": (3.0, 3.0, 3.0)}])
def test_a_wish_against_pairs(wish):
    with pytest.raises(ValueError, match="real LR images .* decide the scale 2x1x3"):
        planned(fingerprint(paired=True), Wishes(**wish))


def test_image_smaller_than_the_scale():
    message = r"case case_0: the image of 7x33x30 voxels .* smaller than the scale 8x1x1"
    with pytest.raises(ValueError, match=message):
        planned(fingerprint(), Wishes(scale=(8, 1, 1)))


def test_unnamed_case_is_numbered():
    cases = Cases((), np.array(SPACINGS), np.array(SHAPES))
    with pytest.raises(ValueError, match="case number 1: "):
        cases.check_scale((8, 1, 1))


@pytest.mark.parametrize(
    ("hr_spacing", "scale", "order"),
    [
        ((1.0, 3.0, 0.5), (2, 1, 2), (1, 0, 2)),
        ((1.0, 1.0, 1.0), (2, 2, 2), (0, 1, 2)),
        ((1.0, 1.0, 1.0), (1, 1, 4), (2, 0, 1)),  # a stack of sagittal slices
        ((0.995, 1.0, 0.8), (4, 1, 1), (0, 1, 2)),  # equal within 1 %
        ((0.9, 1.0, 0.8), (4, 1, 1), (1, 0, 2)),
    ],
)
def test_slice_axis(hr_spacing, scale, order):
    assert slice_axis_first(hr_spacing, scale) == order


def test_plan_order_of_all_values():
    content = fingerprint()
    content["spacings"] = [[0.9, 0.8, 3.0]] * 3
    content["shapes_after_crop"] = [[33, 30, 7]] * 3
    grids = planned(content)
    assert grids.transpose == (2, 0, 1)
    assert grids.choice.scale == (2, 2, 1)
    assert grids.planned_scale == (1, 2, 2)
    assert grids.planned_lr_spacing == pytest.approx((3.0, 1.8, 1.6))
    assert grids.planned_lr_median == (7, 17, 15)
    assert planned(content, suppress_transpose=True).transpose == (0, 1, 2)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"scale": (2, 2)}, "-scale takes three whole numbers"),
        ({"scale": (2, 2, 0)}, r"-scale takes .* got 2 2 0"),
        ({"scale": (2, 1.5, 1)}, "-scale takes three whole numbers"),
        ({"lr_spacing": (1.0, -1.0, 1.0)}, "-lr_spacing takes three spacings"),
        ({"hr_spacing": (1.0, float("nan"), 1.0)}, "-overwrite_target_spacing takes three"),
        ({"scale": (2, 2, 2), "lr_spacing": (1, 1, 1)}, "give it or -scale, not both"),
        ({"hr_spacing": (1, 1, 1), "lr_spacing": (1, 1, 1)}, "or -overwrite_target_spacing, not"),
    ],
)
def test_wishes_out_of_range(wishes, message):
    with pytest.raises(ValueError, match=message):
        Wishes(**wishes)
