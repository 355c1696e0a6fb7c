"""Live evidence on a candidate: its answers and the champion's to the same predictions, joined with the outcomes.

Read from the prediction log at each look of a rollout, from its beginning to now, so that the evidence can be computed
again from the record at any time. Predictions whose outcome has not arrived count as answered and cost nothing yet.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

import polars as pl

from instar.core.store import Store
from instar.evaluate.compare import PairedSums
from instar.operate.outcomes import join
from instar.operate.rollout import Rollout
from instar.operate.rollout_rule import Evidence
from instar.plan.cost import Cost, per_row

SERVER_FAULT = 500  # statuses from here on are our failures; below, the caller's


class PredictionLog(Protocol):
    """What is read of the prediction log; `serve.calls.CallLog` is it."""

    def read(self, endpoint: str, since: datetime | None = None, until: datetime | None = None) -> pl.DataFrame:
        """One row per prediction with event time in [since, until); a failed call is one row without a decision."""

    def seen(self, call_id: str) -> bool:
        """Is the call in the log?"""


def gather(store: Store, log: PredictionLog, current: Rollout, cost: Cost) -> Evidence:
    """The evidence on a running rollout's candidate up to now, in event time."""
    now = store.clock.event()
    frame = log.read(current.endpoint, current.started_at, now)
    return evidence_of(store, frame, current, cost, now)


def evidence_of(store: Store, frame: pl.DataFrame, current: Rollout, cost: Cost, now: datetime) -> Evidence:
    """The evidence in these rows of the log.

    The candidate failed where it was asked and has an error, and where a call that was routed to it ended with a
    server's fault before any version could answer.
    """
    candidate = answers_of(frame, current.candidate)
    champion = answers_of(frame, current.incumbent)
    dead = frame.filter(
        pl.col("version") == current.candidate,
        pl.col("status") >= SERVER_FAULT,
        ~pl.col("prediction").is_in(candidate["prediction"].implode()),
    ).height
    failed = candidate.height - candidate["error"].null_count() + dead
    both = candidate.drop_nulls("score").join(
        champion.drop_nulls("score").select("prediction", champion="decision"), on="prediction"
    )
    known = join(store, both).drop_nulls("truth")
    here = both.filter(pl.col("at") >= current.since).height
    groups = tuple(_sums(part, cost) for part in _together(known, current.terms.group))
    return Evidence(candidate.height + dead, failed, both.height, here, _sums(known, cost), now, groups)


def _sums(known: pl.DataFrame, cost: Cost) -> PairedSums:
    truth = known["truth"].to_numpy()
    return PairedSums.of(
        per_row(cost, truth, known["decision"].to_numpy()), per_row(cost, truth, known["champion"].to_numpy())
    )


def _together(known: pl.DataFrame, span: timedelta) -> list[pl.DataFrame]:
    """The rows in spans of event time whose outcomes go together; none where each stands for itself."""
    if not span or not known.height:
        return []
    numbered = known.with_columns(_group=pl.col("at").dt.epoch("us") // (span // timedelta(microseconds=1)))
    return numbered.partition_by("_group", maintain_order=True)


def answers_of(frame: pl.DataFrame, version: int) -> pl.DataFrame:
    """What one version said, returned or not.

    Returns:
        `prediction`, `at`, `score`, `decision`, `threshold`, `error`; one row per prediction that it was asked for. A
        null score without an error is an answer with tensors, none of which is a score: nothing to compare.
    """
    chosen = (
        pl.col("answers").list.eval(pl.element().filter(pl.element().struct.field("version") == version)).list.first()
    )
    said = frame.select("prediction", "at", said=chosen).drop_nulls("said")
    return said.with_columns(
        pl.col("said").struct.field("score"),
        pl.col("said").struct.field("decision").cast(pl.Int8),
        pl.col("said").struct.field("threshold"),
        pl.col("said").struct.field("error"),
    ).drop("said")
