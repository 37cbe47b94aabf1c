"""Means, intervals and tests over cases that come in groups, such as two scans of one patient.

The unit that is resampled and tested is the group. Values are arrays (cases, labels) with NaN where
a case has no value for a label; a mean is that of the labels' means over the cases, nnU-Net's
foreground mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

NUM_RESAMPLES = 10_000
SEED = 12345
LEAST_GROUPS = 6
"""Below it no p-value: with 5 pairs even the most extreme outcome has p = 0.0625."""
LEAST_GAP = 0.01
"""Below it no fraction of the oracle gap: it would be a quotient of noise."""
_TAIL = 0.025
_NAN = float("nan")


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; NaN is none.

    Attributes:
        value: from the data.
        low: 2.5th percentile of the resamples.
        high: 97.5th percentile of the resamples.
    """

    value: float
    low: float = _NAN
    high: float = _NAN


class Resamples:
    """The same draws of groups for all methods, so that what is paired stays paired.

    Args:
        groups: of each case, in the order of the values' rows.
        num_resamples: bootstrap draws.
        seed: of the draws.
    """

    def __init__(
        self, groups: Sequence[str], *, num_resamples: int = NUM_RESAMPLES, seed: int = SEED
    ) -> None:
        self.names = tuple(dict.fromkeys(groups))
        self._group_of_case = np.array([self.names.index(group) for group in groups], dtype=int)
        count = len(self.names)
        generator = np.random.default_rng(seed)
        self._draws = generator.multinomial(count, [1 / count] * count, size=num_resamples)

    def means(self, values: np.ndarray) -> np.ndarray:
        """Return the mean of each resample, every group with all of its cases.

        A resample in which a label has no value, though the data have one, is NaN: the mean of
        the other labels alone is another number.

        Args:
            values: (cases, labels), NaN for none.
        """
        known = np.isfinite(values)
        there = known.any(axis=0)
        sums = self._by_group(np.where(known, values, 0.0)[:, there])
        counts = self._by_group(known[:, there].astype(float))
        drawn = self._draws @ counts
        means = _mean_of_labels(self._draws @ sums, drawn)
        return np.where((drawn > 0).all(axis=1), means, _NAN)

    def estimate(self, values: np.ndarray) -> Estimate:
        """Return the mean of `values` (cases, labels) with its bootstrap interval.

        With one group alone there is nothing to resample, and no interval; nor where more than
        2.5 % of the resamples lack a label.
        """
        mean = label_mean(values)
        if len(self.names) < 2 or not np.isfinite(mean):
            return Estimate(mean)
        return Estimate(mean, *_interval(self.means(values)))

    def difference(self, values: np.ndarray, reference: np.ndarray) -> Estimate:
        """Return the mean of the groups' mean differences, which is what is tested.

        Where groups have unequal numbers of cases it is not the difference of two `estimate`s.

        Args:
            values: (cases, labels) of a method; only what both have counts.
            reference: the same of the other one.
        """
        return self._of_groups().estimate(self.group_means(values - reference)[:, None])

    def _of_groups(self) -> Resamples:
        """Return the same draws for one value a group."""
        groups = copy(self)
        groups._group_of_case = np.arange(len(self.names))
        return groups

    def group_means(self, values: np.ndarray) -> np.ndarray:
        """Return one number per group (NaN for none): the mean over its cases of their means.

        Args:
            values: (cases, labels), NaN for none.
        """
        of_case = row_means(values)
        known = np.isfinite(of_case)
        sums = self._by_group(np.where(known, of_case, 0.0)[:, None])[:, 0]
        counts = self._by_group(known.astype(float)[:, None])[:, 0]
        return np.divide(sums, counts, out=np.full(len(sums), _NAN), where=counts > 0)

    def _by_group(self, values: np.ndarray) -> np.ndarray:
        total = np.zeros((len(self.names), values.shape[1]))
        np.add.at(total, self._group_of_case, values)
        return total


def label_mean(values: np.ndarray) -> float:
    """Return the mean over the labels of their means over the cases; NaN without any value.

    Args:
        values: (cases, labels), NaN for none.
    """
    known = np.isfinite(values)
    sums, counts = np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0)
    return float(_mean_of_labels(sums[None], counts[None])[0])


def row_means(values: np.ndarray) -> np.ndarray:
    """Return each case's mean over the labels it has, NaN where it has none."""
    known = np.isfinite(values)
    sums, counts = np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1)
    return np.divide(sums, counts, out=np.full(len(values), _NAN), where=counts > 0)


def signed_rank_p(values: np.ndarray, reference: np.ndarray, resamples: Resamples) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test on the groups' mean differences.

    A label of a case counts where both methods have a value. NaN below `LEAST_GROUPS` groups; 1
    where nothing differs.

    Args:
        values: (cases, labels) of a method.
        reference: the same of the method it is compared with.
        resamples: knows the groups.
    """
    differences = resamples.group_means(values - reference)
    differences = differences[np.isfinite(differences)]
    if len(differences) < LEAST_GROUPS:
        return _NAN
    differences = differences[differences != 0]  # else scipy leaves its exact distribution
    return float(wilcoxon(differences).pvalue) if len(differences) else 1.0


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return Holm's step-down adjusted p-values; NaN is no test and does not count.

    The k-th smallest of m is multiplied by m - k + 1, and none may fall below a smaller one's.
    """
    tested = sorted((p, name) for name, p in p_values.items() if np.isfinite(p))
    adjusted = dict.fromkeys(p_values, _NAN)
    highest = 0.0
    for rank, (p, name) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        adjusted[name] = highest
    return adjusted


def gap_fraction(
    values: np.ndarray, baseline: np.ndarray, oracle: np.ndarray, resamples: Resamples
) -> Estimate:
    """Return which fraction of the way from the baseline to the oracle a method has gone.

    Labels of cases count where all three have a value. NaN where the oracle is less than
    `LEAST_GAP` above the baseline. A resample with such a small gap counts as infinitely far, and
    where that moves an end of the interval to infinity there is none.

    Args:
        values: (cases, labels) of the method; higher is better.
        baseline: the same of the baseline.
        oracle: the same of the oracle.
        resamples: of the cases' groups.
    """
    all_three = np.isfinite(values) & np.isfinite(baseline) & np.isfinite(oracle)
    common = [np.where(all_three, v, _NAN) for v in (values, baseline, oracle)]
    at, low, high = (label_mean(v) for v in common)
    if not high - low >= LEAST_GAP:
        return Estimate(_NAN)
    fraction = (at - low) / (high - low)
    if len(resamples.names) < 2:
        return Estimate(fraction)
    at, low, high = (resamples.means(v) for v in common)
    gap = high - low
    far = np.where(at >= low, np.inf, -np.inf)
    drawn = np.divide(at - low, gap, out=far, where=gap >= LEAST_GAP)
    return Estimate(fraction, *_interval(np.where(np.isnan(gap), _NAN, drawn)))


def _mean_of_labels(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return (rows,) means over labels of (rows, labels) sums / counts; NaN where all are empty."""
    per_label = np.divide(sums, counts, out=np.zeros_like(sums, dtype=float), where=counts > 0)
    num_labels = (counts > 0).sum(axis=1)
    total = per_label.sum(axis=1)
    return np.divide(total, num_labels, out=np.full(len(sums), _NAN), where=num_labels > 0)


def _interval(draws: np.ndarray) -> tuple[float, float]:
    """Return the ends of the middle 95 %, NaN where one is infinite or many draws are NaN."""
    known = np.sort(draws[~np.isnan(draws)])
    if len(known) < (1 - _TAIL) * len(draws):
        return _NAN, _NAN
    if np.isfinite(known).all():
        low, high = np.quantile(known, (_TAIL, 1 - _TAIL))
        return float(low), float(high)
    outer = math.floor(_TAIL * (len(known) - 1))
    low, high = known[outer], known[-1 - outer]
    return (float(low), float(high)) if np.isfinite([low, high]).all() else (_NAN, _NAN)
