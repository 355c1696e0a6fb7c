"""Changing the sealed record: some units go, others stand for them, in the order that survives a crash at any step.

Files first, then the commit to the Delta table, then one transaction that names the new units and journals them. What a crash
left half done is not named by the catalogue, so it does not exist: `repair` takes such a commit back before the next change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import polars as pl

from instar.core import ids, journal
from instar.core.database import Transaction, microseconds
from instar.core.locks import one_at_a_time
from instar.core.store import Store
from instar.data import delta_log
from instar.serve.log import catalogue, layout
from instar.serve.log.catalogue import Unit
from instar.serve.log.layout import Kept, Written

Entry = tuple[str, str, dict[str, Any]]


def alone(store: Store) -> AbstractContextManager[None]:
    """One at a time: whoever seals, merges or erases holds this."""
    return one_at_a_time(store.folder / "calls" / ".sealing")


def make_unit(
    store: Store,
    project: str,
    endpoint: str,
    day: str,
    name: str,
    parts: Iterator[pl.DataFrame],
    frames: Iterator[Kept],
    segments: Sequence[str],
    *,
    lost: str = "",
) -> Unit:
    """Write both files of a unit and look at what they hold, part by part.

    Args:
        name: Of both files, without an ending.
        parts: Rows as they are stored, in order of their calls.
    """
    facts = _Facts()
    paths = [f"{endpoint}__{kind}/day={day}/{name}.parquet" for kind in ("predictions", "frames")]
    folder = catalogue.tables_folder(store.folder, project)
    rows: Written = layout.write_rows(folder / paths[0], map(facts.look, parts))
    proof: Written = layout.write_frames(folder / paths[1], frames)
    return Unit(
        id=f"unit_{ids.digest_of([project, paths[0], rows.digest, proof.digest])[3:43]}",
        project=project,
        endpoint=endpoint,
        day=day,
        rows_path=paths[0],
        rows_digest=rows.digest,
        rows_size=rows.size,
        frames_path=paths[1],
        frames_digest=proof.digest,
        frames_size=proof.size,
        predictions=facts.predictions,
        **facts.bounds,
        segments=tuple(segments),
        listed=facts.listed,
        lost=lost,
        added_at=store.clock.wall(),
    )


def make_again(
    store: Store, unit: Unit, parts: Iterator[pl.DataFrame], frames: Iterator[Kept], *, without: str
) -> Unit:
    """Write a unit anew that lost something more: its day and segments stay.

    Args:
        without: What its rows do not hold any more, a word of `Unit.lost`.
    """
    lost = {without, *filter(None, unit.lost.split(", "))}
    return make_unit(
        store, unit.project, unit.endpoint, unit.day, ids.new_id("part"), parts, frames, unit.segments,
        lost=", ".join(sorted(lost)),
    )  # fmt: skip


class _Facts:
    """What the rows of a unit lie between, and the values of columns that have few."""

    def __init__(self) -> None:
        self.predictions = 0
        self.bounds: dict[str, Any] = {}
        self.listed: dict[str, list[Any]] = {}

    def look(self, part: pl.DataFrame) -> pl.DataFrame:
        first = not self.predictions
        self.predictions += part.height
        found = bounds(part)
        values = layout.listed(part)
        if first:
            self.bounds, self.listed = found, values
            return part
        for name, value in found.items():
            self.bounds[name] = (min if name.startswith("first") else max)(self.bounds[name], value)
        both = {name: sorted({*self.listed[name], *values[name]}) for name in self.listed if name in values}
        self.listed = {name: known for name, known in both.items() if len(known) <= layout.MOST_LISTED}
        return part


def bounds(rows: pl.DataFrame) -> dict[str, Any]:
    """What rows lie between, by the catalogue's names."""
    return {
        "first_call": rows["call"].min(),
        "last_call": rows["call"].max(),
        "first_at": rows["at"].min(),
        "last_at": rows["at"].max(),
    }


def schema(store: Store, project: str, endpoint: str) -> dict[str, Any] | None:
    """The schema of an endpoint's Delta table as its JSON; null before the first file."""
    known = catalogue.schema(store, project, endpoint)
    if known is not None or catalogue.delta_version(store, project, endpoint) < 0:
        return known
    from deltalake import DeltaTable  # a table from before schemas were kept: looked at once

    table = catalogue.table_folder(store.folder, project, endpoint)
    found: dict[str, Any] = json.loads(DeltaTable(str(table)).schema().to_json())
    return found


def change(
    store: Store,
    project: str,
    endpoint: str,
    took: Sequence[Unit],
    made: Sequence[Unit],
    entry: Entry,
    *,
    transaction: str,
    also: Callable[[Transaction], None] | None = None,
) -> None:
    """Have `made` stand for `took`: the commit, then the catalogue and the journal at once.

    Args:
        entry: Kind, subject and body of the journal's entry; what was taken and made is added to it.
        transaction: Under which the Delta table hears of it: the segment's id when it is sealed.
        also: Further work of the same transaction.
    """
    table = catalogue.table_folder(store.folder, project, endpoint)
    version = catalogue.delta_version(store, project, endpoint) + 1
    at_ms = microseconds(store.clock.wall()) // 1000
    actions = [delta_log.remove(_in_table(one), at_ms) for one in took]
    actions += [_add(store, one, at_ms) for one in made]
    own = {"units": [one.id for one in made]}
    grown = _grown_schema(store, project, endpoint, made)
    delta_log.commit(table, version, actions, transaction=transaction, own=own, at_ms=at_ms, schema=grown)
    kind, subject, facts = entry
    body = {**facts, "took": sorted({path for one in took for path in one.files}), "made": files(made)}

    def work(tx: Transaction) -> None:
        catalogue.retire(tx, [one.id for one in took], store.clock.wall())
        for one in made:
            catalogue.insert_unit(tx, one)
        catalogue.set_delta_version(tx, project, endpoint, version, json.loads(grown) if grown is not None else None)
        if also is not None:
            also(tx)
        journal.append(tx, store.clock, store.actor, project, kind, subject, body)

    store.database.write(work, durable=True)
    if version and version % delta_log.CHECKPOINT_EVERY == 0:
        delta_log.checkpoint(table)


def _grown_schema(store: Store, project: str, endpoint: str, made: Sequence[Unit]) -> str | None:
    """The table's schema with the columns of new files; null where it has them all."""
    known = schema(store, project, endpoint) if made else None
    grown: str | None = None
    for one in made:
        columns = pl.read_parquet_schema(catalogue.tables_folder(store.folder, project) / one.rows_path)
        _, changed = layout.fit(pl.DataFrame(schema=columns), known)
        if changed is not None:
            known, grown = json.loads(changed), changed
    return grown


def files(units: Sequence[Unit]) -> dict[str, str]:
    """Digest by path of the files of units."""
    return {path: digest for one in units for path, digest in one.files.items()}


def repair(store: Store, project: str, endpoint: str) -> bool:
    """Bring the Delta table back to what the catalogue names; was there anything else in it?

    Commits that the catalogue does not know are those of a change that a crash cut short, or of another program. They are
    undone by one more commit, which is journalled when another program wrote them.
    """
    table = catalogue.table_folder(store.folder, project, endpoint)
    last = catalogue.delta_version(store, project, endpoint)
    version, foreign, present = last + 1, False, dict[str, bool]()
    while (found := delta_log.read(table, version)) is not None:
        foreign = foreign or found.own is None
        present |= dict.fromkeys(found.removed, False) | dict.fromkeys(found.added, True)
        version += 1
    if version == last + 1:
        return False
    stand = {_in_table(one): one for one in catalogue.units(store, endpoint=endpoint, project=project)}
    at_ms = microseconds(store.clock.wall()) // 1000
    unwanted = [path for path, there in present.items() if there and path not in stand]
    missing = [path for path, there in present.items() if not there and path in stand]
    actions = [delta_log.remove(path, at_ms) for path in unwanted] + [
        _add(store, stand[path], at_ms) for path in missing
    ]
    delta_log.commit(
        table, version, actions, transaction=f"repair/{version}", own={"repair": True}, at_ms=at_ms, schema=None
    )

    def work(tx: Transaction) -> None:
        catalogue.set_delta_version(tx, project, endpoint, version)
        if foreign:
            body = {"unwanted": unwanted, "missing": missing, "delta_version": version}
            journal.append(tx, store.clock, store.actor, project, "prediction table put right", endpoint, body)

    store.database.write(work, durable=True)
    return True


def active(store: Store, project: str, endpoint: str) -> set[str] | None:
    """Files of which the Delta table consists, as any reader of it sees; null where there is no table."""
    from deltalake import DeltaTable

    table = catalogue.table_folder(store.folder, project, endpoint)
    if not DeltaTable.is_deltatable(str(table)):
        return None
    return {Path(uri).relative_to(table).as_posix() for uri in DeltaTable(str(table)).file_uris()}


def sweep(store: Store, project: str, endpoint: str, *, remove: bool = True) -> dict[str, int]:
    """Files that no unit names, which a crash left: removed; size by path."""
    folder = catalogue.tables_folder(store.folder, project)
    named = catalogue.paths(store, project, endpoint)
    left = {}
    for kind in ("predictions", "frames"):
        for file in sorted((folder / f"{endpoint}__{kind}").glob("day=*/*")):
            if file.relative_to(folder).as_posix() not in named:
                left[file.relative_to(folder).as_posix()] = file.stat().st_size
                if remove:
                    file.unlink()
    return left


def remove_retired(store: Store, project: str, endpoint: str, before: Any) -> None:
    """Remove the files of units that others stand for since before a moment."""
    gone = catalogue.retired(store, endpoint, before)
    stand = files(catalogue.units(store, endpoint=endpoint, project=project))
    folder = catalogue.tables_folder(store.folder, project)
    for one in gone:
        for path in one.files:
            if path not in stand:
                (folder / path).unlink(missing_ok=True)
    if gone:
        catalogue.forget(store, [one.id for one in gone])


def _in_table(one: Unit) -> str:
    return one.rows_path.split("/", 1)[1]


def _add(store: Store, one: Unit, at_ms: int) -> delta_log.Action:
    path = catalogue.tables_folder(store.folder, one.project) / one.rows_path
    between: Mapping[str, tuple[Any, Any]] = {
        "call": (one.first_call, one.last_call),
        "at": (_moment(one.first_at), _moment(one.last_at)),
    }
    size = one.rows_size or path.stat().st_size
    return delta_log.add(_in_table(one), size, one.predictions, at_ms, {"digest": one.rows_digest}, dict(between))


def _moment(value: Any) -> str:
    return str(value.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
