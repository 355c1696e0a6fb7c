"""Frames of rows asked of an endpoint, and frames of answers, when a notebook or a job has more rows than one call takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from instar.core.errors import BadInput
from instar.interfaces.sdk.connection import Connection
from instar.interfaces.wire import error_of, moment, plain

if TYPE_CHECKING:
    from instar.serve.clients.batches import Endpoint, Reply, Row

CONNECTIONS = 4
EMPTY = ("prediction", "version", "error")


class Frames(Connection):
    """The part of a client that takes frames."""

    def predict_frame(
        self,
        endpoint: str,
        frame: Any,
        *,
        batch: int | None = None,
        carry: Sequence[str] = (),
        entity: str | None = None,
        key: str | None = None,
        event_time: datetime | None = None,
        table_version: str | None = None,
    ) -> Any:
        """Ask an endpoint for a prediction of each row of a frame, in calls of some hundred rows.

        A row that is refused costs the others nothing: its `error` says why, and its answer is missing.

        Args:
            frame: Of polars or pandas; a column an input, of a tensor model one with lists.
            batch: Rows of a call; default 500.
            carry: Columns that the endpoint does not take and the answers are to have.
            entity: The column that says what a row is about, for the record.
            key, event_time, table_version: As in `predict`, of all rows.

        Returns:
            A frame of the same library, row by row: `carry`, `prediction`, `version`, the outputs (`score`, `decision`), `error`.

        Raises:
            BadInput: The frame has a column that the endpoint does not take, or that is not named here.
            NotFound, Unavailable: As in `predict`.
        """
        from instar.serve.clients.batches import ROWS, Batches, Endpoint

        pandas = hasattr(frame, "iterrows") and not hasattr(frame, "lazy")
        names = [str(name) for name in frame.columns]
        headers = {"instar-key": key} if key is not None else {}
        if event_time is not None:
            headers["instar-event-time"] = moment(event_time)
        path = f"/v2/models/{quote(endpoint, safe='')}"
        about = self._http.get(path)
        if about.status_code != 200:
            raise error_of(about.status_code, about.content)
        takes = Endpoint.of(about.content)
        _prove(names, takes, carry, entity)

        def send(body: bytes, more: Mapping[str, str]) -> Reply:
            return self._call(f"{path}/infer", body, more)

        asker = Batches([send] * CONNECTIONS, takes, headers=headers, table_version=table_version, most=batch or ROWS)
        rows = frame.to_dict("records") if pandas else frame.iter_rows(named=True)
        carried: list[Mapping[str, Any]] = []
        found = []
        for said in asker.ask(_rows(rows, takes, entity, carried if carry else None)):
            kept = {name: carried[said.row.number - 1][name] for name in carry}
            answer = {"prediction": said.prediction or None, "version": said.version, **said.outputs}
            found.append({**kept, **answer, "error": said.error or None})
        columns = list(dict.fromkeys(name for one in found for name in one if name != "error")) or list(EMPTY[:2])
        return _frame(found, [*columns, "error"], pandas)

    def _call(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        from instar.serve.clients.batches import Reply, again_seconds

        with self._reached():
            reply = self._http.post(path, content=body, headers=dict(headers))
        again = again_seconds(reply.headers.get("retry-after"))
        return Reply(reply.status_code, reply.headers.get("instar-call", ""), reply.content, again)


def _prove(names: Sequence[str], takes: Endpoint, carry: Sequence[str], entity: str | None) -> None:
    beside = {*carry, *([entity] if entity is not None else [])}
    missing = beside - set(names)
    if missing:
        raise BadInput("the frame has no such column", found=min(missing), asked=", ".join(names)[:500])
    unknown = [name for name in names if name not in takes.inputs and name not in beside]
    if unknown:
        raise BadInput("the endpoint takes no such input", found=unknown[0], asked=", ".join(takes.inputs)[:500],
                       next_step="Leave the column out, or keep it beside the answers with `carry`.")  # fmt: skip


def _rows(rows: Any, takes: Endpoint, entity: str | None, carried: list[Mapping[str, Any]] | None) -> Iterator[Row]:
    from instar.serve.clients.batches import Row

    for number, row in enumerate(rows, 1):
        if carried is not None:
            carried.append(row)
        values = {name: _plain(value) for name, value in row.items() if name in takes.inputs}
        yield Row(number, values, None if entity is None or row[entity] is None else str(row[entity]))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else plain(value)


def _frame(rows: list[dict[str, Any]], columns: list[str], pandas: bool) -> Any:
    made = {name: [row.get(name) for row in rows] for name in columns}
    if pandas:
        import pandas as pd

        return pd.DataFrame(made)
    import polars as pl

    texts = {"prediction": pl.String, "error": pl.String, "version": pl.Int64}
    return pl.DataFrame(made, schema_overrides=texts, strict=False)
