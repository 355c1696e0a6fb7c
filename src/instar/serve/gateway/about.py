"""What a gateway says of itself and of its endpoints, as the Open Inference Protocol V2 has it: health, metadata, index, OpenAPI.

status, body = about(board, entrance, "GET", "/v2/models/delay", headers)
"""

from __future__ import annotations

import msgspec

from instar.core.errors import MalformedRequest, NotFound
from instar.serve.access.entrance import Entrance
from instar.serve.access.keyring import Headers, Pass
from instar.serve.gateway import openapi
from instar.serve.gateway.intake import version_of
from instar.serve.gateway.switchboard import Switchboard
from instar.serve.gateway.ways import Endpoint, Way
from instar.serve.protocol import replies
from instar.serve.protocol.forms.invocations import MLFLOW_VERSION

EXTENSIONS = ("binary_tensor_data", "model_repository")

Said = tuple[int, bytes, list[tuple[bytes, bytes]]]  # status, JSON body and further headers

_encoder = msgspec.json.Encoder()


class About:
    """Answers questions about one gateway."""

    def __init__(self, board: Switchboard, entrance: Entrance) -> None:
        self._board = board
        self._entrance = entrance

    def __call__(self, method: str, path: str, headers: Headers, body: bytes = b"") -> Said:
        """The answer to a request that asks for no prediction.

        Raises:
            NotFound: There is no such route or endpoint.
            Unauthenticated, NotAllowed, TooManyCalls: The caller is turned away.
            MalformedRequest: The body of a question about the repository is none.
        """
        parts = [part for part in path.split("/")[2:] if part]
        if parts == ["repository", "index"]:
            held = self._entrance.enter(headers, method, path)
            if method != "POST":
                return _other_method(b"POST")
            return 200, self._index(held, body), []
        if parts[:2] == ["repository", "models"] and len(parts) == 4 and parts[3] in ("load", "unload"):
            return self._load(headers, method, path, parts[2])
        if method not in ("GET", "HEAD"):
            self._entrance.enter(headers, method, path)
            if not self._known(parts):
                raise NotFound("there is no such route", subject=f"{method} {path[:200]}")
            return _other_method(b"GET, HEAD")
        match parts:
            case ["health", "live"]:
                return _yes("live", True)
            case ["health", "ready"]:
                return _yes("ready", self._board.snapshot.number > 0 and self._board.ready())
        held = self._entrance.enter(headers, method, path)
        match parts:
            case []:
                return 200, self._server(held), []
            case ["openapi.json"]:
                return 200, _encoder.encode(openapi.of_server(self._seen(held))), []
            case ["models", name, *rest]:
                return self._model(self._endpoint(held, method, path, name), rest)
            case _:
                raise NotFound("there is no such route", subject=path[:200])

    def _model(self, endpoint: Endpoint, rest: list[str]) -> Said:
        version: int | None = None
        match rest:
            case ["versions", number, *more]:
                version, rest = version_of(endpoint, number), more
        way = endpoint.champion if version is None else endpoint.pinned[version]
        match rest:
            case []:
                versions = [str(version)] if version is not None else [str(v) for v in endpoint.policy.versions]
                body = replies.metadata(
                    endpoint.name, versions, endpoint.signature, endpoint.decides, endpoint.state(version)
                )
                return 200, body, []
            case ["ready"]:
                return _ready(endpoint, way)
            case ["openapi.json"] if version is None:
                return 200, _encoder.encode(openapi.of_endpoint(endpoint)), []
            case _:
                raise NotFound("there is no such route", subject=f"endpoint {endpoint.name}")

    def scoring(self, method: str, path: str, headers: Headers) -> tuple[int, bytes]:
        """What MLflow's scoring server says at `ping`, `health` and `version`, of one endpoint, or of all at the root.

        Args:
            path: As `is_scoring` knows it.

        Raises:
            NotFound: There is no such endpoint.
            Unauthenticated, NotAllowed, TooManyCalls: The caller is turned away.
            MalformedRequest: Another method than GET.
        """
        if method not in ("GET", "HEAD"):
            raise MalformedRequest("there is no such method here", found=method[:20], asked="GET")
        parts = path.split("/")
        if path == "/ping":
            return (200 if self._board.snapshot.number > 0 and self._board.ready() else 503), b"\n"
        endpoint = self._endpoint(self._entrance.enter(headers, method, path), method, path, parts[2])
        if parts[3] == "version":
            return 200, MLFLOW_VERSION.encode()
        return _ready(endpoint, endpoint.champion)[0], b"\n"

    def _endpoint(self, held: Pass, method: str, path: str, name: str) -> Endpoint:
        endpoint = self._board.endpoints.get(name)
        if endpoint is None:
            raise NotFound(
                "there is no such endpoint",
                subject=f"endpoint {name[:100]}",
                next_step="GET /v2 lists the endpoints.",
            )
        self._entrance.require_sight(held, method, path, name, endpoint.policy.project)
        return endpoint

    def _load(self, headers: Headers, method: str, path: str, name: str) -> Said:
        """Models are loaded when they are asked, so nobody loads one by hand: said, and not done in silence."""
        held = self._entrance.enter(headers, method, path)
        if method != "POST":
            return _other_method(b"POST")
        self._endpoint(held, method, path, name)
        raise MalformedRequest(
            "no model is loaded or unloaded by hand: the endpoint's policy says which versions answer, and a version is "
            "loaded when it is asked",
            subject=f"endpoint {name}",
            next_step="Change what answers with `instar promote` or `instar route`; `reserve = true` keeps it loaded.",
        )

    def _seen(self, held: Pass) -> list[Endpoint]:
        board = self._board.endpoints
        return [board[n] for n in sorted(board) if self._entrance.sees(held, n, board[n].policy.project)]

    def _server(self, held: Pass) -> bytes:
        names = [endpoint.name for endpoint in self._seen(held)]
        return _encoder.encode({"name": "instar", "version": "2", "extensions": EXTENSIONS, "endpoints": names})

    def _index(self, held: Pass, body: bytes) -> bytes:
        """Versions that can be asked by name, as the repository extension lists them."""
        try:
            wanted = msgspec.json.decode(body or b"{}", type=dict[str, object])
        except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
            raise MalformedRequest(f"the body is no JSON object: {wrong}", subject="$") from None
        found = []
        for endpoint in self._seen(held):
            for version, way in endpoint.pinned.items():
                problem = way.first.line.problem
                if problem is None or not wanted.get("ready"):
                    state = "READY" if problem is None else "UNAVAILABLE"
                    found.append(
                        {"name": endpoint.name, "version": str(version), "state": state, "reason": problem or ""}
                    )
        return _encoder.encode(found)

    def _known(self, parts: list[str]) -> bool:
        match parts:
            case [] | ["health", "live" | "ready"] | ["openapi.json"]:
                return True
            case ["models", name, *_]:
                return name in self._board.endpoints
            case _:
                return False


def is_scoring(path: str) -> bool:
    """Whether a path asks what MLflow's scoring server is asked beside predictions."""
    parts = path.split("/")
    return path == "/ping" or (
        len(parts) == 4 and parts[1] == "endpoints" and parts[3] in ("ping", "health", "version")
    )


def _yes(name: str, holds: bool) -> Said:
    return 200 if holds else 503, _encoder.encode({name: holds}), []


def _ready(endpoint: Endpoint, way: Way | None) -> Said:
    """Whether a version answers, and why not where it does not."""
    if way is None:
        return 503, _encoder.encode({"ready": False, "error": "there is no champion"}), []
    why = "its environment is being built" if way.version in endpoint.building else way.first.line.problem
    if why is None:
        return 200, _encoder.encode({"ready": True}), []
    return 503, _encoder.encode({"ready": False, "error": why}), []


def _other_method(allowed: bytes) -> Said:
    problem = MalformedRequest("there is no such method here", asked=allowed.decode())
    return 405, replies.encode_error(problem), [(b"allow", allowed)]
