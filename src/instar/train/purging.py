"""Runs, logged models and experiments taken off the record for good, some time after they were deleted, with their rows.

Who may not go is asked before, by the collector (`operate/garbage.py`), which sees all stages. The journal keeps that they
were there, and that they went.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from instar.core.database import Transaction
from instar.core.lineage import lineage_edge
from instar.core.notes import note_table
from instar.train.bundles import bundle_table
from instar.train.logged_models import logged_model_table
from instar.train.logged_models import parameter_table as model_parameter_table
from instar.train.logged_models import tag_table as model_tag_table
from instar.train.model_links import model_metric_table, run_model_table
from instar.train.tracking_tables import (
    DELETED,
    artifact_table,
    dataset_table,
    experiment_table,
    experiment_tag_table,
    input_table,
    latest_table,
    metric_table,
    parameter_table,
    run_table,
    tag_table,
)


@dataclass(frozen=True)
class Deleted:
    """A run that is deleted, with what came of it.

    Attributes:
        bundles: Digests of the bundles that it made.
        models: Ids of the models that were logged to it.
    """

    key: int
    id: str
    project: str
    experiment: str
    bundles: tuple[str, ...]
    models: tuple[str, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """Ids of all that would go with it."""
        return (self.id, *self.bundles, *self.models)


@dataclass(frozen=True)
class DeletedModel:
    """A logged model that is deleted alone: its run stays, or it has none.

    Attributes:
        bundles: Digest of the bundle that its folder is, unless another model is the same one.
    """

    id: str
    project: str
    run: str
    bundles: tuple[str, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """Ids of all that would go with it."""
        return (self.id, *self.bundles)


def deleted_runs(tx: Transaction, before: datetime) -> list[Deleted]:
    """Runs that were deleted before a moment, in the order of their ids."""
    at = run_table.c
    query = sa.select(at.key, at.id, at.project, at.experiment_id).where(
        at.lifecycle == DELETED, at.deleted_at < before
    )
    rows = tx.execute(query.order_by(at.id)).all()
    names = [row.id for row in rows]
    bundles = _came_of(tx, bundle_table.c.run, bundle_table.c.digest, names)
    models = _came_of(tx, logged_model_table.c.run, logged_model_table.c.id, names)
    return [
        Deleted(row.key, row.id, row.project, row.experiment_id, bundles.get(row.id, ()), models.get(row.id, ()))
        for row in rows
    ]


def deleted_models(tx: Transaction, before: datetime, runs: Collection[str]) -> list[DeletedModel]:
    """Logged models that were deleted before a moment, in the order of their ids.

    Args:
        runs: Runs that are deleted, too: their models go with them, or stay with them.
    """
    at = logged_model_table.c
    query = sa.select(at.id, at.project, at.run, at.bundle).where(at.deleted_at.is_not(None), at.deleted_at < before)
    rows = [row for row in tx.execute(query.order_by(at.id)) if row.run not in runs]
    return [DeletedModel(row.id, row.project, row.run, _own_bundle(tx, row.id, row.bundle)) for row in rows]


def _own_bundle(tx: Transaction, model: str, digest: str | None) -> tuple[str, ...]:
    at = logged_model_table.c
    if digest is None or tx.execute(sa.select(at.id).where(at.bundle == digest, at.id != model)).first() is not None:
        return ()
    return (digest,)


def purge_model(tx: Transaction, model: DeletedModel) -> bool:
    """Take a logged model off the record, unless it is not deleted any more."""
    at = logged_model_table.c
    still = (at.id == model.id) & at.deleted_at.is_not(None)
    if tx.execute(sa.select(at.id).where(still).with_for_update()).first() is None:
        return False
    _purge_model(tx, model.id)
    for digest in model.bundles:
        tx.execute(bundle_table.delete().where(bundle_table.c.digest == digest))
    _forget(tx, model.nodes)
    return True


def purge(tx: Transaction, run: Deleted) -> bool:
    """Take a run off the record, unless it was restored meanwhile."""
    still = (run_table.c.key == run.key) & (run_table.c.lifecycle == DELETED)
    if tx.execute(sa.select(run_table.c.key).where(still).with_for_update()).first() is None:
        return False
    datasets = tx.execute(sa.select(input_table.c.dataset).where(input_table.c.run == run.key)).scalars().all()
    for table in (parameter_table, tag_table, metric_table, latest_table, input_table):
        tx.execute(table.delete().where(table.c.run == run.key))
    unread = dataset_table.c.id.in_(datasets) & dataset_table.c.id.not_in(sa.select(input_table.c.dataset))
    tx.execute(dataset_table.delete().where(unread))
    tx.execute(artifact_table.delete().where(artifact_table.c.owner == run.id))
    # How far its spool was applied stays: what a process left of it must not bring it back.
    tx.execute(run_model_table.delete().where(run_model_table.c.run == run.id))
    for model in run.models:
        _purge_model(tx, model)
    tx.execute(bundle_table.delete().where(bundle_table.c.run == run.id))
    _forget(tx, run.nodes)
    tx.execute(run_table.delete().where(run_table.c.key == run.key))
    return True


def _purge_model(tx: Transaction, model: str) -> None:
    tx.execute(artifact_table.delete().where(artifact_table.c.owner == model))
    for named in (model_tag_table, model_parameter_table, model_metric_table, run_model_table):
        tx.execute(named.delete().where(named.c.model == model))
    tx.execute(logged_model_table.delete().where(logged_model_table.c.id == model))


def _forget(tx: Transaction, nodes: Iterable[str]) -> None:
    """Notes on what is gone, and what led to it and from it."""
    for node in nodes:
        tx.execute(note_table.delete().where(note_table.c.subject == node))
        tx.execute(lineage_edge.delete().where((lineage_edge.c.source == node) | (lineage_edge.c.target == node)))


def purge_experiments(tx: Transaction, before: datetime) -> list[tuple[str, str, str]]:
    """Take deleted experiments without runs off the record; returns project, id and name of each."""
    at = experiment_table.c
    used = sa.select(run_table.c.experiment_id)
    logged = sa.select(logged_model_table.c.experiment)
    query = sa.select(at.project, at.id, at.name).where(
        at.state == DELETED, at.updated < before, at.id.not_in(used), at.id.not_in(logged)
    )
    found = [(row.project, row.id, row.name) for row in tx.execute(query.order_by(at.id))]
    for _, id, _ in found:
        tx.execute(experiment_tag_table.delete().where(experiment_tag_table.c.experiment == id))
        tx.execute(experiment_table.delete().where(at.id == id))
    return found


def _came_of(tx: Transaction, run: sa.Column[str], made: sa.Column[str], runs: list[str]) -> dict[str, tuple[str, ...]]:
    """What each of the runs made."""
    found: dict[str, tuple[str, ...]] = {}
    for begin in range(0, len(runs), 500):
        query = sa.select(run.label("run"), made.label("made")).where(run.in_(runs[begin : begin + 500])).order_by(made)
        for row in tx.execute(query):
            found[row.run] = (*found.get(row.run, ()), row.made)
    return found
