"""The demo's figures, computed at its end from the prediction log joined with the outcomes, and from nothing else.

Four ways to run one product are compared on the same flights: the *rule*, the first model *frozen*, the *loop* (the
answers that were really returned), and retraining *monthly* regardless. All but the loop rode as shadows of the
endpoint, so their answers stand in the log beside the one that was returned.

    rows = pl.concat(reduce(frame, standing) for frame in months_of_the_log)
    by_month(rows, cost)     # one Month each
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from instar.core.stats import safe_ratio
from instar.evaluate.metrics import auc
from instar.plan.cost import Cost, per_row

RULE, FROZEN, LOOP, MONTHLY = "rule", "frozen", "loop", "monthly"
WAYS = (RULE, FROZEN, LOOP, MONTHLY)
SHADOWS = (RULE, FROZEN, MONTHLY)
ZONE = "America/New_York"  # a month is a month where the flights depart


@dataclass(frozen=True)
class Standing:
    """From `since` on (event time), the answers of `version` are those of the way `role`."""

    role: str
    version: int
    since: datetime


@dataclass(frozen=True)
class Figures:
    """What one stretch of time says.

    Attributes:
        name: `"2013-03"` for a month.
        rows: Predictions, those of cancelled flights included.
        outcomes: Predictions whose outcome arrived.
        compared: Of these, the ones that all four ways answered; costs rest on them.
        late_share: Share of late flights among outcomes.
        auc: Of the scores that were returned.
        cost: Mean cost per compared flight by way.
        champion: The version that answered last outside of a canary; None where that is not known.
    """

    name: str
    rows: int
    outcomes: int
    compared: int
    late_share: float | None
    auc: float | None
    cost: dict[str, float | None]
    champion: int | None = None


def reduce(frame: pl.DataFrame, standing: Sequence[Standing]) -> pl.DataFrame:
    """The part of the log that the figures need.

    Args:
        frame: Rows of the prediction log joined with outcomes: `prediction`, `at` (UTC), `version`, `reason`, `score`,
            `decision`, `answers` (list of struct with `version` and `decision`) and `truth` (null without an outcome).
        standing: Which version stood for which way, and since when.

    Returns:
        One row per answered prediction: `prediction`, `at`, `month` and `day` (local dates), `version`, `reason`, `score`,
        `y` (0 or 1, null without an outcome), and the decisions (0 or 1) `rule`, `frozen`, `loop` and `monthly`; null where
        a way gave none.
    """
    local = pl.col("at").dt.convert_time_zone(ZONE)
    answered = frame.filter(pl.col("decision").is_not_null()).with_row_index("_row")
    said = answered.select("_row", "answers").explode("answers", empty_as_null=False, keep_nulls=False)
    said = said.select(
        "_row",
        pl.col("answers").struct.field("version").cast(pl.Int64).alias("_version"),
        pl.col("answers").struct.field("decision").cast(pl.Int8).alias("_decision"),
    ).unique(["_row", "_version"], keep="first")
    rows = answered.select(
        "_row",
        "prediction",
        "at",
        local.dt.strftime("%Y-%m").alias("month"),
        local.dt.date().alias("day"),
        pl.col("version").cast(pl.Int64),
        "reason",
        "score",
        pl.col("truth").cast(pl.Int8).alias("y"),
        pl.col("decision").cast(pl.Int8).alias(LOOP),
    )
    for role in SHADOWS:
        of_role = rows.select("_row", _version_at(standing, role).alias("_version"))
        found = of_role.join(said, on=["_row", "_version"], how="left", maintain_order="left")
        rows = rows.with_columns(found["_decision"].alias(role))
    return rows.drop("_row")


def by_month(rows: pl.DataFrame, cost: Cost) -> list[Figures]:
    """Figures of each month, in order.

    Args:
        rows: As `reduce` gives them.
    """
    ordered = rows.sort("month", "at", maintain_order=True).partition_by("month", maintain_order=True)
    return [figures(str(part["month"][0]), part, cost) for part in ordered]


def figures(name: str, rows: pl.DataFrame, cost: Cost) -> Figures:
    """Figures of any rows, in the order of time."""
    known = rows.filter(pl.col("y").is_not_null())
    compared = known.drop_nulls(list(WAYS))
    truth = compared["y"].to_numpy()
    paid = {way: _mean(per_row(cost, truth, compared[way].to_numpy())) for way in WAYS}
    settled = rows.filter(pl.col("reason") == "champion")
    return Figures(
        name,
        rows=rows.height,
        outcomes=known.height,
        compared=compared.height,
        late_share=_finite(safe_ratio(float(known["y"].cast(pl.Int64).sum()), known.height)),
        auc=_finite(auc(known["y"].to_numpy(), known["score"].to_numpy())),
        cost=paid,
        champion=int(settled["version"][-1]) if settled.height else None,
    )


def shares_by_day(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Who answered: for each day and version the share of the answers that were returned."""
    counted = rows.group_by("day", "version").agg(pl.len().alias("answers"))
    shares = counted.with_columns(share=pl.col("answers") / pl.col("answers").sum().over("day"))
    return [
        {"day": row["day"].isoformat(), "version": row["version"], "share": row["share"]}
        for row in shares.sort("day", "version").iter_rows(named=True)
    ]


def relative(cost: dict[str, float | None], to: str) -> float | None:
    """How far the loop's cost lies above another way's, as a share; negative: the loop is cheaper."""
    loop, other = cost[LOOP], cost[to]
    return None if loop is None or not other else loop / other - 1.0


def _version_at(standing: Sequence[Standing], role: str) -> pl.Expr:
    chosen: pl.Expr = pl.lit(None, dtype=pl.Int64)
    for one in sorted((one for one in standing if one.role == role), key=lambda one: one.since):
        chosen = pl.when(pl.col("at") >= one.since).then(pl.lit(one.version, dtype=pl.Int64)).otherwise(chosen)
    return chosen


def _mean(values: Any) -> float | None:
    return float(values.mean()) if len(values) else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
