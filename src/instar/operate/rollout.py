"""The record of rollouts: where one candidate stands on its way from shadow to champion, and every look at it.

`rollout_rule` decides, `pairing` gathers what it decides upon, `rollout_walk` moves the record and the endpoint. At most
one rollout runs per endpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from instar.core.database import Instant, Json, Transaction, metadata, rows_where
from instar.core.errors import NotFound
from instar.core.store import Store
from instar.operate.rollout_rule import CANARY, CHAMPION, SUPERSEDED, Decision, Place, Terms
from instar.serve.traffic.policy import Shadow

rollout = sa.Table(
    "rollout",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("endpoint", sa.String(200), nullable=False, index=True),
    sa.Column("candidate", sa.Integer, nullable=False),
    sa.Column("bundle", sa.String(80), nullable=False),
    sa.Column("incumbent", sa.Integer, nullable=False),
    sa.Column("stage", sa.String(20), nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("since", Instant, nullable=False),
    sa.Column("terms", Json, nullable=False),
    sa.Column("standing", Json, nullable=False),
    sa.Column("contract", sa.String(80)),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("ended_at", Instant),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("superseded_by", sa.String(60)),
    sa.Column("barred_until", Instant),
    sa.Column("applied", sa.Boolean, nullable=False),
    sa.Column("recorded_at", Instant, nullable=False),
)
rows_where(
    sa.Index("ux_rollout_running", rollout.c.endpoint, unique=True),
    rollout.c.ended_at.is_(None),
)
rollout_look = sa.Table(
    "rollout_look",
    metadata,
    sa.Column("rollout", sa.String(60), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", Instant, nullable=False),
    sa.Column("move", sa.String(20), nullable=False),
    sa.Column("rule", sa.String(40), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("stage", sa.String(20), nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("facts", Json, nullable=False),
)


@dataclass(frozen=True)
class Rollout:
    """One candidate on its way.

    Attributes:
        id: `roll_…`.
        candidate, incumbent: Version numbers of the endpoint's model.
        bundle: Digest of the candidate.
        stage, step: Where it stands: `"shadow"`, `"canary"` at `terms.steps[step]`, `"champion"`, `"rolled back"`,
            `"rejected"` or `"superseded"`.
        since: Event time at which it came there.
        standing: Shadows which the endpoint keeps for versions that have no other place.
        contract: Revision that set the terms.
        cause: Id of the action, or who asked.
        reason: Why it stands where it stands.
        barred_until: Event time before which the candidate may not come back; set when it was put out for cause.
        applied: The endpoint's policy, and the bar, follow already.
    """

    id: str
    project: str
    endpoint: str
    candidate: int
    bundle: str
    incumbent: int
    stage: str
    step: int
    since: datetime
    terms: Terms
    standing: tuple[Shadow, ...]
    contract: str | None
    cause: str
    started_at: datetime
    ended_at: datetime | None
    reason: str
    superseded_by: str | None
    barred_until: datetime | None
    applied: bool
    recorded_at: datetime

    @property
    def place(self) -> Place:
        return Place(self.stage, self.step, self.since)

    @property
    def share(self) -> float:
        """Share of calls that the candidate answers, per cent."""
        if self.stage == CANARY:
            return self.terms.steps[self.step]
        return 100.0 if self.stage == CHAMPION else 0.0


@dataclass(frozen=True)
class Look:
    """One look at a running rollout, kept with its evidence."""

    rollout: str
    number: int
    at: datetime
    move: str
    rule: str
    reason: str
    stage: str
    step: int
    facts: dict[str, Any]


def running(store: Store, endpoint: str) -> Rollout | None:
    """The endpoint's rollout that has not ended."""
    with store.database.read() as tx:
        return running_in(tx, endpoint)


def running_in(tx: Transaction, endpoint: str) -> Rollout | None:
    query = sa.select(rollout).where(rollout.c.endpoint == endpoint, rollout.c.ended_at.is_(None))
    row = tx.execute(query).one_or_none()
    return None if row is None else from_row(row._mapping)


def get(store: Store, name: str) -> Rollout:
    """One rollout by id.

    Raises:
        NotFound: No rollout has it.
    """
    with store.database.read() as tx:
        row = tx.execute(sa.select(rollout).where(rollout.c.id == name)).one_or_none()
    if row is None:
        raise NotFound("there is no such rollout", subject=name)
    return from_row(row._mapping)


def rollouts(store: Store, project: str, endpoint: str | None = None) -> list[Rollout]:
    """Rollouts of a project, latest first."""
    query = sa.select(rollout).where(rollout.c.project == project)
    if endpoint is not None:
        query = query.where(rollout.c.endpoint == endpoint)
    with store.database.read() as tx:
        return [
            from_row(row._mapping)
            for row in tx.execute(query.order_by(rollout.c.started_at.desc(), rollout.c.id.desc()))
        ]


def looks(store: Store, name: str) -> list[Look]:
    """All looks at a rollout, first to last."""
    query = sa.select(rollout_look).where(rollout_look.c.rollout == name).order_by(rollout_look.c.number)
    with store.database.read() as tx:
        return [Look(**row._mapping) for row in tx.execute(query)]


def row_of(one: Rollout) -> dict[str, Any]:
    standing = [[shadow.version, shadow.role] for shadow in one.standing]
    return {**vars(one), "terms": msgspec.to_builtins(one.terms), "standing": standing}


def from_row(row: Any) -> Rollout:
    values = dict(row)
    if not isinstance(values["terms"], Terms):
        values["terms"] = msgspec.convert(values["terms"], Terms)
    values["standing"] = tuple(Shadow(version, role) for version, role in values["standing"])
    return Rollout(**values)


def body_of(one: Rollout) -> dict[str, Any]:
    return {
        "endpoint": one.endpoint,
        "candidate": one.candidate,
        "bundle": one.bundle,
        "incumbent": one.incumbent,
        "stage": one.stage,
        "step": one.step,
        "share": one.share,
        "cause": one.cause,
        "contract": one.contract,
    }


def supersede(tx: Transaction, endpoint: str, now: datetime, reason: str, by: str | None) -> Rollout | None:
    """End the endpoint's running rollout in favour of something newer, which sets the policy; None when none runs."""
    found = running_in(tx, endpoint)
    if found is not None:
        values = {"stage": SUPERSEDED, "since": now, "ended_at": now, "reason": reason, "superseded_by": by}
        tx.execute(rollout.update().where(rollout.c.id == found.id).values(applied=True, **values))
    return found


def keep_look(tx: Transaction, name: str, decision: Decision, now: datetime) -> None:
    """Record one look, with its evidence."""
    last = tx.execute(sa.select(sa.func.max(rollout_look.c.number)).where(rollout_look.c.rollout == name)).scalar()
    values = {
        "rollout": name,
        "number": (last or 0) + 1,
        "at": now,
        "move": decision.move.value,
        "rule": decision.rule,
        "reason": decision.reason,
        "stage": decision.stage,
        "step": decision.step,
        "facts": decision.facts,
    }
    tx.execute(rollout_look.insert().values(**values))
