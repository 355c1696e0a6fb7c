"""A segment that is still being written, or not sealed yet, read on from where it was left each time the log is read."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from instar.serve.log import record, segments
from instar.serve.log.decoding import Decoder
from instar.serve.log.prediction_rows import MOMENT, Chunk


class Reader:
    """A segment, read as far as it goes: reading the last minute never decodes the last hour again."""

    def __init__(self, name: segments.SegmentName, path: Path) -> None:
        self.name = name
        self._path = path
        self._offset = 0
        self._decoder = Decoder(name)

    @property
    def chunks(self) -> list[Chunk]:
        """Rows of calls that nothing is added to any more."""
        return self._decoder.chunks

    @property
    def skipped(self) -> list[record.Skipped]:
        """Counts of calls that have no entry of their own."""
        return self._decoder.skipped

    @property
    def ended(self) -> bool:
        """The segment was closed in good order and read to its end."""
        return self._decoder.ended

    def refresh(self) -> None:
        """Read on to the last good frame.

        Raises:
            Damaged: The file does not begin as a segment, or its frames do not tell a whole story.
        """
        if self.ended or not self._path.exists() or self._path.stat().st_size <= self._offset:
            return
        payloads, self._offset = segments.read(self._path, self._offset)
        for payload in payloads:
            frame = record.decode_frame(payload)
            self._decoder.take(frame, record.decode_entry(frame.metadata))
        self._decoder.freeze(final=self.ended)

    def frames(self, since: int | None, until: int | None) -> list[pl.DataFrame]:
        """Rows with event time in [since, until), microseconds since 1970."""
        found = []
        for chunk in sorted([*self.chunks, *self._decoder.peek()], key=lambda chunk: chunk.kind):
            if (since is not None and chunk.last < since) or (until is not None and chunk.first >= until):
                continue
            frame = chunk.frame
            if since is not None and chunk.first < since:
                frame = frame.filter(pl.col("at") >= pl.lit(since).cast(MOMENT))
            if until is not None and chunk.last >= until:
                frame = frame.filter(pl.col("at") < pl.lit(until).cast(MOMENT))
            found.append(frame)
        return found

    def holds(self, call: str) -> bool:
        """Is the call among those that were read?"""
        return self._decoder.holds(call)

    def end(self) -> None:
        """Freeze all: nothing will come any more, since the writer is gone."""
        self._decoder.ended = True
        self._decoder.freeze(final=True)
