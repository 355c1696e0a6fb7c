"""Metrics of binary decisions and scores, at the moment when a version is judged on rows that it never saw.

Each function takes whole columns of shape (n,) and says its formula; rows are equal in weight. `y_true` is 0 or 1, `score`
is the probability of 1, `decision` is 0 or 1. A metric that is not defined on the rows (no positive among them, say) is NaN.
`summary` computes all of them with intervals for the report.

    >>> import numpy as np
    >>> auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    0.75
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np

from instar.core.stats import safe_ratio
from instar.evaluate.compare import LEVEL, Interval, PairedSums
from instar.plan.cost import Cost, per_row

Column = np.ndarray[Any, Any]

# Scores of exactly 0 or 1 would make log loss infinite; scikit-learn clips alike.
LOG_LOSS_CLIP = float(np.finfo(np.float64).eps)


def summary(cost: Cost, y_true: Column, score: Column, threshold: float, level: float = LEVEL) -> dict[str, Interval]:
    """Every metric with its confidence interval, by name.

    Args:
        cost: Price of each mistake.
        y_true: 0 or 1, shape (n,).
        score: Probability of 1, shape (n,).
        threshold: A row is decided 1 when its score is at or above it.
    """
    y, decision = y_true.astype(bool), score >= threshold
    hits, n = y & decision, len(y)
    found: dict[str, Interval] = {
        "cost": mean(per_row(cost, y_true, decision), level),
        "auc": auc_interval(y_true, score, level),
        "log_loss": mean(_log_losses(y, score), level),
        "brier": mean((score - y) ** 2, level),
        "accuracy": share(int((y == decision).sum()), n, level),
        "precision": share(int(hits.sum()), int(decision.sum()), level),
        "recall": share(int(hits.sum()), int(y.sum()), level),
        "positives": share(int(y.sum()), n, level),
        "decided_positive": share(int(decision.sum()), n, level),
    }
    # F1 is no mean over rows; a percentile bootstrap would cost more than the figure tells.
    found["f1"] = Interval(f1(y_true, decision), math.nan, math.nan, n, level)
    return found


def auc(y_true: Column, score: Column) -> float:
    """Area under the ROC curve: P(score of a positive > score of a negative), ties counted half (Mann and Whitney)."""
    return auc_interval(y_true, score).mean


def auc_interval(y_true: Column, score: Column, level: float = LEVEL) -> Interval:
    """Area under the ROC curve with DeLong's interval.

    Source: DeLong, DeLong and Clarke-Pearson 1988; by midranks as Sun and Xu 2014.
    """
    y = np.asarray(y_true).astype(bool)
    positive, negative = np.asarray(score)[y], np.asarray(score)[~y]
    m, n = len(positive), len(negative)
    if m == 0 or n == 0:
        return Interval(math.nan, math.nan, math.nan, len(y), level)
    ranks = _midranks(np.concatenate([positive, negative]))
    above = (ranks[:m] - _midranks(positive)) / n  # share of negatives below each positive
    below = 1 - (ranks[m:] - _midranks(negative)) / m  # share of positives above each negative
    area = float(above.mean())
    variance = (above.var(ddof=1) / m if m > 1 else 0.0) + (below.var(ddof=1) / n if n > 1 else 0.0)
    half = _z(level) * math.sqrt(variance)
    return Interval(area, max(area - half, 0.0), min(area + half, 1.0), m + n, level)


def log_loss(y_true: Column, score: Column) -> float:
    """Mean of -ln of the probability given to what happened, in nats."""
    return float(_log_losses(np.asarray(y_true).astype(bool), score).mean()) if len(y_true) else math.nan


def brier(y_true: Column, score: Column) -> float:
    """Mean of (score - y)², 0 to 1."""
    return float(((score - y_true) ** 2).mean()) if len(y_true) else math.nan


def accuracy(y_true: Column, decision: Column) -> float:
    """Share of rows decided as they came true."""
    return safe_ratio(float((y_true.astype(bool) == decision.astype(bool)).sum()), len(y_true))


def precision(y_true: Column, decision: Column) -> float:
    """True positives / rows decided 1."""
    decided = decision.astype(bool)
    return safe_ratio(float((y_true.astype(bool) & decided).sum()), float(decided.sum()))


def recall(y_true: Column, decision: Column) -> float:
    """True positives / rows that came true."""
    y = y_true.astype(bool)
    return safe_ratio(float((y & decision.astype(bool)).sum()), float(y.sum()))


def f1(y_true: Column, decision: Column) -> float:
    """2 TP / (2 TP + FP + FN): harmonic mean of precision and recall."""
    y, decided = y_true.astype(bool), decision.astype(bool)
    hits = 2.0 * float((y & decided).sum())
    return safe_ratio(hits, hits + float((y ^ decided).sum()))


def mean(values: Column, level: float = LEVEL) -> Interval:
    """Mean of a column with its normal interval."""
    return PairedSums.of(values, np.zeros(len(values))).margin(level=level)


def share(count: int, n: int, level: float = LEVEL) -> Interval:
    """`count / n` with Wilson's score interval (Wilson 1927), which stays within 0 and 1 for small n."""
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0, level)
    z, p = _z(level), count / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(p, max(centre - half, 0.0), min(centre + half, 1.0), n, level)


def calibration(y_true: Column, score: Column, bins: int = 10) -> list[tuple[float, float, int]]:
    """Points of the reliability curve: (mean score, share of 1, rows) of equally filled bins, in order of score."""
    order = np.argsort(score, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, len(order))) if len(part)] if len(order) else []
    return [(float(score[part].mean()), float(y_true[part].mean()), len(part)) for part in parts]


def _log_losses(y: Column, score: Column) -> Column:
    clipped = np.clip(np.asarray(score, dtype=np.float64), LOG_LOSS_CLIP, 1 - LOG_LOSS_CLIP)
    losses: Column = -np.log(np.where(y, clipped, 1 - clipped))
    return losses


def _midranks(values: Column) -> Column:
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middle: Column = (last - (counts - 1) / 2)[index]
    return middle


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)
