"""Tables: writing a version so that it exists whole or not at all, and reading any version as it was.

Order of a write: the table's lease, the Parquet file, checks and profile, the Delta commit, then one transaction with
version, lineage and journal entry. What the database does not name does not exist: after a crash between commit and
record the next writer adopts the commit if it holds the very same content, and supersedes it otherwise.

    version = write_version(store, "flights", "clean_flights", "silver", frame, key=["flight", "time_hour"])
    scan(store, version).filter(...).collect()          # these rows for ever, whatever is written later
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import msgspec
import polars as pl

from instar.core import journal
from instar.core.durable import sync_folder
from instar.core.errors import BadInput, CheckFailed, Damaged, WrongType
from instar.core.ids import new_id
from instar.core.store import Store
from instar.data import checks as checking
from instar.data import content, delta_log, profile, types
from instar.data.checks import Check, CheckResult
from instar.data.foreign import record_foreign
from instar.data.publishing import Log, compare_log, file_digest, lease, left_behind, publish
from instar.data.versions import (
    ZONES,
    File,
    Manifest,
    TableVersion,
    at,
    files,
    folder,
    get,
    latest_recorded,
    newest,
    of_content,
    tables,
    versions,
)

__all__ = [
    "Manifest",
    "TableVersion",
    "at",
    "digests",
    "files",
    "get",
    "latest",
    "of_content",
    "read_profile",
    "restore",
    "scan",
    "tables",
    "versions",
    "write_version",
]

MODES = ("overwrite", "append", "replace_partition")
LARGE_ROWS = 20_000  # from here on the better compression is worth its time


def write_version(
    store: Store,
    project: str,
    table: str,
    zone: str,
    frame: pl.DataFrame,
    *,
    mode: str = "overwrite",
    partition: str | None = None,
    key: Sequence[str] | None = None,
    order: Sequence[str] | None = None,
    execution: str | None = None,
    transaction: str | None = None,
    inputs: Sequence[str] = (),
    cause: str = "",
    checks: Sequence[Check] = (),
    once: bool = False,
) -> TableVersion:
    """Write rows as the next version of a table.

    Args:
        zone: `"bronze"`, `"silver"`, `"gold"` or `"quarantine"`.
        frame: The rows; categories become text, times microseconds.
        mode: `"overwrite"` the table, `"append"` to it, or `"replace_partition"`.
        partition: Name of the partition that these rows are; asked for by `"replace_partition"`, allowed with `"append"`.
        key: Columns which name a row; rows are kept in their order.
        order: Columns to keep the rows in the order of, where that is not the key.
        execution: The execution that the version is born of.
        transaction: Idempotency key of the write (a step's key), noted in the Delta commit; default the execution.
        inputs: Ids of the table versions that it was made from.
        cause: Who or what wanted it.
        checks: Expectations on these rows.
        once: An append of a part that the table already holds changes nothing, as after a retried delivery.

    Returns:
        The new version, or the newest one when the table's content is already just this.

    Raises:
        CheckFailed: A check of severity `error` does not hold; no version is written.
        WrongType: A column has a type that cannot be kept, or another one than the table's.
        StoreBusy: Another writer held the table for too long.
    """
    _refuse_unknown(table, zone, mode, partition)
    place = folder(store, project, table)
    place.mkdir(parents=True, exist_ok=True)
    with lease(place, table):
        before = _latest(store, project, table)
        log = compare_log(store, place, before)
        if any(commit.own is None for commit in log.orphans):
            before = record_foreign(store, project, table, zone, place, before, log)
            log = Log(before.delta_version + 1, {file.path: file for file in files(store, before)})
        rows = types.storable(frame, table)
        old_files = files(store, before) if before else []
        if mode != "overwrite" and before is not None:
            rows = _fit(store, rows, before, old_files)
        arranged = [name for name in (key or () if order is None else order) if name in rows.columns]
        if arranged:
            rows = rows.sort(arranged, maintain_order=True, nulls_last=True)
        results = checking.run_checks(rows, checks)
        require_checks(store, project, table, results, cause)

        schema = types.schema(rows)
        part = content.of_rows(rows)
        if once and any(file.content == part and file.partition == partition for file in old_files):
            assert before is not None
            return before
        kept = [] if mode == "overwrite" else old_files
        if mode == "replace_partition":
            kept = [file for file in kept if file.partition != partition]
        digest = content.of_parts(schema, [*((file.partition, file.content) for file in kept), (partition, part)])
        if before is not None and before.content == digest:
            return before

        summary = profile.profile(rows)
        stored = left_behind(place, log, part, partition) or write_file(place, rows, part, partition)
        if partition is not None:
            stored = msgspec.structs.replace(stored, profile=store.blobs.put(profile.to_bytes(summary)))
        whole = _whole_profile(store, place, mode, before, kept, summary)
        # Partitions in the order of their names: the same rows in the same order, whichever month came first.
        target = sorted([*kept, stored], key=lambda file: file.partition or "")
        version = TableVersion(
            id=new_id("tver"),
            project=project,
            table=table,
            zone=zone,
            number=before.number + 1 if before else 1,
            delta_version=-1,
            content=digest,
            state="",
            schema=schema,
            key=tuple(key or (before.key if before else ())),
            rows=sum(file.rows for file in target),
            mode=mode,
            partition=partition,
            profile=store.blobs.put(profile.to_bytes(whole)),
            checks=tuple(results),
            execution=execution,
            cause=cause,
            foreign=False,
            recorded_at=store.clock.wall(),
            event_at=store.clock.event(),
        )
        grown = mode == "append" and partition is None and before is not None
        return publish(
            store, place, version, before if grown else None, before, target, log, rows.schema, transaction, inputs
        )


def scan(store: Store, version: TableVersion) -> pl.LazyFrame:
    """The rows of a version, lazily, from the files that its own manifest names.

    Raises:
        Damaged: A file is gone.
    """
    place = folder(store, version.project, version.table)
    paths = [place / file.path for file in files(store, version)]
    for path in paths:
        if not path.exists():
            raise Damaged(
                "a file of this version is gone",
                subject=f"table {version.ref}",
                found=path.name,
                next_step="Restore the store from a backup, or run the step again.",
            )
    # Columns are only ever added, so the widest file tells the schema; older files lack what came later.
    if len(paths) == 1:
        return pl.scan_parquet(paths[0])
    widest = {name: pl.read_parquet_schema(path) for name, path in (("last", paths[-1]), ("first", paths[0]))}
    schema = next((found for found in widest.values() if list(found) == list(version.schema)), None)
    if schema is None:
        schema = next(found for found in map(pl.read_parquet_schema, paths) if list(found) == list(version.schema))
    return pl.scan_parquet(paths, schema=schema, missing_columns="insert")


def latest(store: Store, project: str, table: str) -> TableVersion | None:
    """The newest version of a table; what another program has written meanwhile is first put on the record."""
    found = _latest(store, project, table)
    place = folder(store, project, table)
    if found is None or not delta_log.exists(place, found.delta_version + 1):
        return found
    with lease(place, table):
        found = _latest(store, project, table)
        assert found is not None
        log = compare_log(store, place, found)
        if any(commit.own is None for commit in log.orphans):
            return record_foreign(store, project, table, found.zone, place, found, log)
    return found


def digests(store: Store, project: str, names: Iterable[str]) -> dict[str, str]:
    """Content digest of the newest version of each of many tables, as `latest` would find it."""
    found = {}
    for name, (content_digest, commit) in newest(store, project, names).items():
        if delta_log.exists(folder(store, project, name), commit + 1):
            version = latest(store, project, name)
            assert version is not None
            content_digest = version.content
        found[name] = content_digest
    return found


def restore(
    store: Store,
    version: TableVersion,
    *,
    execution: str | None = None,
    transaction: str | None = None,
    cause: str = "",
) -> TableVersion:
    """Make an earlier version's rows the table's newest version again, without copying them."""
    place = folder(store, version.project, version.table)
    with lease(place, version.table):
        before = _latest(store, version.project, version.table)
        assert before is not None
        if before.content == version.content:
            return before
        log = compare_log(store, place, before)
        if any(commit.own is None for commit in log.orphans):
            before = record_foreign(store, version.project, version.table, version.zone, place, before, log)
            log = Log(before.delta_version + 1, {file.path: file for file in files(store, before)})
        again = replace(
            version,
            id=new_id("tver"),
            number=before.number + 1,
            delta_version=-1,
            state="",
            mode="restore",
            execution=execution,
            cause=cause or f"restore {version.ref}",
            foreign=False,
            recorded_at=store.clock.wall(),
            event_at=store.clock.event(),
        )
        schema = scan(store, version).collect_schema()
        target = files(store, version)
        return publish(store, place, again, None, before, target, log, schema, transaction, (version.id,))


def read_profile(store: Store, version: TableVersion) -> profile.Profile:
    """The profile of a version's rows."""
    return profile.from_bytes(store.blobs.get(version.profile))


def _fit(store: Store, rows: pl.DataFrame, before: TableVersion, old_files: list[File]) -> pl.DataFrame:
    """Added rows in the table's schema: missing columns are null, new ones come last; another type is an error."""
    known = scan(store, before).collect_schema() if set(before.schema) - set(rows.columns) else None
    columns = []
    for name, kind in before.schema.items():
        if name not in rows.columns:
            assert known is not None
            columns.append(pl.lit(None, dtype=known[name]).alias(name))
            continue
        found = types.name(rows.schema[name])
        if found != kind and rows[name].null_count() == rows.height:
            dtype = scan(store, before).collect_schema()[name]
            columns.append(pl.lit(None, dtype=dtype).alias(name))
        elif found != kind and _widens(rows[name], kind):
            columns.append(pl.col(name).cast(_WIDER[kind]))
        elif found != kind:
            raise WrongType(
                "the rows have another type than the table",
                subject=f"table {before.table}, column {name}",
                found=found,
                asked=kind,
                next_step="Cast the column before it is written, or write a table of another name.",
            )
        else:
            columns.append(pl.col(name))
    return rows.select(*columns, *(name for name in rows.columns if name not in before.schema))


_WIDER: dict[str, pl.DataType] = {
    "int16": pl.Int16(),
    "int32": pl.Int32(),
    "int64": pl.Int64(),
    "float64": pl.Float64(),
}
_EXACT_IN_FLOAT = 2**53


def _widens(column: pl.Series, kind: str) -> bool:
    """May the column become this larger type without changing a value?"""
    if kind not in _WIDER or not column.dtype.is_integer():
        return kind == "float64" and column.dtype == pl.Float32
    if kind != "float64":
        return _WIDER[kind].is_(pl.Int64) or column.dtype == pl.Int8
    return bool(column.cast(pl.Int64, strict=False).abs().max() <= _EXACT_IN_FLOAT)  # type: ignore[operator]


def _whole_profile(
    store: Store, place: Path, mode: str, before: TableVersion | None, kept: list[File], part: profile.Profile
) -> profile.Profile:
    if not kept:
        return part
    if mode == "append" and before is not None:
        return profile.merge(read_profile(store, before), part)
    parts = [
        profile.from_bytes(store.blobs.get(file.profile))
        if file.profile
        else profile.profile(pl.read_parquet(place / file.path))
        for file in kept
    ]
    return profile.merge_all([*parts, part])


def write_file(place: Path, rows: pl.DataFrame, part: str, partition: str | None) -> File:
    """Write rows as a file of the table in `place`, on the disk when this returns; nothing names it yet."""
    path = new_id("part") + ".parquet"
    target = place / path
    rows.write_parquet(target, compression="zstd" if rows.height >= LARGE_ROWS else "snappy")
    with target.open("rb") as file:
        os.fsync(file.fileno())
    sync_folder(place)
    return File(path, target.stat().st_size, file_digest(target), rows.height, part, partition)


def _latest(store: Store, project: str, table: str) -> TableVersion | None:
    with store.database.read() as tx:
        return latest_recorded(tx, project, table)


def require_checks(store: Store, project: str, table: str, results: list[CheckResult], cause: str) -> None:
    """Raises CheckFailed, and journals it, when a check of severity `error` does not hold."""
    try:
        checking.require(results, table)
    except CheckFailed:
        body = {"cause": cause, "checks": [asdict(result) for result in results]}
        store.database.write(
            lambda tx: journal.append(tx, store.clock, store.actor, project, "checks failed", f"table {table}", body),
            durable=True,
        )
        raise


def _refuse_unknown(table: str, zone: str, mode: str, partition: str | None) -> None:
    for word, value, known in (("zone", zone, ZONES), ("mode", mode, MODES)):
        if value not in known:
            raise BadInput(f"no such {word}", subject=f"table {table}", found=value, asked=", ".join(known))
    if (mode == "replace_partition") != (partition is not None) and mode != "append":
        raise BadInput("replacing a partition and naming one go together", subject=f"table {table}", found=partition)
