"""Plans are the same unless something differs that data, network or prediction depend on."""

import copy
import math

import pytest

from srseg.plans.comparison import as_json, differing_keys
from tests.preprocessing.hand_plans import hand_plans

PLANS = hand_plans((4.0, 0.7, 0.25), (1, 2, 4))


def changed(*path, value):
    plans = copy.deepcopy(PLANS)
    inner = plans
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return plans


@pytest.mark.parametrize(
    "path",
    [
        ("transpose_forward",),
        ("new_key",),
        ("foreground_intensity_properties_per_channel", "0", "mean"),
        ("configurations", "3d_fullres", "patch_size"),
        ("configurations", "3d_fullres", "degradation", "axes"),
        ("configurations", "2d"),
    ],
)
def test_the_entry_that_differs_is_named(path):
    other = changed(*path, value=[7, 7, 7])
    assert differing_keys(PLANS, other) == differing_keys(other, PLANS) == [".".join(path)]


def test_all_entries_that_differ_are_named_in_order():
    other = changed("plans_name", value="mine")
    del other["configurations"]["3d_fullres"]["scale"]
    expected = ["configurations.3d_fullres.scale", "plans_name"]
    assert differing_keys(PLANS, other) == expected


@pytest.mark.parametrize("key", ["rationale", "batch_size", "batch_dice"])
def test_words_and_the_batch_do_not_count(key):
    assert differing_keys(PLANS, changed("configurations", "3d_fullres", key, value=9)) == []
    assert differing_keys(PLANS, changed("gpu_memory_target_gb", value=9)) == []


def test_plans_are_the_same_in_memory_and_in_a_file():
    in_memory = changed("configurations", "3d_fullres", "patch_size", value=(8, 6, 7))
    assert differing_keys(PLANS, in_memory) == []
    assert differing_keys({"0": {"std": math.nan}}, {0: {"std": math.nan}}) == []
    assert as_json({1: (2, 3)}) == {"1": [2, 3]}


def test_what_json_does_not_know_is_refused():
    with pytest.raises(ValueError, match="plain JSON values, but .*set"):
        differing_keys(PLANS, changed("scale", value={1, 2}))
