"""The catalogue of sealed calls: which segments are sealed and in which files they lie, asked before any file is opened.

A *segment* is what one gateway wrote for some minutes; its line keeps the root over its frames for ever. A *unit* is a pair of
files with the same segments: the rows that people search, part of the Delta table of the endpoint, and the frames that prove
them. Sealing makes one unit a segment, merging makes few large units of many small ones. A unit that was replaced is *retired*:
its files stay for a grace, for readers that looked at the catalogue before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from instar.core.database import Instant, Json, Transaction, metadata
from instar.core.store import Store

SEALED, DROPPED = "sealed", "dropped"
IN_ONE_QUERY = 500  # bound values; SQLite's oldest supported limit is 999

segment = sa.Table(
    "segment",
    metadata,
    sa.Column("id", sa.String(160), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False, index=True),
    sa.Column("endpoint", sa.String(100), nullable=False, index=True),
    sa.Column("boot", sa.BigInteger, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("first_call", sa.String(40), nullable=False),
    sa.Column("last_call", sa.String(40), nullable=False),
    sa.Column("first_at", Instant, nullable=False),
    sa.Column("last_at", Instant, nullable=False),
    sa.Column("calls", sa.BigInteger, nullable=False),
    sa.Column("predictions", sa.BigInteger, nullable=False),
    sa.Column("frames", sa.BigInteger, nullable=False),
    sa.Column("root", sa.String(80), nullable=False),
    sa.Column("chain", sa.String(80), nullable=False),
    sa.Column("sealed_at", Instant, nullable=False),
    sa.Column("gaps", Json),
)
call_unit = sa.Table(
    "call_unit",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("endpoint", sa.String(100), nullable=False),
    sa.Column("day", sa.String(10), nullable=False),
    sa.Column("rows_path", sa.String(400), nullable=False),
    sa.Column("rows_digest", sa.String(80), nullable=False),
    sa.Column("rows_size", sa.BigInteger, nullable=False),
    sa.Column("frames_path", sa.String(400), nullable=False),
    sa.Column("frames_digest", sa.String(80), nullable=False),
    sa.Column("frames_size", sa.BigInteger, nullable=False),
    sa.Column("predictions", sa.BigInteger, nullable=False),
    sa.Column("first_call", sa.String(40), nullable=False),
    sa.Column("last_call", sa.String(40), nullable=False),
    sa.Column("first_at", Instant, nullable=False),
    sa.Column("last_at", Instant, nullable=False),
    sa.Column("segments", Json, nullable=False),
    sa.Column("listed", Json, nullable=False),
    sa.Column("lost", sa.String(40), nullable=False),
    sa.Column("added_at", Instant, nullable=False),
    sa.Column("retired_at", Instant),
)
sa.Index("ix_call_unit_call", call_unit.c.first_call, call_unit.c.last_call)
sa.Index("ix_call_unit_at", call_unit.c.endpoint, call_unit.c.first_at)
# How far the log of each Delta table has come by our own commits, and its schema as Delta's JSON.
call_table = sa.Table(
    "call_table",
    metadata,
    sa.Column("project", sa.String(200), primary_key=True),
    sa.Column("endpoint", sa.String(100), primary_key=True),
    sa.Column("delta_version", sa.BigInteger, nullable=False),
    sa.Column("schema", Json),
)


@dataclass(frozen=True)
class Sealed:
    """A sealed segment, as the catalogue has it.

    Attributes:
        first_call, last_call: Smallest and largest call id in it.
        first_at, last_at: Event times between which its calls lie.
        root: Merkle root over its frames; `chain` adds the chain of the segment before it in that boot.
        gaps: Sequences `[from, to)` of frames that damage took before it could be sealed.
        state: `sealed`, or `dropped` when its time to be kept was over.
    """

    id: str
    project: str
    endpoint: str
    boot: int
    number: int
    first_call: str
    last_call: str
    first_at: datetime
    last_at: datetime
    calls: int
    predictions: int
    frames: int
    root: str
    chain: str
    sealed_at: datetime
    gaps: tuple[tuple[int, int], ...] = ()
    state: str = SEALED


@dataclass(frozen=True)
class Unit:
    """A pair of files: rows and the frames that prove them.

    Attributes:
        day: Day (UTC) on which its first segment began.
        rows_path, frames_path: In the folder of the store's tables; both the same where a store before format 3 sealed it.
        first_call, last_call, first_at, last_at: What its rows lie between.
        segments: Ids of its segments.
        listed: Distinct values of the columns `layout.LISTED`, where they are few: a unit without the value is not opened.
        lost: What its rows do not hold any more: `"person"` where one was erased, `"inputs"` where their time was over, or both.
        retired_at: Since when other units stand for it; its files go after a grace.
    """

    id: str
    project: str
    endpoint: str
    day: str
    rows_path: str
    rows_digest: str
    rows_size: int
    frames_path: str
    frames_digest: str
    frames_size: int
    predictions: int
    first_call: str
    last_call: str
    first_at: datetime
    last_at: datetime
    segments: tuple[str, ...]
    listed: Mapping[str, list[Any]] = field(default_factory=dict)
    lost: str = ""
    added_at: datetime = datetime.min
    retired_at: datetime | None = None

    @property
    def files(self) -> dict[str, str]:
        """Digest by path."""
        return {self.rows_path: self.rows_digest, self.frames_path: self.frames_digest}


def tables_folder(store_folder: Path, project: str) -> Path:
    """The folder in which the paths of units lie."""
    return store_folder / "tables" / project


def table_folder(store_folder: Path, project: str, endpoint: str) -> Path:
    """The Delta table of an endpoint's sealed calls."""
    return tables_folder(store_folder, project) / f"{endpoint}__predictions"


def segments(store: Store, endpoint: str | None = None) -> dict[str, Sealed]:
    """Segments that were ever sealed, by id; of one endpoint if asked."""
    query = sa.select(segment).order_by(segment.c.id)
    if endpoint is not None:
        query = query.where(segment.c.endpoint == endpoint)
    with store.database.read() as tx:
        return {row.id: _sealed(row) for row in tx.execute(query)}


def sealed(store: Store, names: Iterable[str]) -> dict[str, Sealed]:
    """Those of some segments that were ever sealed, by id; however many others there are."""
    asked: list[str] = sorted(names)
    found: dict[str, Sealed] = {}
    with store.database.read() as tx:
        for start in range(0, len(asked), IN_ONE_QUERY):
            some = sa.select(segment).where(segment.c.id.in_(asked[start : start + IN_ONE_QUERY]))
            found |= {row.id: _sealed(row) for row in tx.execute(some)}
    return found


def units(
    store: Store,
    *,
    endpoint: str | None = None,
    project: str | None = None,
    call: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Unit]:
    """Units that stand, in order of their first call: all, or those that can hold a call, or event times in [since, until)."""
    with store.database.read() as tx:
        return units_in(tx, endpoint=endpoint, project=project, call=call, since=since, until=until)


def units_in(
    tx: Transaction,
    *,
    endpoint: str | None = None,
    project: str | None = None,
    call: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Unit]:
    """`units`, within one snapshot of the database."""
    query = sa.select(call_unit).where(call_unit.c.retired_at.is_(None))
    if endpoint is not None:
        query = query.where(call_unit.c.endpoint == endpoint)
    if project is not None:
        query = query.where(call_unit.c.project == project)
    if since is not None:
        query = query.where(call_unit.c.last_at >= since)
    if until is not None:
        query = query.where(call_unit.c.first_at < until)
    if call is not None:
        query = query.where(call_unit.c.first_call <= call, call_unit.c.last_call >= call)
    return [_unit(row) for row in tx.execute(query.order_by(call_unit.c.first_call, call_unit.c.id))]


def retired(store: Store, endpoint: str, before: datetime) -> list[Unit]:
    """Units that others stand for since before a moment."""
    query = sa.select(call_unit).where(call_unit.c.endpoint == endpoint, call_unit.c.retired_at < before)
    with store.database.read() as tx:
        return [_unit(row) for row in tx.execute(query)]


def paths(store: Store, project: str, endpoint: str) -> set[str]:
    """Files that units of an endpoint name, retired ones among them."""
    query = sa.select(call_unit.c.rows_path, call_unit.c.frames_path)
    with store.database.read() as tx:
        found = tx.execute(query.where(call_unit.c.project == project, call_unit.c.endpoint == endpoint))
        return {path for row in found for path in row}


def insert_segment(tx: Transaction, one: Sealed) -> None:
    """Name a segment as sealed."""
    tx.execute(segment.insert().values(**vars(one)))


def insert_unit(tx: Transaction, one: Unit) -> None:
    """Name a unit."""
    tx.execute(call_unit.insert().values(**{**vars(one), "segments": list(one.segments), "listed": dict(one.listed)}))


def retire(tx: Transaction, names: Iterable[str], at: datetime) -> None:
    """Say that other units stand for these."""
    for name in names:
        tx.execute(sa.update(call_unit).where(call_unit.c.id == name).values(retired_at=at))


def forget(store: Store, names: Iterable[str]) -> None:
    """Take the lines of retired units away, after their files."""

    def work(tx: Transaction) -> None:
        for name in names:
            tx.execute(sa.delete(call_unit).where(call_unit.c.id == name, call_unit.c.retired_at.is_not(None)))

    store.database.write(work)


def tables(store: Store) -> list[tuple[str, str]]:
    """Project and endpoint of each Delta table of sealed calls."""
    query = sa.select(call_table.c.project, call_table.c.endpoint).order_by(call_table.c.project, call_table.c.endpoint)
    with store.database.read() as tx:
        return [(row.project, row.endpoint) for row in tx.execute(query)]


def delta_version(store: Store, project: str, endpoint: str) -> int:
    """Number of our last commit to the endpoint's Delta table; -1 before the first."""
    query = sa.select(call_table.c.delta_version).where(
        call_table.c.project == project, call_table.c.endpoint == endpoint
    )
    with store.database.read() as tx:
        found = tx.execute(query).scalar_one_or_none()
    return -1 if found is None else found


def schema(store: Store, project: str, endpoint: str) -> dict[str, Any] | None:
    """Schema of the endpoint's Delta table; null where none was kept."""
    query = sa.select(call_table.c.schema).where(call_table.c.project == project, call_table.c.endpoint == endpoint)
    with store.database.read() as tx:
        found: dict[str, Any] | None = tx.execute(query).scalar_one_or_none()
    return found


def set_delta_version(
    tx: Transaction, project: str, endpoint: str, version: int, schema: dict[str, Any] | None = None
) -> None:
    """Keep the number of our last commit, and the schema where it changed it."""
    place = (call_table.c.project == project, call_table.c.endpoint == endpoint)
    values = {"delta_version": version, **({"schema": schema} if schema is not None else {})}
    if not tx.execute(sa.update(call_table).where(*place).values(**values)).rowcount:
        tx.execute(call_table.insert().values(project=project, endpoint=endpoint, **values))


def last_chain(tx: Transaction, endpoint: str, boot: int, before: int) -> str | None:
    """The chain of the segment before a number in that boot."""
    query = sa.select(segment.c.chain).where(
        segment.c.endpoint == endpoint, segment.c.boot == boot, segment.c.number < before
    )
    return tx.execute(query.order_by(segment.c.number.desc()).limit(1)).scalar_one_or_none()


def _sealed(row: sa.Row[Any]) -> Sealed:
    facts = dict(row._mapping)
    return Sealed(**{**facts, "gaps": tuple((a, b) for a, b in facts["gaps"] or ())})


def _unit(row: sa.Row[Any]) -> Unit:
    facts = dict(row._mapping)
    return Unit(**{**facts, "segments": tuple(facts["segments"])})
