"""The log of a Delta table in a local folder: commits are put there, all or nothing, when a table version is written.

A commit is one JSON file, `_delta_log/<twenty digits>.json`, which either exists whole or not at all; whoever links the
next number first has committed. Written by hand because a commit through delta-rs reads the growing log back first
(measured: 15 to 40 ms an append at 500 files; this: 0.5 ms). Checkpoints are delta-rs's, every `CHECKPOINT_EVERY` commits,
and any reader of Delta tables reads the result.

Source: Delta transaction log protocol, https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from instar.core.durable import sync_folder
from instar.core.errors import Conflict, Damaged

CHECKPOINT_EVERY = 100
ENGINE = "instar"
Action = dict[str, Any]


@dataclass(frozen=True)
class Commit:
    """One commit as it stands in the log.

    Attributes:
        version: Its number.
        added: `add` actions by the file's path.
        removed: Paths of the files that it took away.
        own: What Instar noted in it (content digest, transaction); None when another program wrote it.
        schema_changed: Does it change the table's schema?
    """

    version: int
    added: dict[str, Action] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()
    own: dict[str, Any] | None = None
    schema_changed: bool = False


def exists(table: Path, version: int) -> bool:
    """Is there a commit of this number? Costs one look at the file system."""
    return _file(table, version).exists()


def read(table: Path, version: int) -> Commit | None:
    """The commit of this number; None when there is none.

    Raises:
        Damaged: It cannot be read.
    """
    try:
        lines = _file(table, version).read_text().splitlines()
    except FileNotFoundError:
        return None
    added: dict[str, Action] = {}
    removed, own, schema_changed = set(), None, False
    try:
        for action in map(json.loads, filter(None, lines)):
            if "add" in action:
                added[action["add"]["path"]] = action["add"]
            elif "remove" in action:
                removed.add(action["remove"]["path"])
            elif "metaData" in action:
                schema_changed = True
            elif "commitInfo" in action:
                own = action["commitInfo"].get(ENGINE)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(
            "a commit cannot be read",
            subject=f"Delta table {table.name}, commit {version}",
            found=str(error),
            next_step="Restore the table's _delta_log from a backup.",
        ) from error
    return Commit(version, added, frozenset(removed), own, schema_changed)


def add(
    path: str,
    size: int,
    rows: int,
    modified_ms: int,
    tags: dict[str, str],
    between: dict[str, tuple[Any, Any]] | None = None,
) -> Action:
    """The action that makes a file part of the table.

    Args:
        between: Lowest and highest value by column, as JSON values, by which any reader of the table skips files.
    """
    stats: dict[str, Any] = {"numRecords": rows}
    if between:
        stats |= {"minValues": {name: low for name, (low, _) in between.items()}}
        stats |= {"maxValues": {name: high for name, (_, high) in between.items()}}
    return {
        "add": {
            "path": path,
            "partitionValues": {},
            "size": size,
            "modificationTime": modified_ms,
            "dataChange": True,
            "stats": json.dumps(stats),
            "tags": tags,
        }
    }


def remove(path: str, at_ms: int) -> Action:
    """The action that takes a file out of the table; the file itself stays for pinned readers."""
    return {"remove": {"path": path, "deletionTimestamp": at_ms, "dataChange": True}}


def commit(
    table: Path,
    version: int,
    actions: list[Action],
    *,
    transaction: str,
    own: dict[str, Any],
    at_ms: int,
    schema: pl.Schema | str | None,
) -> None:
    """Put a commit, durably and all or nothing.

    Args:
        table: Folder of the table.
        version: Number of the commit: one more than the last.
        actions: `add` and `remove` actions.
        transaction: Application transaction id: the execution's key.
        own: Facts that let a later writer recognise the commit after a crash.
        at_ms: Unix milliseconds.
        schema: The table's schema, when it is new or has changed; as columns, or as Delta's own JSON text.

    Raises:
        Conflict: Another program has committed this number.
    """
    information = {
        "timestamp": at_ms,
        "operation": "WRITE" if version else "CREATE TABLE AS SELECT",
        "operationParameters": {},
        "engineInfo": ENGINE,
        ENGINE: own,
    }
    lines: list[Action] = [{"commitInfo": information}]
    if schema is not None:
        lines += _describe(table, version, schema, at_ms)
    lines.append({"txn": {"appId": transaction, "version": version, "lastUpdated": at_ms}})
    data = "\n".join(json.dumps(line, separators=(",", ":")) for line in [*lines, *actions]) + "\n"

    target = _file(table, version)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        with aside.open("w") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, target)  # fails when the number is taken, which a rename would not
    except FileExistsError:
        raise Conflict(
            "another program committed to this table first",
            subject=f"Delta table {table.name}",
            found=f"commit {version}",
            next_step="Try again: the other program's version will be taken into account.",
        ) from None
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(target.parent)


def checkpoint(table: Path) -> None:
    """Summarise the log, so that other readers need not read it from its beginning."""
    from deltalake import DeltaTable

    DeltaTable(str(table)).create_checkpoint()


def _describe(table: Path, version: int, schema: pl.Schema | str, at_ms: int) -> list[Action]:
    text = schema if isinstance(schema, str) else schema_string(tuple(schema.items()))
    local_times = "timestamp_ntz" in text
    # Timestamps without a zone are a feature that readers must know; without them the oldest protocol will do.
    protocol: Action = {"minReaderVersion": 1, "minWriterVersion": 2}
    if local_times:
        protocol = {"minReaderVersion": 3, "minWriterVersion": 7}
        protocol |= {"readerFeatures": ["timestampNtz"], "writerFeatures": ["timestampNtz"]}
    metadata = {
        # One table keeps one id through changes of its schema.
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, "instar:" + "/".join(table.parts[-2:]))),
        "format": {"provider": "parquet", "options": {}},
        "schemaString": text,
        "partitionColumns": [],
        "configuration": {},
        "createdTime": at_ms,
    }
    return [{"protocol": protocol}, {"metaData": metadata}] if version == 0 or local_times else [{"metaData": metadata}]


@lru_cache(maxsize=64)
def schema_string(columns: tuple[tuple[str, pl.DataType], ...]) -> str:
    """Columns as Delta's own JSON text."""
    from deltalake import Schema

    empty = pl.DataFrame(schema=dict(columns)).to_arrow(compat_level=pl.CompatLevel.oldest())
    return str(Schema.from_arrow(empty.schema).to_json())


def _file(table: Path, version: int) -> Path:
    return table / "_delta_log" / f"{version:020d}.json"
