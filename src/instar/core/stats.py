"""Small statistics that more than one stage needs: pure functions on numbers."""

from __future__ import annotations

import math


def safe_ratio(part: float, whole: float) -> float:
    """`part / whole`, and NaN when there is nothing to divide by."""
    return part / whole if whole else math.nan
