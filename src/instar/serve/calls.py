"""The prediction log: every call of an endpoint as rows, read by monitors, rollouts, traces and reports after the fact.

What gateways have written in segments and what was sealed into a Delta table are one log here. The catalogue says which
segments are sealed; one look at it decides, for each reading, where each segment is read.

    log = CallLog(store)
    log.read("delay", since=yesterday, until=now)     # one row per prediction, in order of event time
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa

from instar.core.database import Instant, Json, metadata
from instar.core.errors import MalformedRequest, NotFound
from instar.core.ids import CallId, parse_call_id, parse_prediction_id
from instar.core.store import Store
from instar.serve import decoding, prediction_rows, segments

# The catalogue: which segments are sealed, where, and what they hold.
segment = sa.Table(
    "segment",
    metadata,
    sa.Column("id", sa.String(160), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False, index=True),
    sa.Column("endpoint", sa.String(100), nullable=False, index=True),
    sa.Column("boot", sa.BigInteger, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("first_call", sa.String(40), nullable=False),
    sa.Column("last_call", sa.String(40), nullable=False),
    sa.Column("first_at", Instant, nullable=False),
    sa.Column("last_at", Instant, nullable=False),
    sa.Column("calls", sa.BigInteger, nullable=False),
    sa.Column("predictions", sa.BigInteger, nullable=False),
    sa.Column("frames", sa.BigInteger, nullable=False),
    sa.Column("delta_version", sa.BigInteger, nullable=False),
    sa.Column("files", Json, nullable=False),
    sa.Column("root", sa.String(80), nullable=False),
    sa.Column("chain", sa.String(80), nullable=False),
    sa.Column("sealed_at", Instant, nullable=False),
)

CACHED_ROWS = 1_000_000  # of sealed segments kept decoded; the oldest segments go first, and are read from Delta again

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Sealed:
    """A sealed segment, as the catalogue has it.

    Attributes:
        first_call, last_call: Smallest and largest call id in it.
        first_at, last_at: Event times between which its calls lie.
        files: Digest by path of the Delta table's files that hold it.
        root: Merkle root over its frames; `chain` adds the chain of the segment before it in that boot.
    """

    id: str
    project: str
    endpoint: str
    boot: int
    number: int
    first_call: str
    last_call: str
    first_at: datetime
    last_at: datetime
    calls: int
    predictions: int
    frames: int
    delta_version: int
    files: Mapping[str, str]
    root: str
    chain: str
    sealed_at: datetime


def calls_folder(store_folder: Path) -> Path:
    """Where gateways write segments."""
    return store_folder / "calls"


def table_folder(store_folder: Path, project: str, endpoint: str) -> Path:
    """The Delta table of an endpoint's sealed calls."""
    return store_folder / "tables" / project / f"{endpoint}__predictions"


def catalogue(store: Store, endpoint: str | None = None) -> dict[str, Sealed]:
    """Sealed segments by id."""
    query = sa.select(segment).where(segment.c.state == "sealed").order_by(segment.c.id)
    if endpoint is not None:
        query = query.where(segment.c.endpoint == endpoint)
    names = Sealed.__dataclass_fields__
    with store.database.read() as tx:
        rows = [row._mapping for row in tx.execute(query)]
    return {row["id"]: Sealed(**{name: row[name] for name in names}) for row in rows}


class CallLog:
    """The log of all endpoints of a store. Keeps what it has decoded; may be shared between threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._calls = calls_folder(store.folder)
        self._readers: dict[str, decoding.Reader] = {}
        self._lock = threading.Lock()

    def read(self, endpoint: str, since: datetime | None = None, until: datetime | None = None) -> pl.DataFrame:
        """Predictions with event time in [since, until), in order of event time.

        Returns:
            One row per prediction. `prediction`, `call`, `row`, `at` (event time), `recorded_at`, `caller`, `endpoint`,
            `policy` (revision number), `reason` (`champion`, `canary`, `pinned`), `key` (routing key), `version` (which
            answered), `score`, `decision`, `threshold`, `status`, `latency_us`, `entity`, `table_version`, `request_id`,
            `fallback`, `error`, `inputs` (struct of columns) and `answers`: a list of what each version said, the
            returned one among them, as struct of `version`, `role`, `score`, `decision`, `threshold`, `error` and, for a
            tensor model's version that was not returned, `outputs` (JSON).

            Of a tensor model `inputs` and a further column `outputs` hold a struct by tensor: `shape`, `data` (row by row,
            without nesting), and for what was sampled `tail`, `digest` and `size` in bytes. `score` is null unless the
            model has an output `score` or `probability` with one float a row.

            A failed call is one row with row number 0, its status and error, the version that it was routed to, and no
            score, decision or answers.
        """
        first, last = _microseconds(since), _microseconds(until)
        with self._lock:
            sealed = catalogue(self._store, endpoint)
            readers = self._refresh(endpoint, sealed)
            frames = [frame for reader in readers for frame in reader.frames(first, last)]
            decoded = {reader.name.id for reader in readers}
        apart = [
            one
            for name, one in sealed.items()
            if name not in decoded
            and (since is None or one.last_at >= since)
            and (until is None or one.first_at < until)
        ]
        if apart:
            frames.append(self._from_delta(apart, since, until))
        return decoding.align(frames)

    def find(self, prediction: str) -> dict[str, Any]:
        """One prediction as a mapping of the columns of `read`.

        Args:
            prediction: A prediction id, or a call id, which means its row 0.

        Raises:
            MalformedRequest: It is neither.
            NotFound: No call of that id is in the log, or it has fewer rows.
        """
        call, row = (prediction, 0) if "/" not in prediction else parse_prediction_id(prediction)
        place = parse_call_id(call)
        match = (pl.col("call") == call) & (pl.col("row") == row)
        with self._lock:
            sealed = catalogue(self._store)
            for reader in self._refresh(None, sealed):
                if reader.name.boot == place.boot and reader.calls.get(place.sequence) == place.milliseconds:
                    for frame in reader.frames(None, None):
                        found = frame.filter(match)
                        if found.height:
                            return found.row(0, named=True)
            decoded = {name for name, reader in self._readers.items() if reader.chunks}
        for one in sealed.values():
            if one.id not in decoded and one.boot == place.boot and one.first_call <= call <= one.last_call:
                found = self._scan(one).filter(match).collect()
                if found.height:
                    return decoding.align([_columns(found)]).row(0, named=True)
        raise NotFound(
            "no such prediction is in the log",
            subject=f"prediction {prediction}",
            next_step="Take the id from the header Instar-Call of an answer.",
        )

    def seen(self, call_id: str) -> bool:
        """Is the call in the log? Quick for calls of late; a malformed id is not in it."""
        try:
            place = parse_call_id(call_id.split("/", 1)[0])
        except MalformedRequest:
            return False
        with self._lock:
            if self._has(place):
                return True
            sealed = catalogue(self._store)
            self._refresh(None, sealed)
            if self._has(place):
                return True
        call = call_id.split("/", 1)[0]
        for one in sealed.values():
            if one.boot == place.boot and one.first_call <= call <= one.last_call and one.id not in self._readers:
                with self._lock:
                    known = self._scan(one).select("call").unique().collect()["call"]
                    if call in known:
                        return True
        return False

    def endpoints(self) -> list[str]:
        """Endpoints that were ever called."""
        named = {one.endpoint for one in catalogue(self._store).values()}
        return sorted(named | {name.endpoint for name in segments.list_segments(self._calls)})

    def _has(self, place: CallId) -> bool:
        return any(
            reader.name.boot == place.boot and reader.calls.get(place.sequence) == place.milliseconds
            for reader in self._readers.values()
        )

    def _refresh(self, endpoint: str | None, sealed: Mapping[str, Sealed]) -> list[decoding.Reader]:
        """Readers of all segments that are read from their files, or still held decoded, brought up to date."""
        for name in segments.list_segments(self._calls, endpoint):
            # A segment that was sealed before we ever read it is read from Delta.
            if name.id not in self._readers and name.id not in sealed:
                self._readers[name.id] = decoding.Reader(name, name.path(self._calls))
        readers = [r for r in self._readers.values() if endpoint is None or r.name.endpoint == endpoint]
        for reader in readers:
            reader.refresh()
            if not reader.ended and reader.name.id in sealed:
                if reader.name.path(self._calls).exists():
                    reader.end()  # its gateway was killed: what is there is all
                else:
                    del self._readers[reader.name.id]  # sealed and gone since we last looked: Delta has the rest
        self._let_go(sealed)
        return [reader for reader in readers if reader.name.id in self._readers]

    def _let_go(self, sealed: Mapping[str, Sealed]) -> None:
        held = sum(chunk.frame.height for reader in self._readers.values() for chunk in reader.chunks)
        for name in sorted(
            self._readers, key=lambda name: min((c.first for c in self._readers[name].chunks), default=0)
        ):
            if held <= CACHED_ROWS:
                return
            if name in sealed:
                held -= sum(chunk.frame.height for chunk in self._readers[name].chunks)
                del self._readers[name]

    def _from_delta(self, apart: list[Sealed], since: datetime | None, until: datetime | None) -> pl.DataFrame:
        frames = []
        for one in apart:
            rows = self._scan(one)
            if since is not None:
                rows = rows.filter(pl.col("at") >= since)
            if until is not None:
                rows = rows.filter(pl.col("at") < until)
            frames.append(_columns(rows.collect()))
        return decoding.align(frames)

    def _scan(self, one: Sealed) -> pl.LazyFrame:
        folder = table_folder(self._store.folder, one.project, one.endpoint)
        return pl.scan_parquet([folder / file for file in one.files])


def _columns(sealed: pl.DataFrame) -> pl.DataFrame:
    """Of a sealed segment the columns of the log."""
    return sealed.select(name for name in (*prediction_rows.SCHEMA, prediction_rows.OUTPUTS) if name in sealed.columns)


def _microseconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
