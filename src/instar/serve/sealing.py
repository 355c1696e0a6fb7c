"""Sealing: closed segments of the log become rows of a Delta table with a Merkle root in the journal, now and then.

Order: bytes first, record second. The segment's rows are appended to the table under the segment's id as transaction, so a
sealing that a crash interrupted finds its commit; then one transaction names the segment sealed and journals its root; the
file goes after a grace, for readers that looked at the catalogue before. Each call's own frames stand in the column
`frames` beside the rows made of them, so that the root can be computed from the table alone, whatever is erased later.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa
from blake3 import blake3

from instar.core import ids, journal
from instar.core.database import Transaction
from instar.core.durable import sync_folder
from instar.core.errors import Damaged
from instar.core.store import Store
from instar.serve import calls, decoding, prediction_rows, record, routing, segments
from instar.serve.segments import SegmentName

GRACE_SECONDS = 600.0  # longer than any reading that began before the sealing
_FRAME = {
    "sequence": pl.Int64,
    "metadata": pl.Binary,
    "salt": pl.Binary,
    "personal": pl.Binary,
    "personal_digest": pl.Binary,
}


@dataclass(frozen=True)
class Fault:
    """Something about a sealed segment that does not hold."""

    segment: str
    reason: str


def seal(store: Store, *, grace_seconds: float = GRACE_SECONDS) -> list[calls.Sealed]:
    """Seal every segment whose writer closed it or is gone; remove files whose grace is over.

    Returns:
        What was sealed now. Segments without a single call are only removed.
    """
    folder = calls.calls_folder(store.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".sealing").open("w") as lock:
        # One at a time: two that append the same segment would both find that nobody had.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _seal_all(store, folder, grace_seconds)


def _seal_all(store: Store, folder: Path, grace_seconds: float) -> list[calls.Sealed]:
    known = calls.catalogue(store)
    projects = {revision.policy.endpoint: revision.policy.project for revision in routing.endpoints(store)}
    done = []
    waiting: set[tuple[str, int]] = set()
    for name in segments.list_segments(folder):
        path = name.path(folder)
        if (name.endpoint, name.boot) in waiting:
            continue  # the chain of a boot follows its numbers
        if name.id in known:
            if (store.clock.wall() - known[name.id].sealed_at).total_seconds() > grace_seconds:
                path.unlink()
        elif _is_closed(folder, name, path):
            sealed = _seal(store, projects.get(name.endpoint, name.endpoint), name, path)
            if sealed is None:
                path.unlink()
            else:
                known[sealed.id] = sealed
                done.append(sealed)
        else:
            waiting.add((name.endpoint, name.boot))
    return done


def verify(store: Store, endpoint: str | None = None) -> list[Fault]:
    """Prove that sealed segments are as they were sealed: files, frames, rows, order and chain, and the journal's word.

    Returns:
        What does not hold; empty when all does. The journal itself is verified by `journal.verify`.
    """
    faults: list[Fault] = []
    known = calls.catalogue(store, endpoint)
    journalled: dict[str, dict[str, Any]] = {}
    with store.database.read() as tx:
        for project in {one.project for one in known.values()} | set(journal.projects(tx)):
            for entry in journal.entries(tx, project, kind="segment sealed"):
                journalled[entry.subject] = entry.body
    chains: dict[tuple[str, int], str] = {}
    for one in sorted(known.values(), key=lambda one: (one.endpoint, one.boot, one.number)):
        reason = _fault(store, one, journalled.get(one.id), chains.get((one.endpoint, one.boot), journal.GENESIS))
        if reason:
            faults.append(Fault(one.id, reason))
        chains[one.endpoint, one.boot] = one.chain
    for subject in sorted(set(journalled) - set(known)):
        if endpoint is None or subject.startswith(f"{endpoint}/"):
            faults.append(Fault(subject, "the journal names it, and the catalogue does not have it"))
    return faults


def _is_closed(folder: Path, name: SegmentName, path: Path) -> bool:
    if segments.is_alive(folder, name.boot):
        payloads, _ = segments.read(path)
        return bool(payloads) and isinstance(_entry(payloads[-1]), record.End)
    segments.recover(path)
    return True


def _seal(store: Store, project: str, name: SegmentName, path: Path) -> calls.Sealed | None:
    payloads, _ = segments.read(path)
    frames = [record.decode_frame(payload) for payload in payloads]
    entries = [record.decode_entry(frame.metadata) for frame in frames]
    reader = decoding.Reader(name, path)
    reader.refresh()
    reader.end()
    rows = decoding.align(reader.frames(None, None))
    if rows.is_empty():
        return None
    table = calls.table_folder(store.folder, project, name.endpoint)
    version, files = _append(table, name.id, _with_frames(rows, frames, entries).with_columns(segment=pl.lit(name.id)))
    root = record.merkle_root([record.leaf(frame) for frame in frames]).hex()
    made = [entry for entry in entries if isinstance(entry, record.Call)]

    def work(tx: Transaction) -> calls.Sealed:
        before = sa.select(calls.segment.c.chain).where(
            calls.segment.c.endpoint == name.endpoint,
            calls.segment.c.boot == name.boot,
            calls.segment.c.number < name.number,
        )
        last = tx.execute(before.order_by(calls.segment.c.number.desc()).limit(1)).scalar_one_or_none()
        sealed = calls.Sealed(
            id=name.id,
            project=project,
            endpoint=name.endpoint,
            boot=name.boot,
            number=name.number,
            first_call=min(call.call for call in made),
            last_call=max(call.call for call in made),
            first_at=rows["at"][0],
            last_at=rows["at"][-1],
            calls=len(made),
            predictions=rows.height,
            frames=len(frames),
            delta_version=version,
            files=files,
            root=root,
            chain=_chain(last or journal.GENESIS, root),
            sealed_at=store.clock.wall(),
        )
        known = tx.execute(sa.select(calls.segment.c.id).where(calls.segment.c.id == name.id)).first()
        if known is None:
            values = {field: getattr(sealed, field) for field in calls.Sealed.__dataclass_fields__}
            tx.execute(calls.segment.insert().values(**values, state="sealed"))
            journal.append(tx, store.clock, store.actor, project, "segment sealed", name.id, _body(sealed))
        return sealed

    return store.database.write(work, durable=True)


def _append(table: Path, transaction: str, rows: pl.DataFrame) -> tuple[int, dict[str, str]]:
    """Append to the Delta table, once; returns the version and the digest of each file of it."""
    from deltalake import CommitProperties, DeltaTable, write_deltalake
    from deltalake.transaction import Transaction as DeltaTransaction

    table.mkdir(parents=True, exist_ok=True)
    if DeltaTable.is_deltatable(str(table)):
        found = _committed(table, transaction)
        if found is not None:
            return found
    write_deltalake(
        str(table),
        rows.to_arrow(compat_level=pl.CompatLevel.oldest()),
        mode="append",
        schema_mode="merge",
        commit_properties=CommitProperties(app_transactions=[DeltaTransaction(transaction, 1)]),
    )
    found = _committed(table, transaction)
    assert found is not None
    return found


def _committed(table: Path, transaction: str) -> tuple[int, dict[str, str]] | None:
    """Version and files of the commit made under that transaction, newest first; None when there is none."""
    for log in sorted((table / "_delta_log").glob("*.json"), reverse=True):
        actions = [json.loads(line) for line in log.read_text().splitlines() if line]
        if any(action.get("txn", {}).get("appId") == transaction for action in actions):
            added = [action["add"]["path"] for action in actions if "add" in action]
            for path in added:
                _sync(table / path)
            sync_folder(table)
            sync_folder(table / "_delta_log")
            return int(log.stem), {path: ids.digest((table / path).read_bytes()) for path in added}
    return None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _with_frames(rows: pl.DataFrame, frames: Sequence[record.Frame], entries: Sequence[record.Entry]) -> pl.DataFrame:
    """Rows with the frames that they came from: those of a call on its row 0, all others on the segment's first row."""
    place = {call: at for at, (call, row) in enumerate(rows.select("call", "row").iter_rows()) if row == 0}
    beside: list[list[int]] = [[] for _ in range(rows.height)]
    for at, entry in enumerate(entries):
        call = entry.call if isinstance(entry, record.Call | record.Later) else None
        beside[place.get(call, 0) if call is not None else 0].append(at)
    order = [at for one in beside for at in one]
    offsets = [0, *accumulate(map(len, beside))]
    held = [frames[at] for at in order]
    columns = {
        "sequence": [frame.sequence for frame in held],
        "metadata": [frame.metadata for frame in held],
        "salt": [frame.salt for frame in held],
        "personal": [frame.personal for frame in held],
        "personal_digest": [record.hash_personal(frame) for frame in held],
    }
    return rows.with_columns(prediction_rows.lists("frames", pl.DataFrame(columns, schema=_FRAME), offsets))


def _fault(store: Store, one: calls.Sealed, journalled: dict[str, Any] | None, chain: str) -> str:
    if journalled is None:
        return "the journal does not name it"
    if journalled != _body(one):
        return "the catalogue and the journal disagree on it"
    if one.chain != _chain(chain, one.root):
        return "it does not follow the segment before it: one was removed or re-ordered"
    table = calls.table_folder(store.folder, one.project, one.endpoint)
    for file, digest in one.files.items():
        path = table / file
        if not path.exists():
            return f"its file {file} is missing"
        if ids.digest(path.read_bytes()) != digest:
            return f"its file {file} was changed"
    try:
        return _content_fault(pl.read_parquet([table / file for file in one.files]), one)
    except Damaged as problem:
        return str(problem)


def _content_fault(rows: pl.DataFrame, one: calls.Sealed) -> str:
    found = sorted((f for beside in rows["frames"].to_list() for f in beside or ()), key=lambda f: f["sequence"])
    if [f["sequence"] for f in found] != list(range(one.frames)):
        return "frames are missing, or come twice"
    frames = [record.Frame(f["sequence"], f["metadata"], f["salt"], f["personal"]) for f in found]
    leaves = [record.leaf(frame, f["personal_digest"]) for frame, f in zip(frames, found, strict=True)]
    if record.merkle_root(leaves).hex() != one.root:
        return "its root does not hold: a frame was changed"
    return "" if rows.height == one.predictions else "rows were added or removed"


def _entry(payload: memoryview) -> record.Entry:
    return record.decode_entry(record.decode_frame(payload).metadata)


def _chain(previous: str, root: str) -> str:
    return "b3:" + blake3(f"{previous}\n{root}".encode()).hexdigest()


def _body(sealed: calls.Sealed) -> dict[str, Any]:
    """What the journal keeps of a sealed segment."""
    return {
        "endpoint": sealed.endpoint,
        "first_call": sealed.first_call,
        "last_call": sealed.last_call,
        "calls": sealed.calls,
        "frames": sealed.frames,
        "predictions": sealed.predictions,
        "delta_version": sealed.delta_version,
        "files": dict(sealed.files),
        "root": sealed.root,
        "chain": sealed.chain,
    }
