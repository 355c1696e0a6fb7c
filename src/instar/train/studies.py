"""Studies: the record of each search for the parameters of a model step, kept while it runs and asked afterwards.

The trials of a study are runs that bear its id as a tag; where the search stands is kept by the search method in the
store's folder, so that a study which was killed goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from instar.core import ids, journal, lineage
from instar.core.database import Instant, Json, Transaction, metadata
from instar.core.errors import NotFound
from instar.core.store import Store

RUNNING, FINISHED, STOPPED = "running", "finished", "stopped"
FOLDER = "studies"  # in the store's folder

study_table = sa.Table(
    "study",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("step", sa.String(200), nullable=False),
    sa.Column("problem", sa.String(200), nullable=False),
    sa.Column("key", sa.String(80), nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("terms", Json, nullable=False),
    sa.Column("trials", sa.Integer, nullable=False),
    sa.Column("version", sa.String(60), nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("started", Instant, nullable=False),
    sa.Column("ended", Instant),
    sa.UniqueConstraint("project", "key"),
)


@dataclass(frozen=True)
class Study:
    """One search.

    Attributes:
        id: `stdy_…`.
        key: Digest of step, space, objectives, method and rows: the same again is the same study, and goes on.
        state: `"running"`, `"finished"` or `"stopped"` (early, by a person, or because no trial works).
        terms: `space`, `fixed` (parameters that are not searched), `objectives`, `sampler`, `pruner`, `shares`, `seed`.
        trials: How many it may make in all.
        version: Table version that it fits on.
    """

    id: str
    project: str
    step: str
    problem: str
    key: str
    state: str
    terms: Mapping[str, Any]
    trials: int
    version: str
    actor: str
    started: datetime
    ended: datetime | None = None


def begin(
    store: Store,
    project: str,
    *,
    step: str,
    problem: str,
    terms: Mapping[str, Any],
    trials: int,
    version: str,
    recipe: str,
) -> tuple[Study, bool]:
    """Put a study on the record, or take it up again; returns it and whether it was there.

    Args:
        recipe: Digest of the step's source: with other code it is another study.
    """
    key = ids.digest_of([step, recipe, version, {**terms, "objectives": list(terms["objectives"])}])

    def work(tx: Transaction) -> tuple[Study, bool]:
        here = (study_table.c.project == project) & (study_table.c.key == key)
        row = tx.execute(sa.select(study_table).where(here)).one_or_none()
        if row is not None:
            again = {"state": RUNNING, "ended": None, "trials": trials}
            tx.execute(study_table.update().where(here).values(**again))
            return Study(**{**row._mapping, **again}), True
        study = Study(
            ids.new_id("stdy"), project, step, problem, key, RUNNING, terms, trials, version, store.actor.name,
            store.clock.wall(),
        )  # fmt: skip
        tx.execute(study_table.insert().values(**vars(study)))
        lineage.link(tx, project, version, "was searched by", study.id)
        return study, False

    return store.database.write(work)


def end(store: Store, study: Study, state: str, result: Mapping[str, Any]) -> Study:
    """Close a study with what came of it: a journal entry that names the best trials."""

    def work(tx: Transaction) -> Study:
        ended = {"state": state, "ended": store.clock.wall()}
        tx.execute(study_table.update().where(study_table.c.id == study.id).values(**ended))
        body = {"step": study.step, "state": state, "terms": dict(study.terms), **result}
        journal.append(tx, store.clock, store.actor, study.project, "study ended", study.id, body)
        return Study(**{**vars(study), **ended})

    return store.database.write(work, durable=True)


def get(store: Store, study: str) -> Study:
    """The study of that id, or the only one whose id begins so.

    Raises:
        NotFound: There is none, or more than one.
    """
    query = sa.select(study_table).where(study_table.c.id.startswith(study, autoescape=True)).limit(2)
    with store.database.read() as tx:
        found = tx.execute(query).all()
    if len(found) != 1 or not study.startswith("stdy_"):
        raise NotFound(
            "more than one study begins so" if len(found) > 1 else "there is no such study", subject=study,
            next_step="List them with: instar studies ls",
        )  # fmt: skip
    return Study(**found[0]._mapping)


def studies(store: Store, project: str, step: str | None = None, limit: int = 100) -> Sequence[Study]:
    """Studies of a project, the newest first."""
    query = sa.select(study_table).where(study_table.c.project == project)
    if step is not None:
        query = query.where(study_table.c.step == step)
    with store.database.read() as tx:
        return [Study(**row._mapping) for row in tx.execute(query.order_by(study_table.c.id.desc()).limit(limit))]


def file_of(store: Store, study: Study) -> Path:
    """Where the search method keeps the state of a study."""
    return store.folder / FOLDER / f"{study.id}.log"


def document(study: Study) -> dict[str, Any]:
    """A study as JSON."""
    ended = study.ended.isoformat() if study.ended else None
    return {**vars(study), "terms": dict(study.terms), "started": study.started.isoformat(), "ended": ended}
