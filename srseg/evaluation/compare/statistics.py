"""Means, intervals and tests over cases that come in groups, such as two scans of one patient.

The unit that is resampled and tested is the group. Values are arrays (cases, labels) with NaN where
a case has no value for a label; a mean is that of the labels' means over the cases, nnU-Net's
foreground mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

        Args:
            values: (cases, labels), NaN for none.
        """
        known = np.isfinite(values)
        sums = self._by_group(np.where(known, values, 0.0))
        counts = self._by_group(known.astype(float))
        return _mean_of_labels(self._draws @ sums, self._draws @ counts)

    def estimate(self, values: np.ndarray) -> Estimate:
        """Return the mean of `values` (cases, labels) with its bootstrap interval.

        With one group alone there is nothing to resample, and no interval.
        """
        mean = label_mean(values)
        if len(self.names) < 2 or not np.isfinite(mean):
            return Estimate(mean)
        return Estimate(mean, *_interval(self.means(values)))

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
    if not differences.any():
        return 1.0
    return float(wilcoxon(differences).pvalue)


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

    NaN where the oracle is less than `LEAST_GAP` above the baseline. No interval where more than
    2.5 % of the resamples have such a small gap: its end would then be arbitrary.

    Args:
        values: (cases, labels) of the method; higher is better.
        baseline: the same of the baseline.
        oracle: the same of the oracle.
        resamples: of the cases' groups.
    """
    at, low, high = (label_mean(v) for v in (values, baseline, oracle))
    if not high - low >= LEAST_GAP:
        return Estimate(_NAN)
    fraction = (at - low) / (high - low)
    at, low, high = (resamples.means(v) for v in (values, baseline, oracle))
    gap = high - low
    usable = gap >= LEAST_GAP
    if len(resamples.names) < 2 or np.mean(~usable) > _TAIL:
        return Estimate(fraction)
    return Estimate(fraction, *_interval((at[usable] - low[usable]) / gap[usable]))


def _mean_of_labels(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return (rows,) means over labels of (rows, labels) sums / counts; NaN where all are empty."""
    per_label = np.divide(sums, counts, out=np.zeros_like(sums, dtype=float), where=counts > 0)
    num_labels = (counts > 0).sum(axis=1)
    total = per_label.sum(axis=1)
    return np.divide(total, num_labels, out=np.full(len(sums), _NAN), where=num_labels > 0)


def _interval(draws: np.ndarray) -> tuple[float, float]:
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return _NAN, _NAN
    low, high = np.quantile(draws, (_TAIL, 1 - _TAIL))
    return float(low), float(high)
