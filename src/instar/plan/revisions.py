"""Contract revisions: which state of `instar.toml` was in effect when; one takes effect at the moment it is journalled."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from instar.core import journal
from instar.core.database import Instant, Json, Transaction, metadata
from instar.core.ids import digest
from instar.core.store import Store
from instar.plan.project import Project

contract_revision = sa.Table(
    "contract_revision",
    metadata,
    sa.Column("project", sa.String(200), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("revision", sa.String(80), nullable=False),
    sa.Column("objective", sa.Text, nullable=False),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("contract", Json, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("event_at", Instant, nullable=False),
    sa.Column("recorded_at", Instant, nullable=False),
)


@dataclass(frozen=True)
class ContractRevision:
    """One state of a project's contract, in effect from `event_at` until the next number's."""

    project: str
    number: int
    revision: str
    objective: str
    owner: str
    contract: dict[str, Any]
    text: str
    actor: str
    event_at: datetime
    recorded_at: datetime


def record_contract(store: Store, project: Project) -> str:
    """Put the project's contract into effect, unless it is already; returns its revision."""
    contract: dict[str, Any] = msgspec.to_builtins(project.contract)

    def work(tx: Transaction) -> str:
        before = current(tx, project.name)
        if before is not None and before.revision == project.revision:
            return project.revision
        number = before.number + 1 if before else 1
        section = project.contract.project
        tx.execute(
            contract_revision.insert().values(
                project=project.name,
                number=number,
                revision=project.revision,
                objective=section.objective,
                owner=section.owner,
                contract=contract,
                text=project.text,
                actor=store.actor.name,
                event_at=store.clock.event(),
                recorded_at=store.clock.wall(),
            )
        )
        problems = {
            name: {key: problem[key] for key in ("task", "target", "metric", "cost", "oversight")}
            for name, problem in contract["problem"].items()
        }
        body = {
            "number": number,
            "before": before.revision if before else None,
            "objective": section.objective,
            "owner": section.owner,
            "problems": problems,
            "file": digest(project.text.encode()),
        }
        journal.append(tx, store.clock, store.actor, project.name, "contract revision", project.revision, body)
        return project.revision

    with store.database.read() as tx:  # most walks change nothing, and then take no writer's turn
        before = current(tx, project.name)
    if before is not None and before.revision == project.revision:
        return project.revision
    return store.database.write(work, durable=True)


def current(tx: Transaction, project: str) -> ContractRevision | None:
    """The revision in effect, None before the first."""
    query = sa.select(contract_revision).where(contract_revision.c.project == project)
    row = tx.execute(query.order_by(contract_revision.c.number.desc()).limit(1)).first()
    return None if row is None else ContractRevision(**row._mapping)


def at(tx: Transaction, project: str, moment: datetime) -> ContractRevision | None:
    """The revision that was in effect at an event time."""
    query = sa.select(contract_revision).where(
        contract_revision.c.project == project, contract_revision.c.event_at <= moment
    )
    row = tx.execute(query.order_by(contract_revision.c.number.desc()).limit(1)).first()
    return None if row is None else ContractRevision(**row._mapping)
