"""The cost of mistakes: what the contract says a wrong decision costs, and the arithmetic on it.

Planned first, used everywhere after: tuning picks thresholds by it, gates and rollouts compare versions by it.

>>> cost = Cost(false_negative=3.0, false_positive=1.0, unit="EUR")
>>> neutral_threshold(cost)
0.25
>>> mean_cost(cost, [True, False, True, False], [False, True, True, False])
1.0
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one mistake costs.

    Attributes:
        false_negative: Cost of deciding "no" where the truth is "yes", in `unit`; 0 or more.
        false_positive: Cost of deciding "yes" where the truth is "no", in `unit`; 0 or more.
        unit: Unit of both, e.g. `"EUR"`.
    """

    false_negative: float
    false_positive: float
    unit: str = "cost"


def per_row(cost: Cost, y_true: npt.ArrayLike, decision: npt.ArrayLike) -> Floats:
    """The cost of each decision.

    Args:
        cost: Costs of the two mistakes.
        y_true: Truth, shape (n,), boolean or 0 and 1.
        decision: What was decided, shape (n,), boolean or 0 and 1.

    Returns:
        Cost of each row in the cost's unit, shape (n,); 0 where the decision was right.
    """
    import numpy as np

    truth, decided = np.asarray(y_true, dtype=bool), np.asarray(decision, dtype=bool)
    if truth.shape != decided.shape:
        raise ValueError(f"y_true has shape {truth.shape}, decision has shape {decided.shape}")
    costs: Floats = (truth & ~decided) * float(cost.false_negative) + (~truth & decided) * float(cost.false_positive)
    return costs


def mean_cost(cost: Cost, y_true: npt.ArrayLike, decision: npt.ArrayLike) -> float:
    """The mean of `per_row`, in the cost's unit a decision; NaN for no rows."""
    rows = per_row(cost, y_true, decision)
    return float(rows.mean()) if rows.size else float("nan")


def neutral_threshold(cost: Cost) -> float:
    """The threshold at which a calibrated probability makes both decisions equally dear: fp / (fp + fn).

    Source: Elkan, The Foundations of Cost-Sensitive Learning (2001), equation 2.
    """
    return cost.false_positive / (cost.false_positive + cost.false_negative)


def best_threshold(cost: Cost, y_true: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """The threshold with the least total cost on these rows, for the decision `score >= threshold`.

    Tries every cut between two distinct scores, and both ends (always yes, always no). Of equally cheap cuts the one
    nearest to `neutral_threshold` wins, so that the answer depends on the rows only, never on their order.

    Args:
        cost: Costs of the two mistakes.
        y_true: Truth, shape (n,), boolean or 0 and 1.
        score: Score of the positive class, shape (n,), without NaN.

    Returns:
        A threshold in the unit of the scores; `neutral_threshold` for no rows.
    """
    import numpy as np

    truth, scores = np.asarray(y_true, dtype=bool), np.asarray(score, dtype=np.float64)
    if truth.shape != scores.shape:
        raise ValueError(f"y_true has shape {truth.shape}, score has shape {scores.shape}")
    if np.isnan(scores).any():
        raise ValueError("score holds NaN: a row without a score cannot be decided")
    if not scores.size:
        return neutral_threshold(cost)
    order = np.argsort(scores, kind="stable")
    ordered, positive = scores[order], truth[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))  # where a new score begins
    below = np.concatenate((first, [scores.size]))  # rows under each cut: they are decided "no"
    positives_below = np.concatenate(([0], np.cumsum(positive)))[below]
    negatives_above = (~positive).sum() - (below - positives_below)
    totals = positives_below * cost.false_negative + negatives_above * cost.false_positive
    distinct = ordered[first]
    cuts = np.concatenate((distinct[:1], _between(distinct[:-1], distinct[1:]), [np.nextafter(distinct[-1], np.inf)]))
    cheapest = cuts[np.isclose(totals, totals.min(), rtol=1e-12, atol=0.0)]
    return float(cheapest[np.argmin(np.abs(cheapest - neutral_threshold(cost)))])


def _between(low: Floats, high: Floats) -> Floats:
    """Midpoints; never rounded down onto `low`, which would decide its rows the other way."""
    import numpy as np

    middle = low + (high - low) / 2
    return np.where(middle > low, middle, high)
