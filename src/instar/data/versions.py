"""The record of table versions: which states of which tables exist, who made them, and what files they consist of.

The database names the versions, and what it does not name does not exist. Each version keeps its own manifest as a blob,
so a pinned read needs neither the Delta log nor a later version.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from instar.core.database import Instant, Json, Transaction, metadata
from instar.core.errors import BadInput, Damaged, NotFound
from instar.core.store import Store

if TYPE_CHECKING:
    from instar.data.checks import CheckResult

ZONES = ("bronze", "silver", "gold", "quarantine")
MANIFEST_FORMAT = 1

table_version = sa.Table(
    "table_version",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("table", sa.String(200), nullable=False),
    sa.Column("zone", sa.String(20), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("delta_version", sa.Integer, nullable=False),
    sa.Column("content", sa.String(80), nullable=False),
    sa.Column("state", sa.String(80), nullable=False),
    sa.Column("schema", Json, nullable=False),
    sa.Column("key", Json, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("mode", sa.String(20), nullable=False),
    sa.Column("partition", sa.String(200)),
    sa.Column("profile", sa.String(80), nullable=False),
    sa.Column("checks", Json, nullable=False),
    sa.Column("execution", sa.String(60)),
    sa.Column("cause", sa.String(400), nullable=False),
    sa.Column("foreign", sa.Boolean, nullable=False),
    sa.Column("recorded_at", Instant, nullable=False),
    sa.Column("event_at", Instant, nullable=False),
    sa.UniqueConstraint("project", "table", "number"),
)


@dataclass(frozen=True)
class TableVersion:
    """One immutable state of a table.

    Attributes:
        id: `tver_…`.
        project, table: Whose it is.
        zone: `"bronze"`, `"silver"`, `"gold"` or `"quarantine"`.
        number: 1, 2, 3, … within the table.
        delta_version: Commit of the Delta table.
        content: Digest of schema and rows; makes step keys.
        state: Digest of the manifest blob: these very files.
        schema: Names and types of the columns, in order.
        key: Columns which name a row; empty when none do.
        rows: Rows in the whole table.
        mode: `"overwrite"`, `"append"`, `"replace_partition"`, `"restore"` or `"foreign"`.
        partition: The partition that was written, if any.
        profile: Blob of the profile of the whole table.
        checks: What the checks found on the rows that were written.
        execution: The execution that it is born of, if any.
        cause: Who or what wanted it.
        foreign: Another program wrote it.
        recorded_at, event_at: Wall time and event time of the record.
    """

    id: str
    project: str
    table: str
    zone: str
    number: int
    delta_version: int
    content: str
    state: str
    schema: dict[str, str]
    key: tuple[str, ...]
    rows: int
    mode: str
    partition: str | None
    profile: str
    checks: tuple[CheckResult, ...]
    execution: str | None
    cause: str
    foreign: bool
    recorded_at: datetime
    event_at: datetime

    @property
    def manifest(self) -> str:
        """Blob of the manifest; its digest is the state."""
        return self.state

    @property
    def ref(self) -> str:
        """`table@number`, as people write it."""
        return f"{self.table}@{self.number}"


class File(msgspec.Struct, frozen=True, omit_defaults=True):
    """One Parquet file of a table, which holds one part of its rows.

    Attributes:
        path: Below the table's folder.
        size: Bytes.
        digest: BLAKE3 of the file.
        rows: Rows in it.
        content: Content digest of those rows.
        partition: The partition whose rows these are, if any.
        profile: Blob of the profile of this part; kept for partitions, which may be replaced.
    """

    path: str
    size: int
    digest: str
    rows: int
    content: str
    partition: str | None = None
    profile: str | None = None


class Manifest(msgspec.Struct, frozen=True):
    """What a version consists of.

    Attributes:
        files: In the order of their rows; those of `base` come before.
        base: Digest of an earlier manifest which these files are added to, so that a table of a thousand small appends
            does not list a thousand files a thousand times. A base has no base itself.
    """

    table: str
    zone: str
    schema: dict[str, str]
    content: str
    files: list[File]
    base: str | None = None
    format: int = MANIFEST_FORMAT


def latest_recorded(tx: Transaction, project: str, table: str) -> TableVersion | None:
    """The newest version of a table that the database names."""
    chosen = _of(project, table).order_by(table_version.c.number.desc()).limit(1)
    row = tx.execute(chosen).one_or_none()
    return _version(row) if row else None


def newest(store: Store, project: str, names: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Content digest and Delta commit of the newest version of each of many tables; those without one are left out."""
    last = (
        sa.select(table_version.c.table, sa.func.max(table_version.c.number).label("number"))
        .where(table_version.c.project == project)
        .group_by(table_version.c.table)
        .subquery()
    )
    query = (
        sa.select(table_version.c.table, table_version.c.content, table_version.c.delta_version)
        .join(last, (table_version.c.table == last.c.table) & (table_version.c.number == last.c.number))
        .where(table_version.c.project == project)
    )
    wanted = set(names)
    with store.database.read() as tx:
        return {row.table: (row.content, row.delta_version) for row in tx.execute(query) if row.table in wanted}


def of_content(store: Store, project: str, table: str, digest: str) -> TableVersion | None:
    """The newest version of a table that has this content."""
    query = _of(project, table).where(table_version.c.content == digest)
    with store.database.read() as tx:
        row = tx.execute(query.order_by(table_version.c.number.desc()).limit(1)).one_or_none()
    return _version(row) if row else None


def versions(store: Store, project: str, table: str) -> list[TableVersion]:
    """All versions of a table, oldest first."""
    with store.database.read() as tx:
        return [_version(row) for row in tx.execute(_of(project, table).order_by(table_version.c.number))]


def tables(store: Store, project: str) -> list[TableVersion]:
    """The latest version of each table of a project, by name."""
    newest = (
        sa.select(table_version.c.table, sa.func.max(table_version.c.number).label("number"))
        .where(table_version.c.project == project)
        .group_by(table_version.c.table)
        .subquery()
    )
    query = (
        sa.select(table_version)
        .join(newest, (table_version.c.table == newest.c.table) & (table_version.c.number == newest.c.number))
        .where(table_version.c.project == project)
        .order_by(table_version.c.table)
    )
    with store.database.read() as tx:
        return [_version(row) for row in tx.execute(query)]


def get(store: Store, project: str, ref: str) -> TableVersion:
    """The version named by `tver_…`, `table@3`, or `table` for its newest.

    Raises:
        NotFound: There is none; the error names what there is.
    """
    with store.database.read() as tx:
        if ref.startswith("tver_"):
            row = tx.execute(sa.select(table_version).where(table_version.c.id == ref)).one_or_none()
            if row is not None and row.project == project:
                return _version(row)
            raise NotFound(
                "no table version has this id", subject=f"table version {ref}", next_step="See instar data ls."
            )
        table, _, number = ref.partition("@")
        if number:
            known = tx.execute(_of(project, table).where(table_version.c.number == _number(ref, number))).one_or_none()
            if known is not None:
                return _version(known)
        newest = latest_recorded(tx, project, table)
        if newest is not None and not number:
            return newest
        names = sa.select(table_version.c.table).where(table_version.c.project == project).distinct()
        there = list(tx.execute(names.order_by(table_version.c.table)).scalars())
    found = f"{newest.number} versions" if newest else f"tables {', '.join(there)}" if there else "no table at all"
    raise NotFound(
        "there is no such table version", subject=f"table {ref}", found=found, next_step="See instar data ls."
    )


def of_ids(store: Store, ids: Sequence[str]) -> list[TableVersion]:
    """The versions of those ids, of any project; unknown ones are left out."""
    with store.database.read() as tx:
        rows = tx.execute(sa.select(table_version).where(table_version.c.id.in_(ids)).order_by(table_version.c.id))
        return [_version(row) for row in rows]


def at(store: Store, project: str, table: str, moment: datetime) -> TableVersion | None:
    """The version that was newest at an event time; None when the table did not exist yet."""
    query = _of(project, table).where(table_version.c.event_at <= moment)
    with store.database.read() as tx:
        row = tx.execute(query.order_by(table_version.c.number.desc()).limit(1)).one_or_none()
    return _version(row) if row else None


def insert(tx: Transaction, version: TableVersion) -> None:
    """Name a version."""
    values: dict[str, Any] = {item.name: getattr(version, item.name) for item in fields(version)}
    # JSON objects are kept with sorted keys, and the order of columns must not be lost.
    values["schema"] = list(version.schema.items())
    values["key"] = list(version.key)
    values["checks"] = [{item.name: getattr(result, item.name) for item in fields(result)} for result in version.checks]
    tx.execute(table_version.insert().values(**values))


def files(store: Store, version: TableVersion) -> list[File]:
    """The files of a version, in the order of their rows.

    Raises:
        Damaged: The manifest cannot be read.
    """
    manifest = read_manifest(store, version.state)
    before = read_manifest(store, manifest.base).files if manifest.base else []
    return [*before, *manifest.files]


def read_manifest(store: Store, digest: str) -> Manifest:
    """A manifest by its digest.

    Raises:
        Damaged: The blob is not a manifest of this format.
    """
    try:
        manifest = msgspec.json.decode(store.blobs.get(digest), type=Manifest)
    except msgspec.MsgspecError as error:
        raise Damaged("it is not a manifest", subject=f"blob {digest}", found=str(error)) from error
    if manifest.format != MANIFEST_FORMAT:
        raise Damaged(
            "the manifest has another format", subject=f"blob {digest}", found=manifest.format, asked=MANIFEST_FORMAT
        )
    return manifest


def folder(store: Store, project: str, table: str) -> Path:
    """Where a table's files lie.

    Raises:
        BadInput: A name would lead elsewhere.
    """
    for kind, word in (("project", project), ("table", table)):
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}", word):
            raise BadInput(
                f"that cannot name a {kind}",
                subject=f"{kind} {word!r}",
                asked="letters, digits, _, - and dots, not beginning with a dot",
            )
    return store.folder / "tables" / project / table


def _of(project: str, table: str) -> sa.Select[Any]:
    return sa.select(table_version).where(table_version.c.project == project, table_version.c.table == table)


def _number(ref: str, text: str) -> int:
    if not text.isdecimal():
        raise NotFound("a version is a number", subject=f"table {ref}", found=repr(text), asked="as in flights@3")
    return int(text)


def _version(row: sa.Row[Any]) -> TableVersion:
    from instar.data.checks import from_records  # brings in Polars, which whoever reads no table does without

    values = dict(row._mapping)
    values["schema"] = dict(values["schema"])
    values["key"] = tuple(values["key"])
    values["checks"] = tuple(from_records(values["checks"]))
    return TableVersion(**values)
