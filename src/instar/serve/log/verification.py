"""Proving that sealed calls are as they were sealed, whenever an auditor asks: the journal's word against files, frames and rows.

What must hold, each told apart when it does not:

- of the segments that a gateway wrote, which it numbers without holes, none is gone before the last one that is known;
- the catalogue names the segments that the journal names, with the same facts, each chained to the one before it;
- the units that stand are what the journal says is left of all that was made and taken; the Delta table consists of just these;
- each file has the digest that the journal holds;
- the frames of a segment, in their order and without a gap that was not journalled, give its root;
- the rows are those that the frames make, but for what an erasure or the end of its time took, which the row says.

It reads one segment's frames at a time, however long the log is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from instar.core import ids, journal
from instar.core.errors import Damaged
from instar.core.store import Store
from instar.serve.log import calls, catalogue, decoding, layout, record, sealed_table, sealing, segments, skipped
from instar.serve.log.catalogue import Sealed, Unit
from instar.serve.log.layout import Kept

NOT_SEALED = (skipped.KIND, "segment damaged")
CHANGES = ("segment sealed", "calls merged", "calls erased", "inputs dropped", "calls dropped")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Fault:
    """Something about sealed calls that does not hold; `segment` is its id, or the endpoint's name where it is about all."""

    segment: str
    reason: str


@dataclass
class _Word:
    """What the journal says of one endpoint."""

    segments: dict[str, dict[str, Any]] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    passed: set[str] = field(default_factory=set)  # segments that were not sealed, and why stands in the journal
    files: dict[str, str] = field(default_factory=dict)


def verify(
    store: Store,
    endpoint: str | None = None,
    *,
    project: str | None = None,
    since: datetime | None = None,
    sample: float = 1.0,
    progress: Progress | None = None,
) -> list[Fault]:
    """Prove that sealed segments are as they were sealed. The journal itself is verified by `journal.verify`.

    Args:
        endpoint, project: Whose; all when neither is named.
        since: Open only files with calls whose event time is this or later.
        sample: Share of these files to open, drawn anew each time; catalogue and journal are always compared whole.
        progress: Called with the number of predictions that were looked at, and of all.

    Returns:
        What does not hold; empty when all does.
    """
    words = _words(store)
    known = [one for one in catalogue.segments(store, endpoint).values() if project in (None, one.project)]
    found: list[Fault] = []
    places = {(one.project, one.endpoint) for one in known}
    places |= {place for place in words if endpoint in (None, place[1]) and project in (None, place[0])}
    opened: list[Unit] = []
    for place in sorted(places):
        word = words.get(place, _Word())
        own = [one for one in known if (one.project, one.endpoint) == place]
        units = catalogue.units(store, project=place[0], endpoint=place[1])
        found += _segments(own, word)
        found += _holes(store, place[1], own, word)
        found += _files(store, place, units, word)
        opened += [one for one in units if (since is None or one.last_at >= since) and random.random() < sample]
    by_id = {one.id: one for one in known}
    total, done = sum(one.predictions for one in opened), 0
    for one in opened:
        found += _unit(store, one, by_id)
        done += one.predictions
        if progress is not None:
            progress(done, total)
    return found


def _words(store: Store) -> dict[tuple[str, str], _Word]:
    words: dict[tuple[str, str], _Word] = {}
    with store.database.read() as tx:
        for project in journal.projects(tx):
            for entry in journal.entries(tx, project):
                if entry.kind in CHANGES:
                    _hear(words.setdefault((project, entry.body["endpoint"]), _Word()), entry)
                elif entry.kind in NOT_SEALED:
                    words.setdefault((project, entry.body["endpoint"]), _Word()).passed.add(entry.subject)
    return words


def _hear(word: _Word, entry: journal.Entry) -> None:
    body = entry.body
    made = body.get("made")
    if made is None:  # as stores before format 3 said it
        made = {f"{body['endpoint']}__predictions/{path}": digest for path, digest in body["files"].items()}
    if entry.kind == "segment sealed":
        word.segments[entry.subject] = body
    word.dropped.update(body.get("dropped", ()))
    for path in body.get("took", ()):
        word.files.pop(path, None)
    word.files |= made


def _segments(known: Sequence[Sealed], word: _Word) -> Iterator[Fault]:
    chains: dict[int, str] = {}
    for one in sorted(known, key=lambda one: (one.boot, one.number)):
        said = word.segments.get(one.id)
        facts = sealing.body(one)
        if said is None:
            yield Fault(one.id, "the journal does not name it")
        elif {name: said.get(name, []) for name in facts} != facts:
            yield Fault(one.id, "the catalogue and the journal disagree on it")
        elif segments.SegmentName(one.endpoint, one.boot, one.number).id != one.id:
            yield Fault(one.id, "its place is not that of its id")
        elif one.chain != sealing.chain_of(chains.get(one.boot, journal.GENESIS), one.root):
            yield Fault(one.id, "it does not follow the segment before it: one was removed or re-ordered")
        elif (one.state == catalogue.DROPPED) != (one.id in word.dropped):
            yield Fault(one.id, f"it is {one.state}, and the journal says otherwise")
        chains[one.boot] = one.chain
    for subject in sorted(word.segments.keys() - {one.id for one in known}):
        yield Fault(subject, "the journal names it, and the catalogue does not have it")


def _holes(store: Store, endpoint: str, known: Sequence[Sealed], word: _Word) -> Iterator[Fault]:
    """Segments that were never sealed and are not there: removed while open. Of the last of a boot nothing can be known."""
    there = {segments.name_of(id_) for id_ in (*(one.id for one in known), *word.segments, *word.passed)}
    there |= set(segments.list_segments(calls.calls_folder(store.folder), endpoint))
    numbers: dict[int, set[int]] = {}
    for name in there:
        numbers.setdefault(name.boot, set()).add(name.number)
    for boot, has in sorted(numbers.items()):
        for number in sorted(set(range(max(has))) - has):
            gone = segments.SegmentName(endpoint, boot, number)
            yield Fault(gone.id, "it is gone, and was never sealed: somebody removed it while it was open")


def _files(store: Store, place: tuple[str, str], units: Sequence[Unit], word: _Word) -> Iterator[Fault]:
    stand = sealed_table.files(units)
    owner = {path: _name(one) for one in units for path in one.files}
    for path in sorted(stand.keys() - word.files.keys()):
        yield Fault(owner[path], f"the catalogue names the file {path}, and the journal does not")
    for path in sorted(word.files.keys() - stand.keys()):
        yield Fault(place[1], f"the journal names the file {path}, and the catalogue does not")
    for path in sorted(stand.keys() & word.files.keys()):
        if stand[path] != word.files[path]:
            yield Fault(owner[path], f"catalogue and journal disagree on the digest of {path}")
    named = {name for one in units for name in one.segments}
    for name in sorted(word.segments.keys() - word.dropped - named):
        yield Fault(name, "no unit holds it")
    in_table = sealed_table.active(store, *place) or set()
    ours = {one.rows_path.split("/", 1)[1]: _name(one) for one in units}
    for path in sorted(ours.keys() - in_table):
        yield Fault(ours[path], f"the Delta table has lost the file {path}")
    for path in sorted(in_table - ours.keys()):
        yield Fault(place[1], f"the Delta table holds the file {path}, which nobody sealed")


def _unit(store: Store, unit: Unit, known: Mapping[str, Sealed]) -> Iterator[Fault]:
    folder = catalogue.tables_folder(store.folder, unit.project)
    for path, digest in unit.files.items():
        if not (folder / path).exists():
            yield Fault(_name(unit), f"its file {path} is missing")
            return
        if ids.digest_of_file(folder / path) != digest:
            yield Fault(_name(unit), f"its file {path} was changed")
            return
    try:
        yield from _content(folder, unit, known)
    except (Damaged, OSError, pl.exceptions.PolarsError, pa.ArrowException) as problem:
        yield Fault(_name(unit), f"it cannot be read: {problem}")


def _content(folder: Path, unit: Unit, known: Mapping[str, Sealed]) -> Iterator[Fault]:
    rows = folder / unit.rows_path
    seen, predictions = [], 0
    for name, frames in layout.frames_by_segment(folder / unit.frames_path):
        seen.append(name)
        one = known.get(name)
        if one is None or name not in unit.segments:
            yield Fault(name, "its frames lie in a unit that does not name it")
            continue
        predictions += one.predictions
        reason = _frames_fault(frames, one) or _rows_fault(rows, frames, one)
        if reason:
            yield Fault(name, reason)
    if sorted(seen) != sorted(unit.segments):
        yield Fault(_name(unit), "its frames are not those of its segments")
    elif predictions != unit.predictions:
        yield Fault(_name(unit), "the catalogue names another number of predictions than its segments have")
    facts = pl.scan_parquet(rows).select(
        pl.len(),
        pl.col("call").min().alias("first_call"),
        pl.col("call").max().alias("last_call"),
        pl.col("at").min().alias("first_at"),
        pl.col("at").max().alias("last_at"),
    )
    found = facts.collect().row(0, named=True)
    if found.pop("len") != unit.predictions:
        yield Fault(_name(unit), "rows were added or removed")
    elif any(getattr(unit, fact) != value for fact, value in found.items()):
        yield Fault(_name(unit), "the catalogue says that its rows lie between others")
    else:
        listed = pl.scan_parquet(rows).select(list(unit.listed)).collect() if unit.listed else None
        if any(listed[name].drop_nulls().unique().sort().to_list() != unit.listed[name] for name in unit.listed):  # type: ignore[index]
            yield Fault(_name(unit), "the catalogue lists other values of it than its rows have")


def _frames_fault(frames: Sequence[Kept], one: Sealed) -> str:
    gone = {sequence for first, to in one.gaps for sequence in range(first, to)}
    last = frames[-1].sequence if frames else -1
    if [frame.sequence for frame in frames] != [n for n in range(last + 1) if n not in gone] or len(
        frames
    ) != one.frames:
        return "frames are missing, come twice or in another order"
    if record.merkle_root([frame.leaf_hash() for frame in frames]).hex() != one.root:
        return "its root does not hold: a frame was changed"
    return ""


def _rows_fault(path: Path, frames: Sequence[Kept], one: Sealed) -> str:
    """Are the rows those that the frames make? Where a frame was pruned, its digest in the journal is what is left."""
    scan = pl.scan_parquet(path).select(pl.exclude("frames", "prediction", "endpoint"))
    scan = scan.filter(pl.col("call").is_between(pl.lit(one.first_call), pl.lit(one.last_call)))
    rows = scan.filter(pl.col("segment") == one.id).collect()
    if rows.height != one.predictions:
        return "rows were added or removed"
    whole = [record.Frame(f.sequence, f.metadata, f.salt, f.personal) for f in frames if f.metadata is not None]
    pruned = len(frames) - len(whole)
    name = segments.name_of(one.id)
    made = decoding.decode(name, whole) if not pruned else _what_is_left(name, whole, rows)
    if made is None:
        return ""
    left = layout.logged(rows, one.endpoint).filter(pl.col("call").is_in(made["call"].implode()))
    there, said = left.sort("call", "row"), made.sort("call", "row")
    if pruned == 0 and there.height != rows.height:
        return "rows were added or removed"
    return "" if _same(there, said) else "a row does not say what its frame says"


def _what_is_left(name: segments.SegmentName, whole: Sequence[record.Frame], rows: pl.DataFrame) -> pl.DataFrame | None:
    """Rows of the calls whose frames are whole; null where all of a segment's inputs were dropped."""
    if not any(record.kind(frame.metadata) == record.CALL for frame in whole):
        return None
    made = decoding.decode(name, whole)
    return made if made.height else None


def _same(there: pl.DataFrame, said: pl.DataFrame) -> bool:
    """Do rows say the same? Those of several segments have the columns of all: what some do not have is null in them."""
    if there.height != said.height:
        return False
    left, right = (dict(_leaves(frame, ())) for frame in (there, said))
    for path in left.keys() | right.keys():
        one, other = left.get(path), right.get(path)
        if one is None or other is None:
            alone = other if one is None else one
            if alone is not None and alone.null_count() < len(alone):
                return False
        elif one.dtype != other.dtype or not one.equals(other, null_equal=True):
            return False
    return True


def _leaves(frame: pl.DataFrame, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], pl.Series]]:
    """Columns of a frame by their path, fields of structs among them instead of the structs."""
    for column in frame:
        path = (*above, column.name)
        if isinstance(column.dtype, pl.Struct):
            yield from _leaves(column.struct.unnest(), path) if column.dtype.fields else ()
        else:
            yield path, column


def _name(unit: Unit) -> str:
    return (
        unit.segments[0] if len(unit.segments) == 1 else f"{unit.endpoint}/{unit.day} ({len(unit.segments)} segments)"
    )
