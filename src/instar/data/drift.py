"""Drift: how far a window's distribution has moved from a reference, column by column, computed from two profiles.

Monitors ask it each time they look at traffic; no row is read. Every value names its binning, base and treatment of empty
bins, because tools disagree about drift exactly where these are hidden:

- numbers and times: `bins` bins cut at the reference's quantiles, equal edges merged; text and booleans: the reference's
  `CATEGORIES` most frequent values and one bin for all others; always one more bin for missing values (null or NaN);
- a bin that is empty on one side counts as half a row there;
- PSI in nats, `sum of (w - r) * ln(w / r)` over bins; Jensen-Shannon divergence in bits, 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from instar.core.errors import BadInput
from instar.data import column_profile
from instar.data.column_profile import NUMERIC, ColumnProfile
from instar.data.profile import Profile

CATEGORIES = 20
EMPTY_BIN_ROWS = 0.5
PSI_STABLE = 0.1  # Siddiqi, Credit Risk Scorecards (2006): below, no change worth a look
PSI_SHIFTED = 0.2  # above, a shift worth an action

Measure = Literal["psi", "js"]


@dataclass(frozen=True)
class Drift:
    """How far one column has moved.

    Attributes:
        column: Its name.
        measure: `"psi"` (nats, 0 or more) or `"js"` (Jensen-Shannon divergence, bits, 0 to 1).
        value: The distance; NaN when a side has no rows or the column's type changed to one that cannot be compared.
        n_reference, n_window: Rows on each side.
        binning: How it was computed, in words.
        noise: PSI to expect when nothing changed, from the sample sizes alone (Yurdakul 2018): judge `value` against it
            when rows are few. NaN for `"js"`.
    """

    column: str
    measure: str
    value: float
    n_reference: int
    n_window: int
    binning: str
    noise: float


def compare(reference: Profile, window: Profile, bins: int = 10, measure: Measure = "psi") -> list[Drift]:
    """The drift of every column that both profiles have, in the reference's order.

    Args:
        reference: Usually the profile of the rows that the model was fitted on.
        window: The profile of the last window of traffic.
        bins: Quantile bins for numbers, 2 to 100.
        measure: `"psi"` or `"js"`.

    Raises:
        BadInput: `bins` is out of range, or the measure is unknown.
    """
    if not 2 <= bins <= 100:
        raise BadInput("drift cannot be binned so", subject="drift", found=bins, asked="2 to 100 bins")
    if measure not in _DISTANCES:
        raise BadInput("no such measure of drift", subject="drift", found=measure, asked=" or ".join(_DISTANCES))
    return [
        _column_drift(name, column, window.columns[name], bins, measure)
        for name, column in reference.columns.items()
        if name in window.columns and column.type != "other"
    ]


def population_stability(reference: list[float], window: list[float]) -> float:
    """PSI of two lists of counts over the same bins, in nats.

    PSI = sum of (w - r) * ln(w / r), with r and w the shares of rows in a bin; an empty bin counts as half a row.
    Source: Siddiqi, Credit Risk Scorecards (2006).
    """
    pairs = _shares(reference, window)
    return sum((w - r) * math.log(w / r) for r, w in pairs)


def jensen_shannon(reference: list[float], window: list[float]) -> float:
    """Jensen-Shannon divergence of two lists of counts over the same bins, in bits: 0 equal, 1 disjoint.

    JS = (KL(r || m) + KL(w || m)) / 2 with m the mean of both; an empty bin counts as nothing here, since m is never 0.
    Source: Lin, IEEE Transactions on Information Theory 37 (1991).
    """
    total_r, total_w = sum(reference), sum(window)
    if not total_r or not total_w:
        return math.nan
    value = 0.0
    for r, w in zip((c / total_r for c in reference), (c / total_w for c in window), strict=True):
        middle = (r + w) / 2
        value += sum(share * math.log2(share / middle) / 2 for share in (r, w) if share > 0)
    return max(value, 0.0)


def _column_drift(name: str, reference: ColumnProfile, window: ColumnProfile, bins: int, measure: str) -> Drift:
    if window.type != reference.type and window.present:
        binning = f"type changed from {reference.type} to {window.type}: not comparable"
        return Drift(name, measure, math.nan, reference.rows, window.rows, binning, math.nan)
    if reference.type in NUMERIC:
        counts_r, counts_w, words = _bin_numbers(reference, window, bins)
    else:
        counts_r, counts_w, words = _bin_categories(reference, window)
    counts_r.append(reference.rows - reference.present)
    counts_w.append(window.rows - window.present)
    used = sum(1 for r, w in zip(counts_r, counts_w, strict=True) if r or w)
    distance, base = _DISTANCES[measure]
    value = distance(counts_r, counts_w) if reference.rows and window.rows else math.nan
    noise = math.nan
    if measure == "psi" and reference.rows and window.rows:
        noise = max(used - 1, 0) * (1 / reference.rows + 1 / window.rows)
    return Drift(name, measure, value, reference.rows, window.rows, f"{words} and missing; {base}", noise)


def _bin_numbers(reference: ColumnProfile, window: ColumnProfile, bins: int) -> tuple[list[float], list[float], str]:
    edges = sorted(set(column_profile.quantile(reference, [place / bins for place in range(1, bins)])))
    if edges and reference.maximum is not None and edges[-1] >= reference.maximum:
        edges.pop()  # nothing of the reference lies above it
    counts = []
    for side in (reference, window):
        below = [0.0, *column_profile.shares_up_to(side, edges), 1.0] if side.present else [0.0] * (len(edges) + 2)
        counts.append([(high - low) * side.present for low, high in pairwise(below)])
    return counts[0], counts[1], f"{len(edges) + 1} quantile bins of the reference"


def _bin_categories(reference: ColumnProfile, window: ColumnProfile) -> tuple[list[float], list[float], str]:
    values: list[Any] = [value for value, _ in column_profile.heavy_hitters(reference, CATEGORIES)]
    counts = []
    for side in (reference, window):
        # A window without a value has no type of its own, so its counts are asked for only when it has some.
        known = (
            [float(count) for count in column_profile.counts_of(side, values)] if side.present else [0.0] * len(values)
        )
        counts.append([*known, max(side.present - sum(known), 0.0)])
    return counts[0], counts[1], f"{len(values)} most frequent values of the reference, others"


def _shares(reference: list[float], window: list[float]) -> list[tuple[float, float]]:
    total_r, total_w = sum(reference), sum(window)
    if not total_r or not total_w:
        return [(math.nan, math.nan)]
    return [
        (max(r, EMPTY_BIN_ROWS if r <= 0 else r) / total_r, max(w, EMPTY_BIN_ROWS if w <= 0 else w) / total_w)
        for r, w in zip(reference, window, strict=True)
        if r > 0 or w > 0
    ]


_Distance = Callable[[list[float], list[float]], float]
_DISTANCES: dict[str, tuple[_Distance, str]] = {
    "psi": (population_stability, "empty bins count as half a row; natural logarithm"),
    "js": (jensen_shannon, "logarithm to base 2"),
}
