"""Outcomes: the truth or the reaction that arrives after a prediction, and its join to the prediction log.

The rules, per prediction and kind:

| what is posted | what happens |
| --- | --- |
| nothing is known yet, the call is in the log | recorded |
| nothing is known yet, the call is not in the log | parked: kept, and joined when its segment arrives |
| the same value again | accepted, no effect |
| another value | `Conflict`, unless it names the outcome it `corrects` |
| a malformed prediction id or value | `MalformedRequest` |

A posting is all or nothing. What was corrected stays on the record and points to its correction. Which calls are in the
log is asked through a function that is handed in (`CallLog.seen`), so that this file knows no segments.

    posted = post(store, "flights", [Item(prediction="call_…/0", value=True)], seen=log.seen)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
import polars as pl
import sqlalchemy as sa

from instar.core.database import Instant, Transaction, metadata, rows_where
from instar.core.errors import Conflict, MalformedRequest
from instar.core.ids import new_id, parse_prediction_id
from instar.core.store import Store

KINDS = ("truth", "reaction")
LARGEST_LABEL = 200  # characters
IN_ONE_QUERY = 500  # bound values; SQLite's oldest supported limit is 999

outcome = sa.Table(
    "outcome",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("prediction", sa.String(60), nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("value", sa.Float),  # a number or a truth value; a text stands in `label`
    sa.Column("label", sa.String(LARGEST_LABEL)),
    sa.Column("state", sa.String(10), nullable=False),  # "joined" or "parked"
    sa.Column("observed_at", Instant, nullable=False),
    sa.Column("event_at", Instant, nullable=False),
    sa.Column("recorded_at", Instant, nullable=False),
    sa.Column("reporter", sa.String(200), nullable=False),
    sa.Column("corrects", sa.String(60)),
    sa.Column("corrected_by", sa.String(60)),
)
# At most one outcome of a kind holds for a prediction; the index also carries the join's range scan.
rows_where(
    sa.Index("ux_outcome_current", outcome.c.prediction, outcome.c.kind, unique=True),
    outcome.c.corrected_by.is_(None),
)
rows_where(
    sa.Index("ix_outcome_parked", outcome.c.project, outcome.c.event_at),
    outcome.c.state == "parked",
)


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One outcome as a client posts it.

    Attributes:
        prediction: `call_…/row`.
        value: A number, a truth value or a short text.
        kind: `"truth"` (what really happened) or `"reaction"` (what somebody did with the answer).
        observed_at: When it happened; by default the event time of the posting.
        corrects: Id of the outcome that this one replaces.
    """

    prediction: str
    value: bool | int | float | str
    kind: str = "truth"
    observed_at: datetime | None = None
    corrects: str | None = None


@dataclass(frozen=True)
class Receipt:
    """What became of one item: `"recorded"`, `"parked"`, `"corrected"` or `"unchanged"`; `outcome` is the id that holds now."""

    prediction: str
    kind: str
    outcome: str
    state: str


@dataclass(frozen=True)
class Posted:
    """What became of a posting, item by item."""

    receipts: tuple[Receipt, ...]

    def count(self, state: str) -> int:
        """Number of items that ended in `state`."""
        return sum(receipt.state == state for receipt in self.receipts)


@dataclass(frozen=True)
class Parked:
    """Outcomes without a prediction: how many found theirs now, how many still wait, and which wait beyond the horizon."""

    joined: int
    waiting: int
    overdue: tuple[str, ...]


def post(
    store: Store,
    project: str,
    items: Sequence[Item],
    seen: Callable[[str], bool],
    truth_values: frozenset[float] | None = None,
) -> Posted:
    """Record outcomes, all or none.

    Args:
        items: In any order; the same item may come twice.
        seen: Is this call id in the prediction log?
        truth_values: The only values a truth may have, e.g. `{0.0, 1.0}` for a binary problem.

    Raises:
        MalformedRequest: A prediction id, a kind or a value is wrong; names the item's place.
        Conflict: Another value is on the record, or what an item corrects is not.
    """
    posting, event, wall = new_id("outc"), store.clock.event(), store.clock.wall()
    rows = [_row(store, project, f"{posting}/{place}", item, place, truth_values) for place, item in enumerate(items)]
    unseen = {call for call in {row["call"] for row in rows} if not seen(call)}
    for row in rows:
        row["state"] = "parked" if row.pop("call") in unseen else "joined"
        row["event_at"], row["recorded_at"] = event, wall
        row["observed_at"] = row["observed_at"] or event
    return store.database.write(lambda tx: _record(tx, rows))


def _row(
    store: Store, project: str, name: str, item: Item, place: int, truth_values: frozenset[float] | None
) -> dict[str, Any]:
    where = f"outcome {place} of the posting"
    call, _ = parse_prediction_id(item.prediction)
    if item.kind not in KINDS:
        raise MalformedRequest(
            "unknown kind of outcome", subject=where, found=repr(item.kind[:60]), asked=" or ".join(KINDS)
        )
    value, label = (None, item.value) if isinstance(item.value, str) else (float(item.value), None)
    if value is not None and not math.isfinite(value):
        raise MalformedRequest("the value is not a finite number", subject=where, found=value)
    if label is not None and not 0 < len(label) <= LARGEST_LABEL:
        raise MalformedRequest(
            "the text is too long or empty", subject=where, found=len(label), asked=f"1 to {LARGEST_LABEL}"
        )
    if item.kind == "truth" and truth_values is not None and value not in truth_values:
        asked = ", ".join(f"{known:g}" for known in sorted(truth_values))
        raise MalformedRequest("the problem has no such outcome", subject=where, found=repr(item.value), asked=asked)
    if item.observed_at is not None and item.observed_at.tzinfo is None:
        raise MalformedRequest(
            "the time has no zone",
            subject=where,
            found=item.observed_at.isoformat(),
            asked="RFC 3339, as in 2013-03-01T12:00:00Z",
        )
    return {
        "id": name,
        "project": project,
        "prediction": item.prediction,
        "call": call,
        "kind": item.kind,
        "value": value,
        "label": label,
        "observed_at": item.observed_at,
        "reporter": store.actor.name,
        "corrects": item.corrects,
        "corrected_by": None,
    }


def _record(tx: Transaction, rows: list[dict[str, Any]]) -> Posted:
    current = _current(tx, {row["prediction"] for row in rows})
    fresh: list[dict[str, Any]] = []
    corrections: list[dict[str, str]] = []
    receipts = []
    for row in rows:
        key = (row["prediction"], row["kind"])
        known = current.get(key)
        if known is None:
            if row["corrects"] is not None:
                raise _no_such_correction(row, None)
            state = "recorded" if row["state"] == "joined" else "parked"
        elif (known["value"], known["label"]) == (row["value"], row["label"]):
            # Also a correction that is sent twice: what it asked for already holds.
            receipts.append(Receipt(*key, known["id"], "unchanged"))
            continue
        elif row["corrects"] is None:
            raise Conflict(
                "another outcome is on the record",
                subject=f"{row['kind']} of {row['prediction']}",
                found=_shown(known),
                asked=_shown(row),
                next_step=f'If the new value is right, post it with "corrects": "{known["id"]}".',
            )
        elif row["corrects"] != known["id"]:
            raise _no_such_correction(row, known["id"])
        else:
            corrections.append({"old": known["id"], "new": row["id"]})
            state = "corrected"
        current[key] = row
        fresh.append(row)
        receipts.append(Receipt(*key, row["id"], state))
    _store(tx, fresh, corrections)
    return Posted(tuple(receipts))


def _store(tx: Transaction, fresh: list[dict[str, Any]], corrections: list[dict[str, str]]) -> None:
    # The old ones first: at any moment only one outcome of a kind may hold.
    if corrections:
        replaced = outcome.update().where(outcome.c.id == sa.bindparam("old")).values(corrected_by=sa.bindparam("new"))
        tx.execute(replaced, corrections)
    if fresh:
        tx.execute(outcome.insert(), fresh)


def _current(tx: Transaction, predictions: set[str]) -> dict[tuple[str, str], dict[str, Any]]:
    columns = (outcome.c.id, outcome.c.prediction, outcome.c.kind, outcome.c.value, outcome.c.label)
    names, known = sorted(predictions), {}
    for start in range(0, len(names), IN_ONE_QUERY):
        some = outcome.c.prediction.in_(names[start : start + IN_ONE_QUERY])
        for row in tx.execute(sa.select(*columns).where(some, outcome.c.corrected_by.is_(None))):
            known[(row.prediction, row.kind)] = dict(row._mapping)
    return known


def _no_such_correction(row: dict[str, Any], holds: str | None) -> Conflict:
    return Conflict(
        "it corrects an outcome that does not hold",
        subject=f"{row['kind']} of {row['prediction']}",
        found=f"corrects {row['corrects']}",
        asked=holds or "no correction: nothing is on the record yet",
        next_step="Name the outcome that holds now, or leave `corrects` out.",
    )


def _shown(row: dict[str, Any]) -> str:
    return f"{row['value']:g}" if row["value"] is not None else repr(row["label"])


def settle_parked(store: Store, project: str, seen: Callable[[str], bool], horizon: timedelta) -> Parked:
    """Look again for the predictions of parked outcomes; nothing is ever dropped.

    Args:
        horizon: An outcome parked for longer, in event time, is overdue: somebody reports on calls we never took.
    """
    parked = sa.select(outcome.c.id, outcome.c.prediction, outcome.c.event_at).where(
        outcome.c.project == project, outcome.c.state == "parked"
    )
    with store.database.read() as tx:
        waiting = list(tx.execute(parked.order_by(outcome.c.event_at)))
    if not waiting:
        return Parked(0, 0, ())
    found = [row.id for row in waiting if seen(parse_prediction_id(row.prediction)[0])]
    if found:
        done = outcome.update().where(outcome.c.id == sa.bindparam("known")).values(state="joined")
        store.database.write(lambda tx: tx.execute(done, [{"known": name} for name in found]))
    left = [row for row in waiting if row.id not in set(found)]
    limit = store.clock.event() - horizon
    return Parked(len(found), len(left), tuple(row.prediction for row in left if row.event_at < limit))


def join(store: Store, predictions: pl.DataFrame, kind: str = "truth") -> pl.DataFrame:
    """The predictions with what became of them, in the same order.

    Args:
        predictions: Has a column `prediction`; ids made close in time are found by one range scan.

    Returns:
        The frame and three columns: `outcome` (id), `truth` (number, null while nothing arrived or when the outcome is a
        text) and `observed_at` (UTC).
    """
    bounds = predictions.select(low=pl.col("prediction").min(), high=pl.col("prediction").max()).row(0)
    found = _between(store, bounds, kind) if bounds[0] is not None else ()
    arrived = pl.DataFrame(found, schema=_JOINED, orient="row").with_columns(
        pl.col("observed_at").cast(pl.Datetime("us", "UTC"))
    )
    return predictions.join(arrived, on="prediction", how="left", maintain_order="left")


_JOINED = {"prediction": pl.String, "outcome": pl.String, "truth": pl.Float64, "observed_at": pl.Int64}


def _between(store: Store, bounds: tuple[Any, ...], kind: str) -> Sequence[Any]:
    # A month of outcomes is read at each look, so rows stay the driver's plain tuples, and times the integers that they
    # are kept as: rows of SQLAlchemy and datetimes of Python take five times as long as all the rest.
    query = sa.select(
        outcome.c.prediction, outcome.c.id, outcome.c.value, sa.type_coerce(outcome.c.observed_at, sa.BigInteger)
    ).where(outcome.c.prediction.between(*bounds), outcome.c.kind == kind, outcome.c.corrected_by.is_(None))
    with store.database.read() as tx, tx.execute(query) as result:
        rows: Sequence[Any] = result.cursor.fetchall() if result.cursor is not None else ()
        return rows


def find(store: Store, prediction: str) -> list[dict[str, Any]]:
    """All outcomes ever recorded for one prediction, in the order in which they came, corrected ones included."""
    query = sa.select(outcome).where(outcome.c.prediction == prediction).order_by(outcome.c.recorded_at, outcome.c.id)
    with store.database.read() as tx:
        return [dict(row._mapping) for row in tx.execute(query)]
