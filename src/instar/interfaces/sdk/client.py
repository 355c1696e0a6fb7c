"""The client of a running server, for applications and notebooks: predictions, their outcomes, what answers, traces, listings.

    with instar.connect() as server:                          # INSTAR_URL, or the server of the project here
        answers = server.predict("delay", [{"distance": 1400.0, "carrier": "UA"}])
        server.post_outcomes([{"prediction": answers[0].id, "value": True}])

Errors of the server are raised as the same classes as inside (`instar.core.errors`). No call is repeated by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from instar.core.errors import BadInput, Unavailable
from instar.core.settings import read_settings
from instar.interfaces.sdk.asking import Inference, Prediction, inference_of, predictions_of, rows_body, tensors_body
from instar.interfaces.sdk.calls import gather
from instar.interfaces.sdk.frames import Frames
from instar.interfaces.sdk.proof import authorization
from instar.interfaces.sdk.traffic import Traffic
from instar.interfaces.wire import Rows, error_of, moment, plain

if TYPE_CHECKING:
    import httpx2
    import polars as pl

TIMEOUT_SECONDS = 60.0
A_PAGE = 1000  # of a listing that is read whole
UNASKED = 100  # runs, where neither a number nor a search is given


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


class Client(Frames):
    """A connection to one server; use it as a context manager, or close it."""

    def __init__(self, url: str, *, project: str | None = None, transport: httpx2.BaseTransport | None = None) -> None:
        import httpx2

        if not url.startswith(("http://", "https://")):
            raise BadInput("that is no address of a server", found=repr(url), asked="http://host:port")
        self.url = url.rstrip("/")
        self._project = project
        self._http = httpx2.Client(
            base_url=self.url, transport=transport, timeout=TIMEOUT_SECONDS, headers=authorization(self.url)
        )
        self._signatures: dict[str, list[dict[str, Any]]] = {}

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

    def tables(self) -> list[dict[str, Any]]:
        """The newest version of each table."""
        return self._listing("tables")

    def runs(
        self,
        *,
        experiment: str | None = None,
        filter: str = "",
        order_by: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Runs, the newest first, or those that pass a search.

        Args:
            experiment: Only runs of the experiment of that name.
            filter: In MLflow's language and beyond, e.g. `"metrics.loss < 0.5 AND params.depth = '6'"`.
            order_by: Keys such as `"metrics.loss ASC"`.
            limit: At most so many; default all that pass a search, and 100 without one.

        Raises:
            BadInput: The filter or a key cannot be read.
        """
        if limit is None and not filter and not order_by:
            limit = UNASKED
        query = {"experiment": experiment, "filter": filter or None, "order_by": list(order_by) or None}
        return self._pages("search/runs", "runs", query, limit)

    def run(self, run: str) -> dict[str, Any]:
        """One run; the beginning of its id is enough.

        Raises:
            NotFound: There is no such run.
        """
        return dict(self._json("GET", self._path(f"runs/{quote(run, safe='')}")))

    def reproductions(self, run: str) -> list[dict[str, Any]]:
        """Verdicts of those who made a run again, the newest first: who, when, and the first cause where it differs.

        Raises:
            NotFound: There is no such run.
        """
        return list(self._json("GET", self._path(f"runs/{quote(run, safe='')}/reproductions"))["reproductions"])

    def history(self, run: str, metric: str) -> list[dict[str, Any]]:
        """All values of one metric of a run, by step: `step`, `value` (None is no number), `at`."""
        place = f"runs/{quote(run, safe='')}/history/{quote(metric, safe='')}"
        return self._pages(place, "values", {}, None)

    def artifacts(self, run: str) -> list[dict[str, Any]]:
        """All files of a run: `path`, `size` in bytes, `blob`."""
        return list(self._json("GET", self._path(f"runs/{quote(run, safe='')}/artifacts"))["artifacts"])

    def download(self, run: str, path: str, to: str | Path) -> Path:
        """Write a file of a run to `to`, a file or a folder that is there; streamed. Returns where it is.

        Raises:
            NotFound: There is no such run or file.
        """
        target = Path(to) / path.rsplit("/", 1)[-1] if Path(to).is_dir() else Path(to)
        place = self._path(f"runs/{quote(run, safe='')}/artifacts/{quote(path)}")
        with self._reached(), self._http.stream("GET", place) as reply:
            if reply.status_code >= 400:
                raise error_of(reply.status_code, reply.read())
            with target.open("wb") as file:
                for block in reply.iter_bytes():
                    file.write(block)
        return target

    def experiments(self, *, filter: str = "", order_by: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Experiments of the project, or those that pass a search."""
        query = {"filter": filter or None, "order_by": list(order_by) or None}
        return self._pages("experiments", "experiments", query, None)

    def move_experiment(self, experiment: str, to: str, *, name: str | None = None) -> dict[str, Any]:
        """Move an experiment with all its runs to another project; ids stay.

        Args:
            experiment: Its id, or its name in this project.
            to: The project to which it goes.
            name: Its name there; the same by default.

        Raises:
            NotFound: There is no such experiment in this project.
            Conflict: It is deleted, or the name is taken there.
            BadInput: That cannot be the name of a project, or of an experiment.
        """
        found = [one["id"] for one in self.experiments() if experiment in (one["id"], one["name"])]
        place = self._path(f"experiments/{quote(found[0] if found else experiment, safe='')}/move")
        return dict(self._json("POST", place, {"project": to, "name": name}))

    def notes(self, subject: str | None = None) -> list[dict[str, Any]]:
        """Notes on a record (a run's id, `table@3`, `model@2`, a table, a model), or the newest of the project."""
        return self._listing("notes", {"subject": subject})

    def add_note(self, subject: str, text: str) -> dict[str, Any]:
        """Write a note on a record.

        Raises:
            NotFound: Nothing has that name.
        """
        return dict(self._json("POST", self._path("notes"), {"subject": subject, "text": text}))

    def models(self) -> list[dict[str, Any]]:
        """Registered models and their versions."""
        return self._listing("models")

    @property
    def project(self) -> str:
        """The project whose records are listed; the server's own unless another was named."""
        if self._project is None:
            self._project = str(self._json("GET", "/api/projects")["own"])
        return self._project

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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

    def _path(self, what: str) -> str:
        return f"/api/projects/{quote(self.project)}/{what}"

    def _listing(self, what: str, query: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        found = self._json("GET", self._path(what), query=query)
        return list(found[what]) if isinstance(found, dict) else list(found)

    def _pages(self, place: str, what: str, query: Mapping[str, Any], limit: int | None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        token = None
        while True:
            size = A_PAGE if limit is None else min(A_PAGE, limit - len(found))
            page = self._json("GET", self._path(place), query={**query, "limit": size, "token": token})
            found += page[what]
            token = page["next"]
            if token is None or (limit is not None and len(found) >= limit):
                return found

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask any route of the API; `GET /api/openapi.json` lists them.

        Raises:
            InstarError: What the server refuses, as the class that it raised.
        """
        return self._json(method, path, body)

    def _json(self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None) -> Any:
        return self._send(method, path, body, query)[0]

    def _send(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[Any, Mapping[str, str]]:
        asked = {name: value for name, value in (query or {}).items() if value is not None}
        sent = {"accept": "application/json", **(headers or {})}
        content = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        if content is not None:
            sent.setdefault("content-type", "application/json")
        with self._reached():
            reply = self._http.request(method, path, params=asked, headers=sent, content=content)
        if reply.status_code >= 400:
            raise error_of(reply.status_code, reply.content)
        try:
            return msgspec.json.decode(reply.content), reply.headers
        except msgspec.DecodeError as error:
            raise Unavailable("that server does not speak as Instar does", subject=self.url) from error

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """What the network says, in our words."""
        import httpx2

        try:
            yield
        except httpx2.HTTPError as error:
            raise Unavailable(
                "the server cannot be reached",
                subject=self.url,
                found=str(error) or type(error).__name__,
                next_step="Start it: `instar up`.",
            ) from error


def address_here(start: Path | None = None) -> str:
    """`INSTAR_URL`, or the server that runs on the store of the project in which `start` (default: this folder) lies,
    or of that folder itself.

    Raises:
        Unavailable: Neither is there.
    """
    from instar.plan.project import find_root_if_any
    from instar.serve.root.process import running

    settings = read_settings()
    if settings.url:
        return settings.url
    start = start or Path.cwd()
    server = running(settings.store_folder(find_root_if_any(start) or start))
    if server is None:
        raise Unavailable(
            "no server runs on the store here", next_step="Start it: `instar up`; or name one: INSTAR_URL."
        )
    return server.url
