"""From record frames to rows, when the log is read: data frames of predictions for what a segment holds so far.

A call whose shadows have not answered yet waits until they have; all others are gathered and frozen into data frames, some
ten thousand at once, so that a large segment is never in memory as Python objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
import polars as pl

from instar.core.errors import Damaged
from instar.serve.log import record, segments
from instar.serve.log.aligning import align
from instar.serve.log.answer_rows import chosen
from instar.serve.log.prediction_rows import Chunk, Kind, Rows

# A shadow that has not answered by then never will: its gateway gives up after half of this.
INCOMPLETE_US = 60_000_000

_NO_SCHEMA = record.Schema(0, ())


@dataclass
class _Waiting:
    """A call whose shadows have not all answered: what came, and how many entries are to come."""

    call: record.Call
    frame: record.Frame
    laters: int
    rows: Rows
    answers: list[record.Answer] = field(default_factory=list)


class Decoder:
    """Frames of one segment, in their order, as they become rows.

    Attributes:
        chunks: Frozen rows.
        skipped: Counts of calls that have no entry of their own.
        ended: The segment was closed in good order.
    """

    def __init__(self, name: segments.SegmentName) -> None:
        self.name = name
        self.chunks: list[Chunk] = []
        self.skipped: list[record.Skipped] = []
        self.ended = False
        self._schemas: dict[int, record.Schema] = {}
        self._kinds: list[Rows] = []
        self._places: dict[tuple[object, ...], Rows] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._newest = 0

    def take(self, frame: record.Frame, entry: record.Entry) -> None:
        """One more frame and what stands in it.

        Raises:
            Damaged: It tells of columns that none before it describes, or contradicts itself.
        """
        if type(entry) is record.Call:
            self._call(entry, frame)
        elif type(entry) is record.Later:
            self._later(entry)
        elif type(entry) is record.Schema:
            self._schemas[entry.number] = entry
            self._places.clear()
        elif type(entry) is record.Skipped:
            self.skipped.append(entry)
        elif type(entry) is record.End:
            self.ended = True

    def freeze(self, *, final: bool = False) -> None:
        """Make frames of all calls that wait for nothing.

        Args:
            final: Nothing will come any more: what waits has waited in vain.
        """
        limit = self._newest - INCOMPLETE_US
        for call, waiting in list(self._waiting.items()):
            if waiting.call.recorded >= limit and not final:
                break  # in order of recording
            self._complete(self._waiting.pop(call))
        for rows in self._kinds:
            if rows.size:
                self.chunks.append(rows.take(self.name.endpoint))
        if len(self.chunks) > 64:
            self._merge()

    def peek(self) -> list[Chunk]:
        """Rows of calls that still wait for answers, as they are now."""
        by_kind: dict[int, Rows] = {}
        for waiting in self._waiting.values():
            rows = by_kind.setdefault(id(waiting.rows), Rows(waiting.rows.kind, waiting.rows.place))
            rows.add(waiting.call, waiting.frame, waiting.answers)
        return [rows.take(self.name.endpoint) for rows in by_kind.values()]

    def holds(self, call: str) -> bool:
        """Is the call among those that were taken? To be asked after `freeze`."""
        return call in self._waiting or any(chunk.holds(call) for chunk in reversed(self.chunks))

    def _call(self, call: record.Call, frame: record.Frame) -> None:
        self._newest = max(self._newest, call.recorded)
        rows = self._rows(call.work)
        if call.laters and call.work is not None:
            self._waiting[call.call] = _Waiting(call, frame, call.laters, rows)
        else:
            self._add(rows, call, frame)

    def _add(
        self, rows: Rows, call: record.Call, frame: record.Frame, later: list[record.Answer] | None = None
    ) -> None:
        rows.add(call, frame, later or ())
        if rows.full:
            self.chunks.append(rows.take(self.name.endpoint))

    def _rows(self, work: record.Work | None) -> Rows:
        """Where a call belongs: a failed one beside those of the latest kind."""
        if work is None:
            if not self._kinds:
                self._kinds.append(Rows((next(reversed(self._schemas.values()), _NO_SCHEMA), ()), 0))
            return self._kinds[-1]
        outputs = (chosen(work.answers, work.answered).outputs or ()) if work.tensors is not None else ()
        place = (work.signature, *[one.name for one in outputs], *[one.datatype for one in outputs])
        if (known := self._places.get(place)) is None:
            known = self._places[place] = self._of_kind(work.signature, outputs)
        return known

    def _of_kind(self, signature: int, outputs: Iterable[record.Tensor]) -> Rows:
        if signature not in self._schemas:
            raise Damaged("a recorded call names columns that nothing describes", found=f"signature {signature}")
        kind: Kind = (self._schemas[signature], tuple((one.name, one.datatype) for one in outputs))
        for rows in self._kinds:
            if rows.kind == kind:
                return rows
        self._kinds.append(Rows(kind, len(self._kinds)))
        return self._kinds[-1]

    def _later(self, later: record.Later) -> None:
        waiting = self._waiting.get(later.call)
        if waiting is None:
            return
        waiting.answers += later.answers
        waiting.laters -= 1
        if waiting.laters == 0:
            self._complete(self._waiting.pop(later.call))

    def _complete(self, waiting: _Waiting) -> None:
        self._add(waiting.rows, waiting.call, waiting.frame, waiting.answers)

    def _merge(self) -> None:
        """Few large frames are quicker to look through than many small ones; the newest stay small."""
        old, merged = self.chunks[:-8], list[Chunk]()
        for chunk in old:
            last = merged[-1] if merged else None
            if last is not None and last.kind == chunk.kind and last.frame.height < 50_000:
                frame = pl.concat([last.frame, chunk.frame], rechunk=True)
                merged[-1] = Chunk(min(last.first, chunk.first), max(last.last, chunk.last), frame, last.kind)
            else:
                merged.append(chunk)
        self.chunks = merged + self.chunks[-8:]

    def whole(self) -> pl.DataFrame:
        """All rows in order of event time, once nothing will come any more."""
        self.freeze(final=True)
        # In the order of their kinds, so that the order of columns does not depend on when something was frozen.
        return align([chunk.frame for chunk in sorted(self.chunks, key=lambda chunk: chunk.kind)])


def decode(name: segments.SegmentName, frames: Iterable[record.Frame]) -> pl.DataFrame:
    """Rows of the log that frames of one segment make, in order of event time.

    Raises:
        Damaged: The frames do not tell a whole story.
    """
    decoder = Decoder(name)
    for frame in frames:
        try:
            entry = record.decode_entry(frame.metadata)
        except msgspec.DecodeError as error:
            raise Damaged("a frame holds no entry", subject=f"segment {name.id}", found=repr(error)) from error
        decoder.take(frame, entry)
    return decoder.whole()
