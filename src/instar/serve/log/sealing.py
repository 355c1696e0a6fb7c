"""Sealing: closed segments of the log become rows of a Delta table with a Merkle root in the journal, now and then.

Order: bytes first, record second. The segment's rows and frames are written to files, the Delta table hears of the rows under the
segment's id as transaction, then one transaction names the segment sealed and journals its root; the segment's file goes after a
grace, for readers that looked at the catalogue before. Answers never wait for any of it: while the database or the disk of the
tables is away segments pile up, and are sealed one by one, in their order, when it is back.

A segment that was damaged between good frames is sealed with what can be read; what is missing stands in the journal, and the
file is set aside.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from blake3 import blake3

from instar.core import journal
from instar.core.database import Transaction
from instar.core.errors import Damaged
from instar.core.ids import parse_call_id
from instar.core.store import Store
from instar.serve.log import calls, catalogue, decoding, layout, record, sealed_table, segments, skipped
from instar.serve.log.catalogue import Sealed
from instar.serve.log.segments import SegmentName
from instar.serve.traffic import routing

log = logging.getLogger("instar.sealing")

GRACE_SECONDS = 600.0  # longer than any reading that began before the sealing


@dataclass(frozen=True)
class Done:
    """What a pass did.

    Attributes:
        damaged: Segments of which something could not be read, and what is missing, in words.
    """

    sealed: tuple[Sealed, ...] = ()
    damaged: tuple[tuple[SegmentName, str], ...] = ()


def seal(store: Store, *, grace_seconds: float = GRACE_SECONDS) -> list[Sealed]:
    """Seal every segment whose writer closed it or is gone; remove files whose grace is over.

    Returns:
        What was sealed now. Segments without a single call are only removed.
    """
    return list(look(store, grace_seconds=grace_seconds).sealed)


def look(store: Store, *, grace_seconds: float = GRACE_SECONDS) -> Done:
    """One pass of sealing, and what was found damaged in it."""
    with sealed_table.alone(store):
        return _pass(store, calls.calls_folder(store.folder), grace_seconds)


def chain_of(previous: str, root: str) -> str:
    """The chain of a segment: over its root and the chain of the one before it."""
    return "b3:" + blake3(f"{previous}\n{root}".encode()).hexdigest()


def _pass(store: Store, folder: Path, grace_seconds: float) -> Done:
    projects = {revision.policy.endpoint: revision.policy.project for revision in routing.endpoints(store)}
    before = store.clock.wall() - timedelta(seconds=grace_seconds)
    sealed: list[Sealed] = []
    damaged: list[tuple[SegmentName, str]] = []
    waiting: set[tuple[str, int]] = set()
    put_right: set[str] = set()
    for endpoint in sorted({name.endpoint for name in segments.list_segments(folder)}):
        known = catalogue.sealed(store, (name.id for name in segments.list_segments(folder, endpoint)))
        project = projects.get(endpoint, endpoint)
        for name in segments.list_segments(folder, endpoint):
            if (name.endpoint, name.boot) in waiting:
                continue  # the chain of a boot follows its numbers
            if name.id in known:
                if known[name.id].sealed_at < before:
                    _remove(folder, name, known[name.id])
            elif segments.is_alive(folder, name.boot) and not segments.closed(name.path(folder)):
                waiting.add((name.endpoint, name.boot))
            else:
                if endpoint not in put_right:
                    put_right.add(endpoint)
                    sealed_table.repair(store, project, endpoint)
                one, reason = _seal(store, project, folder, name)
                sealed += [one] if one is not None else []
                damaged += [(name, reason)] if reason else []
    for project, endpoint in catalogue.tables(store):
        sealed_table.remove_retired(store, project, endpoint, before)
    return Done(tuple(sealed), tuple(damaged))


def _remove(folder: Path, name: SegmentName, known: Sealed) -> None:
    if known.gaps:
        segments.set_aside(folder, name)
    else:
        name.path(folder).unlink()


def _seal(store: Store, project: str, folder: Path, name: SegmentName) -> tuple[Sealed | None, str]:
    """Seal one segment; returns it, or null where it holds no call, and what of it is damaged."""
    path = name.path(folder)
    heard = _Heard(name)
    found = segments.salvage(path, heard)
    if found.torn:
        log.info("segment %s has a torn tail of %d bytes, which no answer waited for", name.id, found.torn)
    reason = ""
    if found.gaps:
        reason = f"{sum(to - first for first, to in found.gaps)} frames cannot be read, at {_spans(found.gaps)}"
    try:
        rows = heard.rows()
    except Damaged as problem:
        return None, _give_up(
            store, project, folder, name, f"{reason or 'it is damaged'}; {problem.what}: {problem.found}"
        )
    if not heard.calls:
        if found.gaps or (found.torn and not found.frames and not _is_torn_start(path)):
            return None, _give_up(store, project, folder, name, reason or "no frame of it can be read")
        # Numbers of a boot have no holes: of a segment that held no call the journal says so, else somebody removed it.
        store.database.write(lambda tx: skipped.put_on_record(tx, store, project, name, heard.skipped), durable=True)
        path.unlink()
        return None, ""
    return _name(store, project, name, found, rows, heard, reason), reason


class _Heard:
    """What the frames of a segment say, heard once, one by one.

    Attributes:
        calls: How many they tell of.
    """

    def __init__(self, name: SegmentName) -> None:
        self._decoder = decoding.Decoder(name)
        self._problem: Damaged | None = None
        self.calls = 0

    def __call__(self, frame: record.Frame, entry: record.Entry) -> None:
        self.calls += isinstance(entry, record.Call)
        if self._problem is None:
            try:
                self._decoder.take(frame, entry)
            except Damaged as problem:
                self._problem = problem

    @property
    def skipped(self) -> Sequence[record.Skipped]:
        """Counts of calls that have no entry of their own."""
        return self._decoder.skipped

    def rows(self) -> pl.DataFrame:
        """All rows.

        Raises:
            Damaged: The frames do not tell a whole story.
        """
        if self._problem is not None:
            raise self._problem
        return self._decoder.whole()


def _name(
    store: Store,
    project: str,
    name: SegmentName,
    found: segments.Found,
    rows: pl.DataFrame,
    heard: _Heard,
    reason: str,
) -> Sealed:
    id_ = name.id
    kept = [layout.keep(id_, frame) for frame in found.frames]
    first, last = str(rows["call"].min()), str(rows["call"].max())
    # A call that came before midnight and was answered after it lies in the segment of the new day.
    begun_us = found.begun or parse_call_id(first).milliseconds * 1000
    day = datetime.fromtimestamp(begun_us / 1_000_000, UTC).date().isoformat()
    fitted, _ = layout.fit(layout.stored(rows, name.id), sealed_table.schema(store, project, name.endpoint))
    file = name.id.split("/", 1)[1]
    unit = sealed_table.make_unit(store, project, name.endpoint, day, file, iter([fitted]), iter(kept), [name.id])
    root = record.merkle_root([one.leaf_hash() for one in kept]).hex()
    with store.database.read() as tx:
        # Nobody else seals: what is read here still stands in the transaction below.
        before = catalogue.last_chain(tx, name.endpoint, name.boot, name.number) or journal.GENESIS
    sealed = Sealed(
        id=name.id,
        project=project,
        endpoint=name.endpoint,
        boot=name.boot,
        number=name.number,
        first_call=first,
        last_call=last,
        first_at=unit.first_at,
        last_at=unit.last_at,
        calls=heard.calls,
        predictions=unit.predictions,
        frames=len(kept),
        root=root,
        chain=chain_of(before, root),
        sealed_at=store.clock.wall(),
        gaps=found.gaps,
    )

    def also(tx: Transaction) -> None:
        catalogue.insert_segment(tx, sealed)
        if heard.skipped:
            skipped.put_on_record(tx, store, project, name, heard.skipped)

    sealed_table.change(
        store,
        project,
        name.endpoint,
        [],
        [unit],
        ("segment sealed", name.id, {**body(sealed), **({"damaged": reason} if reason else {})}),
        transaction=name.id,
        also=also,
    )
    return sealed


def body(sealed: Sealed) -> dict[str, Any]:
    """What the journal keeps of a sealed segment."""
    return {
        "endpoint": sealed.endpoint,
        "first_call": sealed.first_call,
        "last_call": sealed.last_call,
        "calls": sealed.calls,
        "frames": sealed.frames,
        "predictions": sealed.predictions,
        "gaps": [list(gap) for gap in sealed.gaps],
        "root": sealed.root,
        "chain": sealed.chain,
    }


def _give_up(store: Store, project: str, folder: Path, name: SegmentName, reason: str) -> str:
    """Nothing of it can become rows: the journal says so, and the file stays, aside."""

    def work(tx: Transaction) -> None:
        if not journal.entries(tx, project, kind="segment damaged", subject=name.id):
            facts = {"endpoint": name.endpoint, "reason": reason, "kept_at": f"calls/.damaged/{name.id}.seg"}
            journal.append(tx, store.clock, store.actor, project, "segment damaged", name.id, facts)

    store.database.write(work, durable=True)
    segments.set_aside(folder, name)
    return reason


def _is_torn_start(path: Path) -> bool:
    """A gateway that died as it began a segment leaves less than a frame, or zeros."""
    data = path.read_bytes()
    begun = data[: len(segments.MAGIC)]
    return segments.MAGIC.startswith(begun) or not data.strip(b"\0")


def _spans(gaps: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{first} to {to - 1}" if to - first > 1 else str(first) for first, to in gaps[:5])
