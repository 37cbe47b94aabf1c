"""Statistics against numbers worked out by hand, and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wilcoxon

from srseg.evaluation.compare.statistics import (
    Resamples,
    gap_fraction,
    holm,
    label_mean,
    row_means,
    signed_rank_p,
)

NAN = np.nan


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


def own_groups(count: int, **options) -> Resamples:
    return Resamples([str(number) for number in range(count)], **options)


def test_a_mean_is_that_of_the_labels_means():
    values = np.array([[0.9, 0.5], [0.7, NAN], [NAN, NAN]])
    assert label_mean(values) == pytest.approx((0.8 + 0.5) / 2)  # not of all three values
    np.testing.assert_allclose(row_means(values), [0.7, 0.7, NAN])
    assert np.isnan(label_mean(np.full((2, 2), NAN)))
    assert label_mean(np.array([[0.4, NAN]])) == pytest.approx(0.4)  # a label nobody has


def test_the_same_seed_gives_the_same_interval_and_another_one_nearly():
    values = np.random.default_rng(0).normal(0.8, 0.1, (30, 2))
    first, again = (own_groups(30).estimate(values) for _ in range(2))
    assert first == again
    other = own_groups(30, seed=1).estimate(values)
    assert other.low != first.low
    assert other.low == pytest.approx(first.low, abs=0.003)
    assert first.low < first.value == label_mean(values) < first.high


def test_intervals_have_the_width_that_theory_says():
    values = np.random.default_rng(3).normal(0, 1, (400, 1))
    estimate = own_groups(400).estimate(values)
    half = 1.96 * values.std() / np.sqrt(400)
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.01)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.01)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(11)
    hits = 0
    for _ in range(300):
        values = generator.normal(0.5, 0.2, (40, 1))
        estimate = own_groups(40, num_resamples=500).estimate(values)
        hits += estimate.low <= 0.5 <= estimate.high
    assert 0.90 <= hits / 300 <= 0.98


def test_groups_are_resampled_whole():
    """Two patients, all scans alike: a resample holds one or both, never a mixture."""
    resamples = Resamples(["p", "p", "p", "q"])
    values = column(1, 1, 1, 0)
    assert set(np.round(resamples.means(values), 9)) == {0.0, 0.75, 1.0}
    estimate = resamples.estimate(values)
    assert (estimate.value, estimate.low, estimate.high) == (0.75, 0.0, 1.0)
    np.testing.assert_allclose(resamples.group_means(column(1, NAN, 0.5, NAN)), [0.75, NAN])


def test_one_group_has_no_interval():
    estimate = Resamples(["p", "p"]).estimate(column(0.4, 0.6))
    assert estimate.value == pytest.approx(0.5)
    assert np.isnan([estimate.low, estimate.high]).all()


def test_a_resample_without_a_label_does_not_count():
    """Label b is in one of two cases; the mean of label a alone is another number."""
    values = np.array([[0.9, 0.3], [0.7, NAN]])
    means = Resamples(["p", "q"], num_resamples=200).means(values)
    assert set(np.round(means[~np.isnan(means)], 9)) == {0.6, 0.55}  # both, or p twice
    assert np.isnan(means).any()
    estimate = Resamples(["p", "q"]).estimate(values)
    assert estimate.value == pytest.approx(0.55)
    assert np.isnan([estimate.low, estimate.high]).all()  # a quarter of the resamples
    common = np.tile(values, (10, 1))
    assert np.isfinite(own_groups(20).estimate(common).low)  # hardly any
    nobody_has_b = own_groups(2).estimate(np.array([[0.9, NAN], [0.7, NAN]]))
    assert (nobody_has_b.low, nobody_has_b.high) == (pytest.approx(0.7), pytest.approx(0.9))


def test_a_difference_is_that_of_the_groups_that_are_tested():
    """One patient's 40 scans gain 0.02, twelve patients with one scan lose 0.01."""
    groups = ["p"] * 40 + [f"q{number}" for number in range(12)]
    reference = np.full((52, 1), 0.8)
    values = reference + column(*[0.02] * 40, *[-0.01] * 12)
    resamples = Resamples(groups)
    found = resamples.difference(values, reference)
    assert found.value == pytest.approx((0.02 - 12 * 0.01) / 13)
    assert found.low == pytest.approx(-0.01)
    assert found.high < 0.005
    same = own_groups(3).difference(column(0.5, 0.7, NAN), column(0.4, 0.5, 0.1))
    assert same.value == pytest.approx(0.15)


def test_signed_rank_by_hand():
    """Six differences of one sign: of 64 signs two are as extreme, so p = 2 / 64."""
    reference = column(0.80, 0.81, 0.82, 0.83, 0.84, 0.85)
    better = reference + column(0.01, 0.02, 0.03, 0.04, 0.05, 0.06)
    assert signed_rank_p(better, reference, own_groups(6)) == pytest.approx(2 / 64)
    # the smallest one turned: ranks 1 against 20; W <= 1 for 2 of 64, both sides 4
    better[0] = 0.79
    better[1] = 0.831
    assert signed_rank_p(better, reference, own_groups(6)) == pytest.approx(4 / 64)


def test_signed_rank_is_scipys_on_group_means():
    generator = np.random.default_rng(2)
    groups = [f"p{number // 2}" for number in range(24)]
    first, second = generator.normal(0.8, 0.05, (2, 24, 3))
    second += 0.02
    second[4, 1] = NAN
    differences = first - second
    of_case = np.nanmean(differences, axis=1)
    expected = wilcoxon(of_case.reshape(12, 2).mean(axis=1)).pvalue
    assert signed_rank_p(first, second, Resamples(groups)) == pytest.approx(expected)
    assert expected != pytest.approx(wilcoxon(of_case).pvalue)  # cases are not independent


def test_no_p_value_below_six_groups():
    values = np.arange(10.0)[:, None]
    five = Resamples([f"p{number // 2}" for number in range(10)])
    assert np.isnan(signed_rank_p(values, values * 0, five))
    lacking = values[:6].copy()
    lacking[0] = NAN  # five pairs are left
    assert np.isnan(signed_rank_p(lacking, values[:6] * 0, own_groups(6)))
    assert signed_rank_p(values[:6], values[:6], own_groups(6)) == 1.0  # nothing differs


def test_groups_that_do_not_differ_are_left_out_of_the_test():
    """Five of 14 differ, all upwards: the least that five can have is 2 / 32."""
    reference = column(*[0.8] * 14)
    better = reference + column(*[0.0] * 9, 0.01, 0.02, 0.03, 0.04, 0.05)
    assert signed_rank_p(better, reference, own_groups(14)) == pytest.approx(2 / 32)


def test_holm_by_hand():
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": NAN, "e": 0.5})
    assert adjusted["a"] == pytest.approx(0.04)  # 4 * 0.01
    assert adjusted["c"] == pytest.approx(0.09)  # 3 * 0.03
    assert adjusted["b"] == pytest.approx(0.09)  # 2 * 0.04 would be below c's
    assert adjusted["e"] == pytest.approx(0.5)  # 1 * 0.5
    assert np.isnan(adjusted["d"])  # no test, and none of the four
    assert list(adjusted) == ["a", "b", "c", "d", "e"]
    assert holm({"a": 0.7, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_gap_fraction_by_hand():
    baseline, oracle = column(0.70, 0.80, 0.75), column(0.90, 0.90, 0.90)
    method = column(0.80, 0.86, 0.83)
    # (0.83 - 0.75) / (0.90 - 0.75)
    fraction = gap_fraction(method, baseline, oracle, own_groups(3))
    assert fraction.value == pytest.approx(0.08 / 0.15)
    # the extreme resamples hold one case three times: 0.1 / 0.2 and 0.06 / 0.1
    assert fraction.low == pytest.approx(0.5)
    assert fraction.high == pytest.approx(0.6)
    assert gap_fraction(oracle, baseline, oracle, own_groups(3)).value == pytest.approx(1)
    assert gap_fraction(baseline, baseline, oracle, own_groups(3)).value == pytest.approx(0)


def test_a_gap_is_taken_where_all_three_have_a_value():
    """Label b is absent; baseline and oracle see it in the second case, the method does not."""
    baseline = np.array([[0.80, NAN], [0.80, 0.0]])
    oracle = np.array([[0.90, NAN], [0.90, 0.0]])
    method = np.array([[0.85, NAN], [0.85, NAN]])
    assert gap_fraction(method, baseline, oracle, own_groups(2)).value == pytest.approx(0.5)


def test_a_resample_without_a_gap_is_infinitely_far():
    """26 of 40 cases have a gap of 0.021: in 1.6 % of the draws under 20 do, in 3.3 % up to 20.

    With 19 the gap is under 0.01. So the 97.5th percentile is the fraction where 20 have one.
    """
    baseline, oracle = column(*[0.8] * 40), column(*[0.821] * 26, *[0.80] * 14)
    fraction = gap_fraction(baseline + 0.01, baseline, oracle, own_groups(40))
    assert fraction.value == pytest.approx(0.01 / (0.021 * 26 / 40))
    assert fraction.high == pytest.approx(0.01 / (0.021 * 20 / 40))


def test_no_fraction_of_a_gap_that_is_none():
    baseline = column(0.80, 0.80)
    for oracle in (baseline + 0.009, baseline, baseline - 0.1, column(NAN, NAN)):
        assert np.isnan(gap_fraction(baseline, baseline, oracle, own_groups(2)).value)
    assert np.isfinite(gap_fraction(baseline, baseline, baseline + 0.02, own_groups(2)).value)


def test_no_interval_where_the_gap_closes_in_some_resamples():
    baseline, oracle = column(0.80, 0.80), column(0.90, 0.80)  # a quarter holds only the second
    fraction = gap_fraction(column(0.85, 0.80), baseline, oracle, own_groups(2))
    assert fraction.value == pytest.approx(0.5)
    assert np.isnan([fraction.low, fraction.high]).all()
