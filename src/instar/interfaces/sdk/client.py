"""The client of a running server, for applications and notebooks: predictions, their outcomes, what answers, traces, listings.

    with instar.connect() as server:                          # INSTAR_URL, or the server of the project here
        answers = server.predict("delay", [{"distance": 1400.0, "carrier": "UA"}])
        server.post_outcomes([{"prediction": answers[0].id, "value": True}])

Errors of the server are raised as the same classes as inside (`instar.core.errors`). No call is repeated by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from instar.interfaces.sdk.asking import Inference, Prediction, inference_of, predictions_of, rows_body, tensors_body
from instar.interfaces.sdk.bringing import Bringing
from instar.interfaces.sdk.calls import gather
from instar.interfaces.sdk.connection import address_here
from instar.interfaces.sdk.frames import Frames
from instar.interfaces.sdk.records import Records
from instar.interfaces.sdk.traffic import Traffic
from instar.interfaces.wire import Rows, moment, plain

if TYPE_CHECKING:
    import httpx2
    import polars as pl


def connect(
    url: str | None = None, *, project: str | None = None, transport: httpx2.BaseTransport | None = None
) -> Client:
    """A client of the server at `url`.

    Args:
        url: `http://host:port`; default `INSTAR_URL`, then the server that runs on the store of the project here.
        project: Whose tables, runs and models are listed; default the server's own.
        transport: Another way to the server, for tests.

    A token is taken from `INSTAR_TOKEN` or the file that `INSTAR_TOKEN_FILE` names.

    Raises:
        Unavailable: No address is given and no server runs here.
    """
    return Client(url or address_here(), project=project, transport=transport)


class Client(Frames, Bringing, Records):
    """A connection to one server; use it as a context manager, or close it."""

    def predict(
        self,
        endpoint: str,
        rows: Rows | pl.DataFrame,
        *,
        key: str | None = None,
        event_time: datetime | None = None,
        entities: Sequence[str] | None = None,
        table_version: str | None = None,
        request_id: str | None = None,
    ) -> list[Prediction]:
        """Ask an endpoint for predictions, in one call; `predict_frame` takes many rows.

        Args:
            rows: Rows as mappings, columns as sequences, or a DataFrame; NaN counts as missing.
            key: Routing key; calls with the same key fall on the same side of a canary.
            event_time: When it happens in the world, aware; default now.
            entities: What each row is about, and `table_version` where the rows were taken from, for the record.
            request_id: Your own id, echoed and kept.

        Raises:
            RequestError: The rows do not fit the endpoint's signature; says which and why.
            NotFound: There is no such endpoint.
            Unavailable: The server cannot be reached or has no version to answer with.
        """
        named = {"entity": list(entities) if entities is not None else None, "table_version": table_version}
        body = rows_body(rows, self._inputs(endpoint), named, request_id)
        answer, call = self._ask(endpoint, body, key, event_time)
        return predictions_of(call, answer)

    def infer(
        self,
        endpoint: str,
        tensors: Mapping[str, Any],
        *,
        outputs: Sequence[str] | None = None,
        key: str | None = None,
        event_time: datetime | None = None,
        entities: Sequence[str] | None = None,
        table_version: str | None = None,
        request_id: str | None = None,
    ) -> Inference:
        """Ask a tensor model's endpoint, in one call.

        Args:
            tensors: Arrays or nested lists by name; one row may come without the first dimension where that is open.
            outputs: Those wanted, in order; default all.

        The rest, and what is raised, as in `predict`; BadInput for a tensor that the endpoint does not take.
        """
        named = {"entity": list(entities) if entities is not None else None, "table_version": table_version}
        body, headers = tensors_body(tensors, self._inputs(endpoint), named, request_id, outputs)
        answer, call = self._ask(endpoint, body, key, event_time, headers)
        return inference_of(call, answer)

    def post_outcomes(self, outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Report what became of predictions, all or none of them.

        Args:
            outcomes: Each with `prediction` and `value`; if wanted `kind`, `observed_at` and `corrects`.

        Raises:
            MalformedRequest: An id or a value is wrong.
            Conflict: Another value is on the record, and the item does not name what it corrects.
        """
        posted: dict[str, Any] = self._json(
            "POST", "/api/outcomes", {"outcomes": [plain(dict(item)) for item in outcomes]}
        )
        return posted

    def live(self, endpoint: str | None = None, at: datetime | None = None) -> list[dict[str, Any]]:
        """What answers now, or answered at a time, at each endpoint or the one named."""
        query = {"endpoint": endpoint, "at": moment(at) if at is not None else None}
        return self._listing("live", query)

    def trace(self, name: str, *, forward: bool = False) -> dict[str, Any]:
        """The way back from a prediction or record to its causes, or forward to all that it touched."""
        query = {"id": name, "forward": "true" if forward else None}
        return dict(self._json("GET", self._path("trace"), query=query))

    def traffic(self, endpoint: str) -> Traffic:
        """An endpoint's traffic policy, to read and to change."""
        return Traffic(self._send, self._path(f"endpoints/{quote(endpoint, safe='')}"))

    def calls(
        self, *, inputs: Sequence[str] = (), score: Sequence[str] = (), limit: int | None = None, **asked: Any
    ) -> list[dict[str, Any]]:
        """Predictions on the record, newest first: `calls(caller="ada", inputs=["carrier=UA", "distance>1000"])`.

        Args:
            asked: `endpoint`, `caller`, `version`, `status`, `reason`, `key`, `entity`, `request_id`, `since`, `until`.
        """
        place = self._path("calls")
        return gather(lambda query: self._json("GET", place, query=query), inputs, score, limit, asked)

    def _ask(
        self,
        endpoint: str,
        body: dict[str, Any] | bytes,
        key: str | None,
        event_time: datetime | None,
        about: Mapping[str, str] | None = None,
    ) -> tuple[dict[str, Any], str]:
        headers = {**(about or {}), **({"instar-key": key} if key is not None else {})}
        if event_time is not None:
            headers["instar-event-time"] = moment(event_time)
        answer, reply = self._send("POST", f"/v2/models/{quote(endpoint)}/infer", body, headers=headers)
        return answer, reply["instar-call"]

    def _inputs(self, endpoint: str) -> list[dict[str, Any]]:
        # A signature changes with the champion; a datatype that is out of date is refused by name, never misread.
        if endpoint not in self._signatures:
            self._signatures[endpoint] = self._json("GET", f"/v2/models/{quote(endpoint)}")["inputs"]
        return self._signatures[endpoint]
