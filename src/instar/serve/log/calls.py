"""The prediction log: every call of an endpoint as rows, read by monitors, rollouts, traces and reports after the fact.

What gateways have written in segments and what was sealed into a Delta table are one log here. The catalogue says which
segments are sealed; one look at it decides, for each reading, where each segment is read.

    log = CallLog(store)
    log.read("delay", since=yesterday, until=now)     # one row per prediction, in order of event time
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from instar.core.errors import MalformedRequest, NotFound
from instar.core.ids import CallId, parse_call_id, parse_prediction_id
from instar.core.store import Store
from instar.serve.log import aligning, catalogue, decoding, layout, record, segments
from instar.serve.log.catalogue import Sealed, Unit
from instar.serve.log.reading import Reader
from instar.serve.traffic import routing

CACHED_ROWS = 1_000_000  # of sealed segments kept decoded; the oldest segments go first, and are read from Delta again

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def calls_folder(store_folder: Path) -> Path:
    """Where gateways write segments."""
    return store_folder / "calls"


class CallLog:
    """The log of all endpoints of a store. Keeps what it has decoded; may be shared between threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._calls = calls_folder(store.folder)
        self._readers: dict[str, Reader] = {}
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
        try:
            return self._read(endpoint, since, until)
        except FileNotFoundError:
            # Files that the catalogue names go only after a grace, but for an erasure, which waits for no reader: the
            # catalogue names others now.
            return self._read(endpoint, since, until)

    def _read(self, endpoint: str, since: datetime | None, until: datetime | None) -> pl.DataFrame:
        first, last = _microseconds(since), _microseconds(until)
        with self._lock:
            sealed = self._sealed(endpoint)
            units = catalogue.units(self._store, endpoint=endpoint, since=since, until=until)
            readers = self._refresh(endpoint, sealed)
            # What was erased, or is kept no longer, is not read from what was decoded before.
            lost = {name for unit in units if unit.lost for name in unit.segments}
            readers = [reader for reader in readers if reader.name.id not in lost]
            for name in lost.intersection(self._readers):
                del self._readers[name]
            frames = [frame for reader in readers for frame in reader.frames(first, last)]
            decoded = {reader.name.id for reader in readers}
        for unit in units:
            if not decoded.issuperset(unit.segments):
                frames.append(self._rows(unit, _within(since, until, decoded.intersection(unit.segments))))
        return aligning.align(frames)

    def find(self, prediction: str) -> dict[str, Any]:
        """One prediction as a mapping of the columns of `read`.

        The catalogue says which file can hold it, so that of all sealed calls one file is opened, and of that one group of rows.

        Args:
            prediction: A prediction id, or a call id, which means its row 0.

        Raises:
            MalformedRequest: It is neither.
            NotFound: No call of that id is in the log, or it has fewer rows.
        """
        call, row = (prediction, 0) if "/" not in prediction else parse_prediction_id(prediction)
        found = self._call(call).filter(pl.col("row") == row)
        if found.height:
            return found.row(0, named=True)
        raise NotFound(
            "no such prediction is in the log",
            subject=f"prediction {prediction}",
            next_step="Take the id from the header Instar-Call of an answer.",
        )

    def seen(self, call_id: str) -> bool:
        """Is the call in the log? Quick for calls of late; a malformed id is not in it."""
        return self.endpoint_of(call_id) is not None

    def endpoint_of(self, call_id: str) -> str | None:
        """The endpoint that took the call; None when it is not in the log. As quick as `seen`."""
        call = call_id.split("/", 1)[0]
        try:
            place = parse_call_id(call)
        except MalformedRequest:
            return None
        with self._lock:
            found = self._held(call, place)
            if found is None:
                self._refresh(None, self._sealed(None))
                found = self._held(call, place)
        if found is not None:
            return found
        units = catalogue.units(self._store, call=call)
        return next((one.endpoint for one in units if self._rows(one, pl.col("call") == call).height), None)

    def _call(self, call: str) -> pl.DataFrame:
        """Rows of one call, wherever it lies; none where it is nowhere."""
        place = parse_call_id(call)
        names = segments.list_segments(self._calls, boot=place.boot)
        sealed = catalogue.sealed(self._store, (name.id for name in names))
        for unit in catalogue.units(self._store, call=call):
            rows = self._rows(unit, pl.col("call") == call)
            if rows.height:
                return rows
        for name in names:
            if name.id not in sealed and (frames := segments.frames_of(name.path(self._calls), call)):
                return decoding.decode(name, frames).filter(pl.col("call") == call)
        return aligning.empty()

    def endpoints(self) -> list[str]:
        """Endpoints that were ever called."""
        named = {endpoint for _, endpoint in catalogue.tables(self._store)}
        return sorted(named | {name.endpoint for name in segments.list_segments(self._calls)})

    def endpoints_of(self, project: str) -> list[str]:
        """Endpoints of one project that were ever called; a call before there was a route is of a project of its name."""
        sealed = {endpoint: owner for owner, endpoint in catalogue.tables(self._store)}
        routed = {one.policy.endpoint: one.policy.project for one in routing.endpoints(self._store)}
        return [one for one in self.endpoints() if (routed | sealed).get(one, one) == project]

    def unsealed(
        self, endpoint: str, since: datetime | None = None, until: datetime | None = None
    ) -> list[pl.DataFrame]:
        """Rows of segments that are not sealed, with event time in [since, until)."""
        first, last = _microseconds(since), _microseconds(until)
        with self._lock:
            sealed = self._sealed(endpoint)
            readers = [one for one in self._refresh(endpoint, sealed) if one.name.id not in sealed]
            return [frame for reader in readers for frame in reader.frames(first, last)]

    def skipped(self, endpoint: str) -> list[tuple[segments.SegmentName, list[record.Skipped]]]:
        """Counts of calls without an entry of their own in segments that are not sealed."""
        with self._lock:
            sealed = self._sealed(endpoint)
            readers = self._refresh(endpoint, sealed)
            return [(one.name, list(one.skipped)) for one in readers if one.name.id not in sealed and one.skipped]

    def _held(self, call: str, place: CallId) -> str | None:
        """The endpoint of a call among those that are held decoded."""
        for reader in self._readers.values():
            if reader.name.boot == place.boot and reader.holds(call):
                return reader.name.endpoint
        return None

    def _sealed(self, endpoint: str | None) -> dict[str, Sealed]:
        """Those of the segments on disk, or held decoded, that are sealed: asked before the units, which then have them all."""
        names = {name.id for name in segments.list_segments(self._calls, endpoint)}
        names |= {id_ for id_, reader in self._readers.items() if endpoint in (None, reader.name.endpoint)}
        return catalogue.sealed(self._store, names)

    def _refresh(self, endpoint: str | None, sealed: Mapping[str, Sealed]) -> list[Reader]:
        """Readers of all segments that are read from their files, or still held decoded, brought up to date."""
        for name in segments.list_segments(self._calls, endpoint):
            # A segment that was sealed before we ever read it is read from Delta.
            if name.id not in self._readers and name.id not in sealed:
                self._readers[name.id] = Reader(name, name.path(self._calls))
        for id_, one in sealed.items():
            if one.gaps or one.state == catalogue.DROPPED:
                self._readers.pop(
                    id_, None
                )  # of a damaged file sealing read more than we do; of a dropped one nothing stays
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

    def _rows(self, unit: Unit, which: pl.Expr | None) -> pl.DataFrame:
        """Rows of a unit, as those of the log."""
        path = catalogue.tables_folder(self._store.folder, unit.project) / unit.rows_path
        scan = pl.scan_parquet(path)
        scan = scan.select(pl.exclude("frames", "prediction", "endpoint"))
        return layout.logged((scan if which is None else scan.filter(which)).collect(), unit.endpoint)


def _within(since: datetime | None, until: datetime | None, decoded: Set[str]) -> pl.Expr | None:
    conditions = [pl.col("at") >= since] if since is not None else []
    conditions += [pl.col("at") < until] if until is not None else []
    conditions += [~pl.col("segment").is_in(sorted(decoded))] if decoded else []
    return pl.all_horizontal(conditions) if conditions else None


def _microseconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
