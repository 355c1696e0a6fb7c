"""Comparing two versions on the same rows: a paired interval for one look, a confidence sequence for many.

Both versions answered every row, so only the difference of their costs matters: two similar models agree on most rows,
and what they agree on adds no noise. A look at the end of a fixed sample (a gate) takes `PairedSums.margin`. Somebody who
looks every day and stops when he likes (a rollout) takes `PairedSums.sequence` or `ConfidenceSequence`: a t-interval
would lie to him, since each look is another chance to be wrong.

Questions are asked as "is `a` worse than `factor` times `b`": the interval is that of the mean of `a - factor * b`, row by
row, so that the uncertainty of `b`'s own cost is in it.

    >>> import numpy as np
    >>> sums = PairedSums.of(np.array([0.0, 1.0, 0.0, 0.0] * 100), np.array([0.0, 1.0, 3.0, 0.0] * 100))
    >>> sums.margin(0.99).high < 0  # at least 1 % better, beyond chance
    True
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

LEVEL = 0.95  # two-sided coverage of every interval unless stated

# Rows before the first look of a confidence sequence: its guarantee is asymptotic and needs a settled variance.
SEQUENCE_START = 300
# Rows on which the two versions' costs differ before the first look: rare differences settle later than many.
SEQUENCE_DIFFER = 25
# Rows at which the confidence sequence is tightest, compared with what it could be there.
SEQUENCE_TIGHTEST = 3_000

# Groups of rows before the first look at groups: the variance between two or three of them says next to nothing.
GROUPS_START = 4


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
        mean: The estimate; NaN when there are no rows.
        low, high: Bounds, infinite while nothing can be said.
        n: Rows behind it.
        level: Coverage, e.g. 0.95; for a confidence sequence, of all looks together.
    """

    mean: float
    low: float
    high: float
    n: int
    level: float = LEVEL


@dataclass(frozen=True)
class PairedSums:
    """Sums over rows on which two versions have a cost each: enough for every question, and mergeable by `+`.

    Attributes:
        n: Rows.
        a, b: Sums of the costs.
        aa, bb, ab: Sums of their squares and of their product.
        differ: Rows on which the two costs are not equal.
    """

    n: int = 0
    a: float = 0.0
    b: float = 0.0
    aa: float = 0.0
    bb: float = 0.0
    ab: float = 0.0
    differ: int = 0

    @classmethod
    def of(cls, cost_a: np.ndarray[Any, Any], cost_b: np.ndarray[Any, Any]) -> PairedSums:
        """Sums of two cost columns of the same rows, shape (n,) each."""
        a, b = np.asarray(cost_a, dtype=np.float64), np.asarray(cost_b, dtype=np.float64)
        if a.shape != b.shape or a.ndim != 1:
            raise ValueError(f"paired costs need equal lengths, got shapes {a.shape} and {b.shape}")
        squares = (float(a @ a), float(b @ b), float(a @ b))
        return cls(len(a), float(a.sum()), float(b.sum()), *squares, differ=int((a != b).sum()))

    def __add__(self, other: PairedSums) -> PairedSums:
        return PairedSums(
            self.n + other.n,
            self.a + other.a,
            self.b + other.b,
            self.aa + other.aa,
            self.bb + other.bb,
            self.ab + other.ab,
            self.differ + other.differ,
        )

    @property
    def mean_a(self) -> float:
        """Mean cost of `a` per row; NaN without rows."""
        return self.a / self.n if self.n else math.nan

    @property
    def mean_b(self) -> float:
        """Mean cost of `b` per row; NaN without rows."""
        return self.b / self.n if self.n else math.nan

    def difference(self, factor: float = 1.0) -> tuple[float, float]:
        """Sum and sum of squares of `a - factor * b` over the rows."""
        squares = self.aa - 2 * factor * self.ab + factor * factor * self.bb
        return self.a - factor * self.b, max(squares, 0.0)

    def margin(self, factor: float = 1.0, level: float = LEVEL) -> Interval:
        """Normal interval of the mean of `a - factor * b`, for one look at a sample fixed beforehand.

        It takes rows as independent: what many rows share (one bad day) makes it narrower than it should be.
        """
        total, squares = self.difference(factor)
        return _normal(total, squares, self.n, level)

    def sequence(
        self,
        factor: float = 1.0,
        level: float = LEVEL,
        *,
        start: int = SEQUENCE_START,
        tightest: int = SEQUENCE_TIGHTEST,
    ) -> Interval:
        """Anytime-valid interval of the mean of `a - factor * b`: holds at all looks together.

        Its bounds are infinite before `start` rows, and before `SEQUENCE_DIFFER` rows differ.
        """
        total, squares = self.difference(factor)
        if self.differ < SEQUENCE_DIFFER:
            start = self.n + 1
        return anytime(total, squares, self.n, level, start=start, tightest=tightest)


def grouped_sequence(
    groups: Sequence[PairedSums],
    factor: float = 1.0,
    level: float = LEVEL,
    *,
    start: int = SEQUENCE_START,
    tightest: int = SEQUENCE_TIGHTEST,
) -> Interval:
    """`PairedSums.sequence` for rows that go together: the flights of a day share its weather, the calls of a sale its buyers.

    The variance of the mean is the larger one of that between rows and of the jackknife over groups,

        (D - 1) / D * sum over groups of (mean without the group - mean)²

    with D groups: when groups differ by more than chance, their rows count for as few as they are worth, and one group that
    outweighs the others proves nothing alone. Where they do not differ, it is the plain sequence.

    A variance of few groups is itself a guess, so the interval is widened as Student's t with D - 1 degrees of freedom is
    wider than the normal.

    Args:
        groups: Sums of each group, in any order; groups are independent of each other, rows within one need not be.
        start, tightest: Rows, as of `PairedSums.sequence`; nothing is said before `GROUPS_START` groups either.

    Source: Cameron and Miller, A practitioner's guide to cluster-robust inference, Journal of Human Resources 50 (2015).
    """
    known = [group for group in groups if group.n]
    whole = sum(known, PairedSums())
    plain = whole.sequence(factor, level, start=start, tightest=tightest)
    if len(known) < GROUPS_START:
        return Interval(plain.mean, -math.inf, math.inf, whole.n, level)
    total, squares = whole.difference(factor)
    mean, n = total / whole.n, whole.n
    without = [(total - group.difference(factor)[0]) / (n - group.n) for group in known]
    between = (len(known) - 1) / len(known) * sum((one - mean) ** 2 for one in without)
    variance = max(squares / n - mean * mean, between * n)
    if math.isinf(plain.low):
        return plain
    found = anytime(total, (variance + mean * mean) * n, n, level, start=start, tightest=tightest)
    half = (found.high - found.mean) * _student_over_normal(len(known) - 1, level)
    return Interval(mean, mean - half, mean + half, n, level)


def _student_over_normal(freedom: int, level: float) -> float:
    """Two-sided quantile of Student's t over that of the normal; within 1 % from 3 degrees of freedom on.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 26.7.5.
    """
    z: float = NormalDist().inv_cdf((1 + level) / 2)
    terms: tuple[float, ...] = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    return 1.0 + sum(term / float(freedom) ** (power + 1) for power, term in enumerate(terms)) / z


def paired(cost_a: np.ndarray[Any, Any], cost_b: np.ndarray[Any, Any], level: float = LEVEL) -> Interval:
    """Normal interval of the mean cost difference `a - b` on the same rows; negative means that `a` is cheaper.

    Args:
        cost_a, cost_b: Cost of each row, shape (n,), in the same unit.
        level: Two-sided coverage.
    """
    return PairedSums.of(cost_a, cost_b).margin(1.0, level)


def _normal(total: float, squares: float, n: int, level: float) -> Interval:
    if n == 0:
        return Interval(math.nan, -math.inf, math.inf, 0, level)
    mean = total / n
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 1, level)
    variance = max(squares - n * mean * mean, 0.0) / (n - 1)
    half = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(variance / n)
    return Interval(mean, mean - half, mean + half, n, level)


def anytime(
    total: float,
    squares: float,
    n: int,
    level: float = LEVEL,
    *,
    start: int = SEQUENCE_START,
    tightest: int = SEQUENCE_TIGHTEST,
) -> Interval:
    """One interval of a confidence sequence for a mean: with probability `level` the mean is inside it at every n.

        mean ± s * sqrt( 2 (n r² + 1) / (n² r²) * ln( sqrt(n r² + 1) / alpha ) )

    with `alpha = 1 - level`, `s` the standard deviation so far and `r` chosen so that it is tightest at n = `tightest`:
    `r² = (-2 ln alpha + ln(-2 ln alpha) + 1) / tightest`. The guarantee is asymptotic in the first look, so nothing is said
    (infinite bounds) before `start` rows or while no two rows differ.

    It needs rows whose expected difference, given the rows before, is the mean asked about; effects that many rows share
    (one bad day) make it too sure of itself.

    Args:
        total, squares: Sum and sum of squares of the differences so far.
        n: Rows so far.

    Source: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Time-uniform central limit theory and asymptotic confidence
    sequences, Annals of Statistics 52 (2024), Theorem 2.2 and its appendix on tuning; Robbins' normal mixture.
    """
    mean = total / n if n else math.nan
    variance = max(squares / n - mean * mean, 0.0) if n else 0.0
    if n < max(start, 2) or variance == 0.0:
        return Interval(mean, -math.inf, math.inf, n, level)
    alpha = 1 - level
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1) / tightest
    spread = n * rho2 + 1
    half = math.sqrt(variance * 2 * spread / (n * n * rho2) * math.log(math.sqrt(spread) / alpha))
    return Interval(mean, mean - half, mean + half, n, level)


class ConfidenceSequence:
    """A confidence sequence that is fed batch by batch; its whole state is three numbers, so it can be kept and merged.

    Args:
        level: Coverage of all looks together.
        start: Rows before the first finite interval.
        tightest: Rows at which it is tightest.
        total, squares, n: State to continue from.
    """

    def __init__(
        self,
        level: float = LEVEL,
        *,
        start: int = SEQUENCE_START,
        tightest: int = SEQUENCE_TIGHTEST,
        total: float = 0.0,
        squares: float = 0.0,
        n: int = 0,
    ) -> None:
        self.level, self.start, self.tightest = level, start, tightest
        self.total, self.squares, self.n = total, squares, n

    def update(self, total: float, squares: float, n: int) -> Interval:
        """Add a batch (its sum, sum of squares and rows) and look."""
        self.total += total
        self.squares += squares
        self.n += n
        return self.interval()

    def interval(self) -> Interval:
        """The interval at this moment."""
        return anytime(self.total, self.squares, self.n, self.level, start=self.start, tightest=self.tightest)
