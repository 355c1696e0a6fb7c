"""The demo's report as one JSON document: figures by month, what was decided and when, the example trace.

Terminal and page (`terminal`, `page`) only show what stands here. A target that was missed is said as plainly as one
that was met.

    report = build(rows, events, cost, monthly_retrainings=9, trace={...}, seconds=391.0)
    report["months"][0]["cost"]["loop"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from instar.interfaces.demo.figures import FROZEN, MONTHLY, ZONE, Figures, by_month, figures, relative, shares_by_day
from instar.plan.cost import Cost

FORMAT = 1

ALERT, RETRAINING, PROMOTION, REJECTION, ROLLBACK = "alert", "retraining", "promotion", "rejection", "rollback"
KINDS = (ALERT, RETRAINING, PROMOTION, REJECTION, ROLLBACK)

# What the loop is asked for over the whole replay.
BELOW_FROZEN = 0.05
NEAR_MONTHLY = 0.02

LATE_HALF = ("07", "08", "09", "10", "11", "12")  # months after those on which the policy was tuned

MEANING = {
    "rule": "the share of late flights of each hour, which answered before there was a model",
    "frozen": "the first model, never changed",
    "loop": "the answers that were returned: retrained, gated and rolled out by policy",
    "monthly": "fitted again at every month's end and put to work at once",
}


@dataclass(frozen=True)
class Event:
    """Something that was found or decided in the loop.

    Attributes:
        at: Event time, UTC.
        kind: One of `KINDS`.
        subject: What it is about, e.g. `"delay@4"` or an alert's id.
        text: One line for people.
    """

    at: datetime
    kind: str
    subject: str
    text: str


def build(
    rows: pl.DataFrame,
    events: Sequence[Event],
    cost: Cost,
    *,
    monthly_retrainings: int,
    trace: Mapping[str, Any],
    seconds: float,
    quick: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The report.

    Args:
        rows: As `figures.reduce` gives them, for the whole replay.
        monthly_retrainings: How often the way `monthly` was fitted anew.
        trace: The chain of the example prediction as JSON; `back` and `forward` are lines for people.
        seconds: Wall time of the replay.
        facts: Further JSON to carry along, e.g. quarantined rows.
    """
    months = by_month(rows, cost)
    whole = figures("whole", rows.sort("at"), cost)
    late = rows.filter(pl.col("month").str.slice(5).is_in(LATE_HALF)).sort("at")
    counted = {kind: sum(event.kind == kind for event in events) for kind in KINDS}
    retrainings = {"loop": counted[RETRAINING], "monthly": monthly_retrainings}
    return {
        "format": FORMAT,
        "quick": quick,
        "unit": cost.unit,
        "cost_of": {"false_negative": cost.false_negative, "false_positive": cost.false_positive},
        "ways": MEANING,
        "months": [_month(one, events) for one in months],
        "totals": {
            "cost": whole.cost,
            "retrainings": retrainings,
            "promotions": counted[PROMOTION],
            "rejections": counted[REJECTION],
            "rollbacks": counted[ROLLBACK],
            "alerts": counted[ALERT],
            "predictions": whole.rows,
            "outcomes": whole.outcomes,
            "without_outcome": whole.rows - whole.outcomes,
            "compared": whole.compared,
            "late_share": whole.late_share,
            "auc": whole.auc,
        },
        "july_to_december": _stretch(figures("july to december", late, cost)) if late.height else None,
        "comparison": {
            "to_frozen": relative(whole.cost, FROZEN),
            "to_monthly": relative(whole.cost, MONTHLY),
            "to_rule": relative(whole.cost, "rule"),
            "targets": _targets(whole.cost, retrainings),
        },
        "events": [_event(event) for event in sorted(events, key=lambda event: (event.at, event.kind))],
        "answers_by_day": shares_by_day(rows),
        "trace": {"back": [], "forward": [], **trace},
        "facts": dict(facts or {}),
        "seconds": round(seconds, 1),
    }


def _month(one: Figures, events: Sequence[Event]) -> dict[str, Any]:
    begun = [event for event in events if _local_month(event.at) == one.name]
    return {
        "month": one.name,
        "rows": one.rows,
        "outcomes": one.outcomes,
        "without_outcome": one.rows - one.outcomes,
        "compared": one.compared,
        "late_share": one.late_share,
        "champion": one.champion,
        "auc": one.auc,
        "cost": one.cost,
        **{f"{kind}s": sum(event.kind == kind for event in begun) for kind in KINDS},
    }


def _stretch(one: Figures) -> dict[str, Any]:
    return {
        "predictions": one.rows,
        "outcomes": one.outcomes,
        "cost": one.cost,
        "to_frozen": relative(one.cost, FROZEN),
        "to_monthly": relative(one.cost, MONTHLY),
    }


def _targets(cost: dict[str, float | None], retrainings: Mapping[str, int]) -> list[dict[str, Any]]:
    frozen, monthly = relative(cost, FROZEN), relative(cost, MONTHLY)
    return [
        {
            "name": "cheaper than the frozen model",
            "asked": f"{BELOW_FROZEN:.0%} or more below",
            "found": frozen,
            "met": None if frozen is None else frozen <= -BELOW_FROZEN,
        },
        {
            "name": "as good as retraining every month",
            "asked": f"at most {NEAR_MONTHLY:.0%} above",
            "found": monthly,
            "met": None if monthly is None else monthly <= NEAR_MONTHLY,
        },
        {
            "name": "with fewer retrainings",
            "asked": f"fewer than {retrainings['monthly']}",
            "found": retrainings["loop"],
            "met": retrainings["loop"] < retrainings["monthly"],
        },
    ]


def _event(event: Event) -> dict[str, Any]:
    return {"at": event.at.isoformat(), "kind": event.kind, "subject": event.subject, "text": event.text}


def _local_month(at: datetime) -> str:
    return at.astimezone(ZoneInfo(ZONE)).strftime("%Y-%m")
