"""Publishing a table version: the Delta commit and the record of it, in the order that survives a crash between them.

Used by `tables` while it holds the table's lease. Bytes come first and the record second, so a crash can only leave a
commit that the record does not name; `compare_log` finds it, and the next write adopts or supersedes it.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import polars as pl
from blake3 import blake3

from instar.core import journal, lineage
from instar.core.database import Transaction
from instar.core.errors import StoreBusy
from instar.core.store import Store
from instar.data import delta_log
from instar.data.delta_log import Commit
from instar.data.versions import File, Manifest, TableVersion, files, insert, read_manifest

LEASE_SECONDS = 60.0  # how long a writer waits for another one of the same table
BASE_EVERY = 64  # appended files after which a manifest lists all files again


@dataclass(frozen=True)
class Log:
    """How the Delta log stands against the record: the number of the next commit, and files that unrecorded commits left."""

    next_version: int
    active: dict[str, File | None]
    orphans: tuple[Commit, ...] = ()


def publish(
    store: Store,
    place: Path,
    version: TableVersion,
    base: TableVersion | None,
    before: TableVersion | None,
    target: list[File],
    log: Log,
    schema: pl.Schema,
    transaction: str | None,
    inputs: Sequence[str],
) -> TableVersion:
    """Commit `target` as the table's files and name the version: bytes first, record second."""
    wanted = {file.path: file for file in target}
    adopt = bool(log.orphans) and set(wanted) == set(log.active)
    manifest = _manifest(store, version, target, base)
    version = replace(
        version,
        delta_version=log.next_version - 1 if adopt else log.next_version,
        state=store.blobs.put(msgspec.json.encode(manifest)),
    )
    if not adopt:
        at_ms = int(version.recorded_at.timestamp() * 1000)
        actions = [delta_log.remove(path, at_ms) for path in log.active if path not in wanted]
        for path, file in wanted.items():
            if path not in log.active:
                tags = {"content": file.content, "digest": file.digest, "rows": str(file.rows)}
                tags |= {"partition": file.partition} if file.partition is not None else {}
                actions.append(delta_log.add(path, file.size, file.rows, at_ms, tags))
        changed = before is None or before.schema != version.schema or any(one.schema_changed for one in log.orphans)
        delta_log.commit(
            place,
            version.delta_version,
            actions,
            transaction=transaction or version.execution or version.content,
            own={"content": version.content, "table": version.table, "mode": version.mode},
            at_ms=at_ms,
            schema=schema if changed else None,
        )
    record(store, version, inputs)
    if version.delta_version and version.delta_version % delta_log.CHECKPOINT_EVERY == 0:
        delta_log.checkpoint(place)
    return version


def record(store: Store, version: TableVersion, inputs: Sequence[str]) -> None:
    body = {
        "table": version.table,
        "number": version.number,
        "zone": version.zone,
        "mode": version.mode,
        "partition": version.partition,
        "rows": version.rows,
        "content": version.content,
        "state": version.state,
        "delta_version": version.delta_version,
        "execution": version.execution,
        "foreign": version.foreign,
        "cause": version.cause,
        "failed_checks": [result.name for result in version.checks if not result.passed],
    }

    def work(tx: Transaction) -> None:
        insert(tx, version)
        for source in inputs:
            lineage.link(tx, version.project, source, "input of", version.execution or version.id)
        if version.execution:
            lineage.link(tx, version.project, version.execution, "made", version.id)
        journal.append(tx, store.clock, store.actor, version.project, "table version", version.id, body)

    store.database.write(work, durable=True)


def _manifest(store: Store, version: TableVersion, target: list[File], base: TableVersion | None) -> Manifest:
    whole = Manifest(version.table, version.zone, version.schema, version.content, target)
    if base is None:
        return whole
    earlier = read_manifest(store, base.state)
    root = earlier.base or base.state
    added = len(target) - (len(read_manifest(store, root).files) if earlier.base else len(earlier.files))
    if added > BASE_EVERY:
        return whole
    return msgspec.structs.replace(whole, files=target[-added:], base=root)


def compare_log(store: Store, place: Path, before: TableVersion | None) -> Log:
    """Replay the commits that the record does not name: ours after a crash, or those of another program."""
    number = before.delta_version + 1 if before else 0
    active: dict[str, File | None] = {file.path: file for file in files(store, before)} if before else {}
    orphans = []
    while (commit := delta_log.read(place, number)) is not None:
        for path in commit.removed:
            active.pop(path, None)
        for path in commit.added:
            active[path] = None
        orphans.append(commit)
        number += 1
    return Log(number, active, tuple(orphans))


def left_behind(place: Path, log: Log, part: str, partition: str | None) -> File | None:
    """The file with this very part that a write left behind when it died before its record."""
    for commit in log.orphans:
        for path, action in commit.added.items():
            tags = action.get("tags") or {}
            if path in log.active and tags.get("content") == part and tags.get("partition") == partition:
                file = place / path
                if file.exists() and file_digest(file) == tags["digest"]:
                    return File(path, action["size"], tags["digest"], int(tags["rows"]), part, partition)
    return None


def file_digest(path: Path) -> str:
    return "b3:" + blake3().update_mmap(path).hexdigest()


@contextmanager
def lease(place: Path, table: str) -> Iterator[None]:
    # A lock of the operating system on a file: it cannot outlive its holder, so no dead writer is ever waited for. The
    # store refuses network file systems, where such locks cannot be trusted.
    with (place / ".lease").open("w") as file:
        deadline = time.monotonic() + LEASE_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreBusy(
                        f"another writer has held it for more than {LEASE_SECONDS:.0f} s",
                        subject=f"table {table}",
                        next_step="Wait for the other command to end, or end it, and try again; nothing was written.",
                    ) from None
                time.sleep(0.005)
        yield
