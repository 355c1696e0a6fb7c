"""Waivers: somebody's word that a gate which an evaluation did not pass stands in nobody's way; given before an approval.

A waiver names one gate of one evaluation, has a reason, and ends at a moment of event time.

    waive(store, evaluation, "latency", "a quiet endpoint", end)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from instar.core import ids, journal, lineage
from instar.core.database import Instant, Transaction, metadata
from instar.core.errors import BadInput, NotFound
from instar.core.identity import Permission, require
from instar.core.store import Store
from instar.evaluate.evaluation import Evaluation
from instar.evaluate.gates import Verdict
from instar.evaluate.gates import waive as without

waiver_table = sa.Table(
    "waiver",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("evaluation", sa.String(40), nullable=False, index=True),
    sa.Column("gate", sa.String(300), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("given_by", sa.String(200), nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("event_at", Instant, nullable=False),
)


@dataclass(frozen=True)
class Waiver:
    """Somebody's word that one gate of one evaluation may be passed over, until a moment of event time."""

    id: str
    project: str
    evaluation: str
    gate: str
    reason: str
    given_by: str
    expires_at: datetime
    created_at: datetime
    event_at: datetime


def waive(store: Store, evaluation: Evaluation, gate: str, reason: str, expires_at: datetime) -> Waiver:
    """Pass over one gate of one evaluation, by name, for a reason and until a moment of event time.

    Raises:
        NotFound: The evaluation has no such gate that failed or is undecided.
        BadInput: There is no reason, or the end is in the past.
    """
    require(store.actor, Permission.APPROVE)
    held = [check.name for check in evaluation.verdict.checks if check.state != "passed"]
    if gate not in held:
        raise NotFound("no gate of that name stands in the way", subject=gate, found=", ".join(held) or "all passed")
    if not reason.strip() or expires_at <= store.clock.event():
        raise BadInput("a waiver needs a reason and an end in the future", subject=gate, found=expires_at.isoformat())
    waiver = Waiver(
        id=ids.new_id("waiv"),
        project=evaluation.project,
        evaluation=evaluation.id,
        gate=gate,
        reason=reason,
        given_by=store.actor.name,
        expires_at=expires_at,
        created_at=store.clock.wall(),
        event_at=store.clock.event(),
    )

    def work(tx: Transaction) -> Waiver:
        tx.execute(waiver_table.insert().values(**waiver.__dict__))
        lineage.link(tx, waiver.project, evaluation.id, "was waived in part by", waiver.id)
        body = {"evaluation": evaluation.id, "gate": gate, "reason": reason, "expires_at": expires_at.isoformat()}
        journal.append(tx, store.clock, store.actor, waiver.project, "waiver", waiver.id, body)
        return waiver

    return store.database.write(work, durable=True)


def effective_verdict(store: Store, evaluation: Evaluation, at: datetime) -> Verdict:
    """The verdict of an evaluation with the waivers that hold at a moment of event time."""
    query = sa.select(waiver_table.c.gate).where(
        waiver_table.c.evaluation == evaluation.id, waiver_table.c.expires_at > at
    )
    with store.database.read() as tx:
        waived = frozenset(tx.execute(query).scalars())
    return without(evaluation.verdict, waived) if waived else evaluation.verdict
