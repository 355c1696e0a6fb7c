"""Foreign versions: what another program (Spark, say) has written to a table's Delta log, put on the record at the next read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import msgspec
import polars as pl

from instar.core.errors import Conflict
from instar.core.ids import new_id
from instar.core.store import Store
from instar.data import content, profile, types
from instar.data.publishing import Log, file_digest, record
from instar.data.versions import File, Manifest, TableVersion


def record_foreign(
    store: Store, project: str, table: str, zone: str, place: Path, before: TableVersion | None, log: Log
) -> TableVersion:
    """Put on the record what another program has written to the Delta table."""
    added = {path: action for commit in log.orphans for path, action in commit.added.items()}
    target = []
    for path, known in log.active.items():
        action = added.get(path, {})
        if action.get("partitionValues") or action.get("deletionVector"):
            raise Conflict(
                "another program wrote it in a form that Instar does not read",
                subject=f"table {table}",
                found="Delta partitions" if action.get("partitionValues") else "deletion vectors",
                asked="an unpartitioned Delta table without deletion vectors",
                next_step="Rewrite the table in that program without them.",
            )
        if known is None:
            file = place / unquote(path)
            rows = pl.read_parquet(file)
            known = File(unquote(path), file.stat().st_size, file_digest(file), rows.height, content.of_rows(rows))
        target.append(known)
    if not target:
        raise Conflict("another program emptied it", subject=f"table {table}", next_step="Write the table again.")
    whole = pl.concat([pl.scan_parquet(place / file.path) for file in target], how="diagonal_relaxed").collect()
    schema = types.schema(whole)
    version = TableVersion(
        id=new_id("tver"),
        project=project,
        table=table,
        zone=before.zone if before else zone,
        number=before.number + 1 if before else 1,
        delta_version=log.next_version - 1,
        content=content.of_parts(schema, [(file.partition, file.content) for file in target]),
        state="",
        schema=schema,
        key=before.key if before else (),
        rows=whole.height,
        mode="foreign",
        partition=None,
        profile=store.blobs.put(profile.to_bytes(profile.profile(whole))),
        checks=(),
        execution=None,
        cause="written by another program",
        foreign=True,
        recorded_at=store.clock.wall(),
        event_at=store.clock.event(),
    )
    manifest = Manifest(table, version.zone, schema, version.content, target)
    version = replace(version, state=store.blobs.put(msgspec.json.encode(manifest)))
    record(store, version, ())
    return version
