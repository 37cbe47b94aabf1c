"""The block `bilevel` is strict, and the halves of the cases are halves."""

import copy

import pytest

from srseg.training.levels import halves, levels_from_json

BLOCK = {
    "lower": {"losses": {"dice_ce": {"weight": 1.0}}},
    "upper": {"losses": {"sr_l1": {"weight": 2.0}}},
    "epsilon": 1e-6,
    "fraction": 0.3,
}
CASES = [f"case{number}" for number in range(11)]


def test_a_block_is_read_and_has_defaults():
    levels = levels_from_json(BLOCK, "here")
    assert levels.losses == {level: BLOCK[level]["losses"] for level in ("lower", "upper")}
    assert (levels.epsilon, levels.fraction) == (1e-6, 0.3)
    short = levels_from_json({key: BLOCK[key] for key in ("lower", "upper")}, "here")
    assert (short.epsilon, short.fraction) == (1e-8, 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"middle": {}}, "bilevel must hold lower and upper"),
        ({"lower": None}, "lower of bilevel is None; it must hold losses"),
        ({"lower": {}}, "lower of bilevel is {}"),
        ({"upper": {"losses": {}}}, "at least one term"),
        ({"upper": {"losses": {"sr_l1": 1.0}}}, "one term with its options"),
        ({"upper": {"losses": {"sr_l1": {"weight": 1}}, "weight": 1}}, "it must hold losses"),
        ({"epsilon": 0}, "epsilon of bilevel is 0.0; it must be above 0"),
        ({"epsilon": "small"}, "epsilon of bilevel is 'small'; it must be a number"),
        ({"epsilon": float("nan")}, "epsilon of bilevel is nan; it must be a number"),
        ({"fraction": True}, "fraction of bilevel is True"),
        ({"fraction": 1}, r"fraction of bilevel is 1.0; it must lie in \(0, 1\)"),
    ],
)
def test_a_wrong_block_is_named(change, message):
    with pytest.raises(ValueError, match=f"here: .*{message}"):
        levels_from_json({**copy.deepcopy(BLOCK), **change}, "here")


def test_a_level_that_lacks_is_named():
    with pytest.raises(ValueError, match="must hold lower and upper"):
        levels_from_json({"lower": BLOCK["lower"]}, "here")


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("count", [2, 3, 11])
def test_halves_are_disjoint_and_together_all(fraction, count):
    cases = CASES[:count]
    parts = halves(cases, fraction=fraction, seed=1, fold=0)
    assert sorted([*parts["lower"], *parts["upper"]]) == sorted(cases)
    assert 1 <= len(parts["lower"]) < count
    assert abs(len(parts["lower"]) - fraction * count) <= 1


def test_halves_follow_from_seed_and_fold_alone():
    def lower(seed=1, fold=0, cases=CASES):
        return halves(cases, fraction=0.5, seed=seed, fold=fold)["lower"]

    assert lower() == lower(cases=CASES[::-1])
    assert len({tuple(lower(seed, fold)) for seed in (1, 2) for fold in (0, 1, "all")}) == 6


def test_one_case_is_too_few():
    with pytest.raises(ValueError, match=r"fold 3 has 1 training case\(s\); at least 2 are needed"):
        halves(["only"], fraction=0.5, seed=1, fold=3)
