"""Parts: a table written as a set of partitions, for steps that run once for each and again only for what changed.

A part is what a step's function made of one partition, kept as a blob out of sight of readers. Joining names the parts
that a version consists of: those that the table holds already stay as they lie, the others are written, and all of it is
one version with one commit.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import polars as pl

from instar.core.errors import EmptySource, WrongType
from instar.core.ids import digest_of, new_id
from instar.core.store import Store
from instar.data import checks as checking
from instar.data import content, profile, types
from instar.data.checks import Check
from instar.data.foreign import record_foreign
from instar.data.publishing import Log, compare_log, lease, left_behind, publish
from instar.data.tables import latest, require_checks, scan, write_file
from instar.data.versions import File, TableVersion, files, folder, latest_recorded


def contents(store: Store, version: TableVersion) -> dict[str, str]:
    """Content digest of each partition of a version; `""` names the rows that landed without one."""
    found: dict[str, list[str]] = {}
    for file in files(store, version):
        found.setdefault(file.partition or "", []).append(file.content)
    return {name: parts[0] if len(parts) == 1 else digest_of(parts) for name, parts in found.items()}


def scan_part(store: Store, version: TableVersion, partition: str) -> pl.LazyFrame:
    """The rows of one partition, with all columns of the version; none when it has no such partition."""
    schema = scan(store, version).collect_schema()
    place = folder(store, version.project, version.table)
    paths = [place / file.path for file in files(store, version) if (file.partition or "") == partition]
    if not paths:
        return pl.LazyFrame(schema=schema)
    return pl.scan_parquet(paths, schema=schema, missing_columns="insert")


def keep(store: Store, rows: pl.DataFrame, order: Sequence[str], table: str) -> tuple[str, str]:
    """Keep what a step made of a partition; returns the blob, and the content digest of its clean rows."""
    data = io.BytesIO()
    rows.write_parquet(data, compression="zstd")
    clean, _ = checking.split_quarantine(rows)
    return store.blobs.put(data.getvalue()), content.of_rows(_arranged(types.storable(clean, table), order))


def read(store: Store, blob: str) -> pl.DataFrame:
    """What a step made of a partition."""
    return pl.read_parquet(store.blobs.path(blob))


def held(store: Store, project: str, table: str) -> dict[str, File]:
    """The file of each partition of the newest version; a partition of several files is left out."""
    version = latest(store, project, table)
    found: dict[str, list[File]] = {}
    for file in files(store, version) if version else ():
        found.setdefault(file.partition or "", []).append(file)
    return {name: several[0] for name, several in found.items() if len(several) == 1}


def write(
    store: Store,
    project: str,
    table: str,
    zone: str,
    parts: Mapping[str, pl.DataFrame | File],
    *,
    key: Sequence[str] = (),
    order: Sequence[str] = (),
    checks: Sequence[Check] = (),
    execution: str,
    transaction: str,
    inputs: Sequence[str] = (),
    cause: str = "",
) -> TableVersion:
    """Make these partitions, and no others, the table's next version.

    Args:
        parts: By name: new rows, or a file that the newest version holds and that stays.
        key, order, checks, execution, transaction, inputs, cause: As of `tables.write_version`; the checks are asked of
            all rows, those that stay among them.

    Returns:
        The new version, or the newest one when its content is already just this.

    Raises:
        EmptySource: There is no part.
        CheckFailed: A check of severity `error` does not hold; no version is written.
        WrongType: A column has one type in one part and another in the next.
    """
    if not parts:
        raise EmptySource("its inputs have no partition", subject=f"table {table}", asked="at least one")
    place = folder(store, project, table)
    place.mkdir(parents=True, exist_ok=True)
    with lease(place, table):
        with store.database.read() as tx:
            before = latest_recorded(tx, project, table)
        log = compare_log(store, place, before)
        if any(commit.own is None for commit in log.orphans):
            before = record_foreign(store, project, table, zone, place, before, log)
            log = Log(before.delta_version + 1, {file.path: file for file in files(store, before)})
        rows, kept, schema = _one_schema(place, table, parts, order)
        known = {(file.partition, file.content): file for file in (files(store, before) if before else ())}
        digests = {name: content.of_rows(frame) for name, frame in rows.items()}
        whole = pl.concat(
            [*(_read_lazily(place, file) for file in kept.values()), *(f.lazy() for f in rows.values())], how="diagonal"
        )
        results = checking.run_checks(whole, checks)
        require_checks(store, project, table, results, cause)
        of_parts = [*((file.partition, file.content) for file in kept.values())]
        of_parts += [(name or None, digest) for name, digest in digests.items()]
        digest = content.of_parts(types.schema(pl.DataFrame(schema=schema)), of_parts)
        if before is not None and before.content == digest:
            return before
        target = list(kept.values())
        for name, frame in rows.items():
            part, partition = digests[name], name or None
            file = known.get((partition, part)) or left_behind(place, log, part, partition)
            file = file or write_file(place, frame, part, partition)
            target.append(msgspec.structs.replace(file, profile=_put_profile(store, file, frame)))
        target.sort(key=lambda file: file.partition or "")
        profiles = [profile.from_bytes(store.blobs.get(_profile_of(store, place, file))) for file in target]
        version = TableVersion(
            id=new_id("tver"),
            project=project,
            table=table,
            zone=zone,
            number=before.number + 1 if before else 1,
            delta_version=-1,
            content=digest,
            state="",
            schema=types.schema(pl.DataFrame(schema=schema)),
            key=tuple(key),
            rows=sum(file.rows for file in target),
            mode="partitions",
            partition=None,
            profile=store.blobs.put(profile.to_bytes(profile.merge_all(profiles))),
            checks=tuple(results),
            execution=execution,
            cause=cause,
            foreign=False,
            recorded_at=store.clock.wall(),
            event_at=store.clock.event(),
        )
        return publish(store, place, version, None, before, target, log, schema, transaction, inputs)


def _one_schema(
    place: Path, table: str, parts: Mapping[str, pl.DataFrame | File], order: Sequence[str]
) -> tuple[dict[str, pl.DataFrame], dict[str, File], pl.Schema]:
    """New rows in the schema of all parts; at least one of the files has every column, which is how they are read."""
    rows = {name: types.storable(part, table) for name, part in parts.items() if isinstance(part, pl.DataFrame)}
    kept = {name: part for name, part in parts.items() if isinstance(part, File)}
    of_kept = {name: pl.Schema(pl.read_parquet_schema(place / file.path)) for name, file in kept.items()}
    schema: dict[str, pl.DataType] = {}
    for name in parts:
        for column, dtype in (rows[name].schema if name in rows else of_kept[name]).items():
            known = schema.get(column, pl.Null())
            if known == pl.Null():
                schema[column] = dtype
            elif dtype not in (known, pl.Null):
                raise WrongType(
                    "two partitions have different types",
                    subject=f"table {table}, column {column}",
                    found=f"{dtype} in {name or '(none)'}",
                    asked=str(known),
                    next_step="Cast the column in the step's function.",
                )
    # A kept file whose column is of no type, or which alone would have to tell all columns and does not, is written anew.
    for name, found in of_kept.items():
        if any(dtype == pl.Null and schema[column] != pl.Null for column, dtype in found.items()):
            rows[name] = pl.read_parquet(place / kept.pop(name).path)
    if not rows and not any(list(found) == list(schema) for found in of_kept.values()):
        name = next(iter(kept))
        rows[name] = pl.read_parquet(place / kept.pop(name).path)
    fitted = {
        name: _arranged(
            frame.select(
                pl.col(column).cast(dtype) if column in frame.columns else pl.lit(None, dtype=dtype).alias(column)
                for column, dtype in schema.items()
            ),
            order,
        )
        for name, frame in rows.items()
    }
    return fitted, kept, pl.Schema(schema)


def _arranged(rows: pl.DataFrame, order: Sequence[str]) -> pl.DataFrame:
    names = [name for name in order if name in rows.columns]
    return rows.sort(names, maintain_order=True, nulls_last=True) if names else rows


def _read_lazily(place: Path, file: File) -> pl.LazyFrame:
    return pl.scan_parquet(place / file.path)


def _put_profile(store: Store, file: File, rows: pl.DataFrame) -> str:
    return file.profile or store.blobs.put(profile.to_bytes(profile.profile(rows)))


def _profile_of(store: Store, place: Path, file: File) -> str:
    return file.profile or store.blobs.put(profile.to_bytes(profile.profile(pl.read_parquet(place / file.path))))
