"""Collecting garbage, when somebody says `instar gc`: what was deleted goes for good, and so does what nothing names any more.

    report = collect(store, "flights", dry_run=True)
    report.gone, report.kept            # what would go, and what stays, each with its size and the reason

Runs, logged models and experiments that were deleted go with their rows and files, unless something that stays came of
them. Blobs go that no record names, and that were not put again within the grace: a writer puts its blobs first and its
record second, so the grace is longer than any writer takes. Marks are made in one transaction; each blob is looked at once
more as it is removed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from instar.core import journal
from instar.core.database import Transaction
from instar.core.errors import BadInput
from instar.core.ids import digest_of
from instar.core.lineage import lineage_edge
from instar.core.store import Store
from instar.operate import references
from instar.plan.leases import LOST_AFTER
from instar.serve.log import catalogue, retention, sealed_table
from instar.serve.traffic.routes import read_snapshot
from instar.train import bundles, environments, part_uploads, purging, spool
from instar.train.logged_models import PACKED
from instar.train.purging import Deleted, DeletedModel

GRACE = timedelta(days=1)
UNUSED = timedelta(days=7)  # an environment that nobody used for so long goes; it can be built again
SHORTEST_GRACE = 2 * LOST_AFTER  # whoever holds a lease for longer than that without a sign of life is given up
MOST_NAMED = 1000  # runs in one journal entry


@dataclass(frozen=True)
class Item:
    """Something that goes, or stays.

    Attributes:
        kind: `"run"`, `"experiment"`, `"bundle"`, `"model"`, `"blob"`, `"environment"`, `"upload"`, `"spool"`,
            `"calls"` or `"inputs"`.
        size: Bytes; 0 for rows.
        reason: Why.
    """

    kind: str
    name: str
    size: int
    reason: str


@dataclass(frozen=True)
class Report:
    """What a collection found; of a dry run, what it would have done.

    Attributes:
        blobs: Blobs that stay because a record names them.
        young: Blobs that no record names yet, which were put within the grace.
    """

    dry_run: bool
    gone: tuple[Item, ...]
    kept: tuple[Item, ...]
    blobs: int
    young: int

    @property
    def size(self) -> int:
        """Bytes that went."""
        return sum(item.size for item in self.gone)

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "dry_run": self.dry_run,
            "bytes": self.size,
            "gone": [asdict(item) for item in self.gone],
            "kept": [asdict(item) for item in self.kept],
            "blobs_named": self.blobs,
            "blobs_within_grace": self.young,
        }


@dataclass(frozen=True)
class _Records:
    """What was taken off the record, and the digests that it names afterwards."""

    gone: tuple[Item, ...]
    kept: tuple[Item, ...]
    named: set[str]


class _Undone(Exception):
    """Carries what a dry run found out of the transaction, which is rolled back."""

    def __init__(self, records: _Records) -> None:
        self.records = records


def collect(
    store: Store,
    project: str,
    *,
    dry_run: bool = False,
    grace: timedelta = GRACE,
    unused: timedelta = UNUSED,
    terms: Mapping[str, retention.Terms] | None = None,
) -> Report:
    """Remove what was deleted, and what nothing names.

    Args:
        project: Whose journal says that blobs and environments of the store went.
        grace: What was deleted, or put, within it stays.
        unused: Environments that were used within it stay.
        terms: By endpoint, how long the record of its calls is kept; for ever where nothing is said.

    Raises:
        BadInput: The grace is shorter than a writer may take.
    """
    if grace < SHORTEST_GRACE:
        raise BadInput(
            "the grace is shorter than a writer may take", found=str(grace), asked=f"{SHORTEST_GRACE} or more",
            next_step="Leave it at a day, unless space is short.",
        )  # fmt: skip
    now = store.clock.wall()
    records = _records(store, now - grace, dry_run)
    marked = references.follow(store.blobs, records.named)
    blobs, young = _blobs(store, project, marked, now - grace, dry_run)
    environment_items = _environments(store, now - unused, dry_run)
    spools = _spools(store, grace, dry_run)
    halves = store.blobs.leftovers(now - grace, remove=not dry_run)
    blobs += [Item("blob", name, size, "its writer was killed half way") for name, size in halves.items()]
    parts = part_uploads.sweep(store, remove=not dry_run)
    blobs += [Item("upload", id, size, "nobody completed it in time") for id, size in parts.items()]
    calls = _calls(store, project, terms or {}, dry_run)
    gone = (*records.gone, *blobs, *(one for one in environment_items if one.reason == _UNUSED), *spools, *calls)
    kept = (*records.kept, *(one for one in environment_items if one.reason != _UNUSED))
    return Report(dry_run, gone, kept, len(marked & set(store.blobs.digests())), young)


def _calls(store: Store, project: str, terms: Mapping[str, retention.Terms], dry_run: bool) -> list[Item]:
    """Sealed calls whose time is over, and files that a crash of sealing left."""
    found = []
    for gone in retention.expire(store, project, terms, dry_run=dry_run):
        name = f"{gone.unit.endpoint}, {gone.unit.predictions} predictions until {gone.unit.last_at:%Y-%m-%d}"
        whole = gone.what == "predictions"
        found.append(
            Item("calls" if whole else "inputs", name, gone.size if whole else 0, f"the contract says {gone.policy}")
        )
    with sealed_table.alone(store):
        for owner, endpoint in catalogue.tables(store):
            if owner == project:
                left = sealed_table.sweep(store, project, endpoint, remove=not dry_run)
                found += [Item("calls", path, size, "its writer was killed half way") for path, size in left.items()]
    return found


_UNUSED = "nobody used it lately"


def _records(store: Store, before: datetime, dry_run: bool) -> _Records:
    def work(tx: Transaction) -> _Records:
        found = purging.deleted_runs(tx, before)
        alone = purging.deleted_models(tx, before, {run.id for run in found})
        why = _reasons(tx, [*found, *alone])
        models = [one for one in alone if one.id not in why and purging.purge_model(tx, one)]
        going = [run for run in found if run.id not in why and purging.purge(tx, run)]
        experiments = purging.purge_experiments(tx, before)
        gone = [Item("run", run.id, 0, "it was deleted") for run in going]
        gone += [Item("bundle", one, 0, f"only {run.id} made it") for run in going for one in run.bundles]
        gone += [Item("model", one, 0, f"it was logged to {run.id}") for run in going for one in run.models]
        gone += [Item("model", one.id, 0, "it was deleted") for one in models]
        gone += [Item("bundle", digest, 0, f"only {one.id} was it") for one in models for digest in one.bundles]
        gone += [Item("experiment", id, 0, f"{name} was deleted") for _, id, name in experiments]
        kept = [Item("run", run.id, 0, why[run.id]) for run in found if run.id in why]
        kept += [Item("model", one.id, 0, why[one.id]) for one in alone if one.id in why]
        named = references.digests_named(tx)
        if dry_run:
            raise _Undone(_Records(tuple(gone), tuple(kept), named))
        _journal_records(tx, store, going, models, experiments)
        return _Records(tuple(gone), tuple(kept), named)

    try:
        return store.database.write(work, durable=True)
    except _Undone as undone:
        return undone.records


def _journal_records(
    tx: Transaction,
    store: Store,
    runs: Sequence[Deleted],
    models: Sequence[DeletedModel],
    experiments: Sequence[tuple[str, str, str]],
) -> None:
    owners = {*(run.project for run in runs), *(one.project for one in models), *(one[0] for one in experiments)}
    for project in sorted(owners):
        names = [run.id for run in runs if run.project == project]
        body = {
            "runs": names[:MOST_NAMED],
            "count": len(names),
            "digest": digest_of(names),
            "models": [one.id for one in models if one.project == project][:MOST_NAMED],
            "bundles": [
                *(digest for run in runs if run.project == project for digest in run.bundles),
                *(digest for one in models if one.project == project for digest in one.bundles),
            ],
            "experiments": [id for owner, id, _ in experiments if owner == project],
        }
        journal.append(tx, store.clock, store.actor, project, "deleted for good", "runs", body)


def _reasons(tx: Transaction, found: Sequence[Deleted | DeletedModel]) -> dict[str, str]:
    """Why runs and models have to stay, by their ids: something that stays refers to them, or came of them."""
    nodes = {node for run in found for node in run.nodes}
    named = references.who_refers(tx, nodes)
    came = _came_of(tx, nodes)
    why: dict[str, str] = {}
    for run in found:
        for node in run.nodes:
            if node in named:
                why.setdefault(run.id, f"{named[node][0].what} refers to {_which(run, node)}")
        for digest in run.bundles:
            if _is_current(tx, run.project, digest):
                why.setdefault(run.id, f"its bundle {digest[:11]} is the present output of its step")
    going = {run.id: set(run.nodes) for run in found if run.id not in why}
    while True:
        leaving = {node for own in going.values() for node in own}
        staying = {
            id: next((edge for node in own for edge in came.get(node, ()) if edge[1] not in leaving), None)
            for id, own in going.items()
        }
        kept = {id: edge for id, edge in staying.items() if edge is not None}
        if not kept:
            return why
        for id, (relation, effect) in kept.items():
            why[id] = f"it {relation} {effect}, which stays"
            del going[id]


def _came_of(tx: Transaction, nodes: set[str]) -> dict[str, list[tuple[str, str]]]:
    wanted = sorted(nodes)
    found: dict[str, list[tuple[str, str]]] = {}
    for begin in range(0, len(wanted), 500):
        query = sa.select(lineage_edge).where(
            lineage_edge.c.source.in_(wanted[begin : begin + 500]),
            lineage_edge.c.relation != PACKED,  # a bundle that another model is, too, needs only one of them
        )
        for row in tx.execute(query.order_by(lineage_edge.c.source, lineage_edge.c.target)):
            found.setdefault(row.source, []).append((row.relation, row.target))
    return found


def _is_current(tx: Transaction, project: str, digest: str) -> bool:
    at = bundles.bundle_table.c
    row = tx.execute(sa.select(at.step, at.refit_of).where(at.project == project, at.digest == digest)).one_or_none()
    if row is None or not row.step or row.refit_of is not None:  # a logged model is no step's output
        return False
    current = bundles.current(tx, project, row.step)
    return current is not None and current[0] == digest


def _which(run: Deleted | DeletedModel, node: str) -> str:
    return "it" if node == run.id else f"its {'bundle' if node in run.bundles else 'model'} {node[:11]}"


def _blobs(store: Store, project: str, marked: set[str], before: datetime, dry_run: bool) -> tuple[list[Item], int]:
    unnamed = sorted(set(store.blobs.digests()) - marked)
    sizes = {digest: _old_size(store, digest, before) for digest in unnamed}
    old = [digest for digest in unnamed if sizes[digest] is not None]
    if dry_run or not old:
        found = [Item("blob", one, sizes[one] or 0, "no record names it") for one in old]
        return found, len(unnamed) - len(old)

    # Once more, and in the open: what a record names by now stays, and the journal says what is about to go.
    def work(tx: Transaction) -> set[str]:
        again = references.digests_named(tx)
        going = [one for one in old if one not in again]
        body = {"blobs": len(going), "bytes": sum(sizes[one] or 0 for one in going), "digest": digest_of(going)}
        journal.append(tx, store.clock, store.actor, project, "garbage collected", "blobs", body)
        return set(going)

    going = store.database.write(work, durable=True)
    items = []
    for digest in sorted(going):
        size = store.blobs.collect(digest, before)
        if size is not None:
            items.append(Item("blob", digest, size, "no record named it"))
    return items, len(unnamed) - len(items)


def _old_size(store: Store, digest: str, before: datetime) -> int | None:
    """Its size, if it was put before the moment."""
    put = store.blobs.put_at(digest)
    return store.blobs.path(digest).stat().st_size if put is not None and put < before else None


def _environments(store: Store, before: datetime, dry_run: bool) -> list[Item]:
    found = []
    routed = {
        route.environment for endpoint in read_snapshot(store.folder).endpoints.values() for route in endpoint.held
    }
    for one in environments.listing(store):
        used, size = environments.last_used(store, one.digest), environments.own_bytes(store, one.digest)
        if one.digest in routed:
            found.append(Item("environment", one.digest, size, "a version that answers runs in it"))
        elif used >= before:
            found.append(Item("environment", one.digest, size, f"it was used on {used:%Y-%m-%d}"))
        elif dry_run:
            found.append(Item("environment", one.digest, size, _UNUSED))
        else:
            went = environments.collect(store, one.digest, before)
            found.append(Item("environment", one.digest, size, _UNUSED if went is not None else "it is in use"))
    for name, size in environments.leftovers(store, before, remove=not dry_run).items():
        found.append(Item("environment", name, size, _UNUSED))
    return found


def _spools(store: Store, grace: timedelta, dry_run: bool) -> list[Item]:
    place = store.folder / spool.FOLDER
    seconds = grace.total_seconds()
    if not dry_run:
        return [Item("spool", name, 0, "it was delivered") for name in spool.sweep(place, seconds)]
    old = [folder.name for folder in spool.runs(place) if _delivered_for(folder) >= seconds]
    return [Item("spool", name, 0, "it was delivered") for name in old]


def _delivered_for(folder: Path) -> float:
    """Seconds since a spool was delivered; less than none before."""
    try:
        return time.time() - (folder / "delivered").stat().st_mtime
    except FileNotFoundError:
        return -1.0
