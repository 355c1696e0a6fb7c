"""A look at a table: what a version holds, and what changed between two; for `instar data show` and `diff`."""

from __future__ import annotations

from typing import Any

import msgspec
import polars as pl

from instar.core.store import Store
from instar.data import column_profile, drift, tables
from instar.data.tables import TableVersion

SAMPLE_ROWS = 5


def record(version: TableVersion) -> dict[str, Any]:
    """A version's record, ready for JSON."""
    found = msgspec.json.decode(msgspec.json.encode(version))
    return {"ref": version.ref, **found}


def describe(store: Store, version: TableVersion, sample: int = SAMPLE_ROWS) -> dict[str, Any]:
    """A version's record with its files, a summary of each column, and its first rows."""
    whole = tables.read_profile(store, version)
    columns = []
    for name, kind in version.schema.items():
        known = whole.columns.get(name)
        columns.append({"name": name, "datatype": kind, **(column_profile.summary(known) if known else {})})
    files = tables.files(store, version)
    rows = tables.scan(store, version).head(sample).collect() if sample else pl.DataFrame()
    return {
        **record(version),
        "columns": columns,
        "files": len(files),
        "size_bytes": sum(file.size for file in files),
        "sample": msgspec.to_builtins(rows.to_dicts()),
    }


def diff(store: Store, old: TableVersion, new: TableVersion) -> dict[str, Any]:
    """What changed from one version to another: schema, rows, rows by key, and the drift of each column.

    Returns:
        `rows` [old, new]; `columns` with `added`, `removed` and `retyped`; `keys` with the number of rows `added`,
        `removed` and `changed`, None when the tables share no key; `drift`, largest first.
    """
    moved = drift.compare(tables.read_profile(store, old), tables.read_profile(store, new))
    values = [{"column": one.column, "psi": None if one.value != one.value else one.value} for one in moved]
    return {
        "from": old.ref,
        "to": new.ref,
        "same_content": old.content == new.content,
        "rows": [old.rows, new.rows],
        "columns": {
            "added": [name for name in new.schema if name not in old.schema],
            "removed": [name for name in old.schema if name not in new.schema],
            "retyped": [name for name, kind in new.schema.items() if old.schema.get(name, kind) != kind],
        },
        "keys": _keys(store, old, new),
        "drift": sorted(values, key=lambda one: -1.0 if one["psi"] is None else one["psi"], reverse=True),
    }


def _keys(store: Store, old: TableVersion, new: TableVersion) -> dict[str, int] | None:
    key = list(new.key)
    if not key or old.key != new.key or any(old.schema.get(name) != new.schema.get(name) for name in key):
        return None
    shared = [
        name for name, kind in new.schema.items() if old.schema.get(name) == kind and name not in key and name[0] != "_"
    ]
    before = tables.scan(store, old).select(*key, pl.struct(shared or key).alias("before"))
    after = tables.scan(store, new).select(*key, pl.struct(shared or key).alias("after"))
    both = before.join(after, on=key, how="full", coalesce=True, nulls_equal=True)
    counts = both.select(
        added=pl.col("before").is_null().sum(),
        removed=pl.col("after").is_null().sum(),
        changed=(
            pl.col("before").is_not_null() & pl.col("after").is_not_null() & pl.col("before").ne(pl.col("after"))
        ).sum(),
    )
    found: dict[str, int] = counts.collect().row(0, named=True)
    return found
