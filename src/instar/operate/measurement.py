"""Measurements: what each monitor found at each look, kept when all is well, too.

A measurement names its window of event time, the cursor up to which it read the log, what it compared with, and how
many rows and which share of their outcomes it rests on; so "since when" has an answer, and a quiet monitor can be told
from a dead one. `monitor` makes them, `alerts` reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from instar.core.database import Instant, Json, Transaction, metadata
from instar.core.store import Store

# States of a measurement.
OK = "ok"
BREACH = "breach"  # over its limit
TOO_FEW = "too few"  # rows or outcomes, so it neither opens nor closes an alert
NO_REFERENCE = "no reference"  # nothing to compare with
NO_LIMIT = "no limit"  # kept as a figure, never an alert

measurement = sa.Table(
    "measurement",
    metadata,
    sa.Column("id", sa.String(400), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("endpoint", sa.String(200), nullable=False),
    sa.Column("monitor", sa.String(60), nullable=False),
    sa.Column("subject", sa.String(200), nullable=False),
    sa.Column("window_start", Instant, nullable=False),
    sa.Column("window_end", Instant, nullable=False),
    sa.Column("value", sa.Float),
    sa.Column("limit", sa.Float),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("n", sa.BigInteger, nullable=False),
    sa.Column("outcomes_share", sa.Float),
    sa.Column("reference", sa.String(120)),
    sa.Column("cursor", sa.String(60)),
    sa.Column("detail", Json, nullable=False),
    sa.Column("recorded_at", Instant, nullable=False),
    # One look of one monitor at one window counts once, also when the look is repeated after a crash.
    sa.UniqueConstraint("endpoint", "monitor", "subject", "window_end", name="uq_measurement_look"),
)


@dataclass(frozen=True)
class Measurement:
    """One look of one monitor.

    Attributes:
        id: `meas_…/monitor/subject`: one look's measurements share their beginning.
        monitor: What is measured: `"drift"`, `"drift_share"`, `"cost"`, `"auc"`, `"errors"`, `"latency_p99"`,
            `"outcomes"`, `"staleness"`.
        subject: Of what: a column, a version as `"delay@3"`, or the endpoint.
        window_start, window_end: Event time, the end not included.
        value: In the monitor's own unit; None when it cannot be computed.
        limit: Where a breach begins; None when there is no limit.
        state: One of the states above.
        n: Predictions in the window.
        outcomes_share: Share of them whose outcome has arrived; None where outcomes play no part.
        reference: Digest or id of what the value was compared with.
        cursor: The last prediction read.
        detail: JSON figures that explain the value, such as the binning of a PSI.
    """

    id: str
    project: str
    endpoint: str
    monitor: str
    subject: str
    window_start: datetime
    window_end: datetime
    value: float | None
    limit: float | None
    state: str
    n: int
    recorded_at: datetime
    outcomes_share: float | None = None
    reference: str | None = None
    cursor: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)


def keep(tx: Transaction, found: Sequence[Measurement]) -> list[Measurement]:
    """Record measurements of one endpoint and one look; those whose window was looked at before are left out."""
    if not found:
        return []
    looked = sa.select(measurement.c.monitor, measurement.c.subject, measurement.c.window_end).where(
        measurement.c.endpoint == found[0].endpoint,
        measurement.c.window_end.in_({one.window_end for one in found}),
    )
    known = {tuple(row) for row in tx.execute(looked)}
    fresh = [one for one in found if (one.monitor, one.subject, one.window_end) not in known]
    if fresh:
        tx.execute(measurement.insert(), [vars(one) for one in fresh])
    return fresh


def measurements(
    store: Store,
    project: str,
    *,
    endpoint: str | None = None,
    monitor: str | None = None,
    subject: str | None = None,
    since: datetime | None = None,
    limit: int | None = None,
) -> list[Measurement]:
    """Measurements, latest window first.

    Args:
        since: Only windows that end at or after this event time.
        limit: At most so many.
    """
    query = sa.select(measurement).where(measurement.c.project == project)
    for column, value in (("endpoint", endpoint), ("monitor", monitor), ("subject", subject)):
        if value is not None:
            query = query.where(measurement.c[column] == value)
    if since is not None:
        query = query.where(measurement.c.window_end >= since)
    query = query.order_by(measurement.c.window_end.desc(), measurement.c.id.desc()).limit(limit)
    with store.database.read() as tx:
        return [Measurement(**row._mapping) for row in tx.execute(query)]


def recent(tx: Transaction, endpoint: str, monitor: str, subject: str, count: int) -> list[Measurement]:
    """The last `count` measurements of one thing that could decide something (ok or breach), latest first."""
    query = sa.select(measurement).where(
        measurement.c.endpoint == endpoint,
        measurement.c.monitor == monitor,
        measurement.c.subject == subject,
        measurement.c.state.in_((OK, BREACH)),
    )
    rows = tx.execute(query.order_by(measurement.c.window_end.desc()).limit(count))
    return [Measurement(**row._mapping) for row in rows]
