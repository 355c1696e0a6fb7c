"""The second port of a gateway: the Open Inference Protocol V2 over gRPC, while a server is up with `--grpc-port`.

Calls go the way of all others: the same entrance, route, worker and record. Each gateway listens on the same port; the kernel
shares connections out. What gRPC calls a deadline is the call's, and metadata are its headers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from instar.core.errors import InstarError, Unavailable
from instar.core.settings import Settings
from instar.serve.access.certificates import Certificate
from instar.serve.gateway.flight import Fields, Respond
from instar.serve.protocol import grpc_tensors, v2_json
from instar.serve.protocol.grpc_messages import HEALTH_PACKAGE, HEALTH_SERVICE, PACKAGE, SERVICE, message
from instar.serve.protocol.places import Place

ANSWER_LIMIT_BYTES = 256 * 1024 * 1024
GRACE_SECONDS = 25.0  # for calls in flight when the server ends
STREAMS = 256  # calls of one connection at once; more wait at the client
# As long as a body may take before its size counts, for a whole message: how much has come is not told.
MESSAGE_TIMES = 6.0
ALIVE_SECONDS = 60  # after which a connection that says nothing is asked whether it is there
ANSWER_SECONDS = 20  # for it to say so; then it is hung up
LONGEST_SECONDS = 600.0
SERVING, NOT_SERVING = 1, 2

# A call in gRPC is a POST of HTTP/2: `grpc` is how permissions and refusals name it.
RULE = "/inference.GRPCInferenceService/ModelInfer"
_CODES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT", 415: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}  # fmt: skip

# What this port says itself of a call: a message has one form, and gRPC packs it.
_OWN = frozenset({
    b"host", b"content-type", b"inference-header-content-length", b"instar-timeout", b"accept", b"accept-encoding",
    b"content-encoding",
})  # fmt: skip

Headers = list[tuple[bytes, bytes]]


class Gateway(Protocol):
    """What is asked of a gateway."""

    def take(
        self, place: Place, headers: Headers, body: bytes | None, length: int, respond: Respond,
        problem: InstarError | None = None,
    ) -> None:  # fmt: skip
        """Take a call, or keep one that cannot be answered."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer any other request."""


class GrpcPort:
    """The port of one gateway.

    Args:
        address: Host and port.
        settings: How many calls may be there at once, how long a message may take to come, and by which certificate.
    """

    def __init__(self, gateway: Gateway, address: str, settings: Settings) -> None:
        self._gateway = gateway
        self._address = address
        self._certificate = Certificate.of(settings)
        self._most_calls = settings.most_calls
        self._message_seconds = settings.body_seconds * MESSAGE_TIMES
        self._server: Any = None

    async def start(self) -> None:
        """Listen.

        Raises:
            Unavailable: The library is not installed, or the port is taken.
        """
        try:
            import grpc
        except ImportError:
            raise Unavailable(
                "gRPC is not installed", subject=f"port {self._address}", next_step="pip install 'instar[grpc]'"
            ) from None
        options = [
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", v2_json.BODY_LIMIT_BYTES + 64 * 1024),
            ("grpc.max_send_message_length", ANSWER_LIMIT_BYTES),
            ("grpc.max_concurrent_streams", STREAMS),
            ("grpc.keepalive_time_ms", ALIVE_SECONDS * 1000),
            ("grpc.keepalive_timeout_ms", ANSWER_SECONDS * 1000),
        ]
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=self._most_calls)
        self._server.add_generic_rpc_handlers((self._service(grpc), self._health(grpc)))
        try:
            if self._certificate is None:
                self._server.add_insecure_port(self._address)
            else:
                credentials = grpc.ssl_server_credentials([self._certificate.pair()])
                self._server.add_secure_port(self._address, credentials)
        except RuntimeError as problem:
            raise Unavailable(f"the port cannot be opened: {problem}", subject=self._address) from None
        await self._server.start()

    async def stop(self) -> None:
        """Take no more calls, and wait for those in flight."""
        if self._server is not None:
            await self._server.stop(GRACE_SECONDS)

    def _service(self, grpc: Any) -> Any:
        methods = {
            "ServerLive": self._live, "ServerReady": self._ready, "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata, "ModelMetadata": self._model_metadata, "ModelInfer": self._infer,
            "RepositoryIndex": self._index, "RepositoryModelLoad": self._load, "RepositoryModelUnload": self._unload,
        }  # fmt: skip
        return grpc.method_handlers_generic_handler(
            f"{PACKAGE}.{SERVICE}", {name: self._method(grpc, name, handler) for name, handler in methods.items()}
        )

    def _health(self, grpc: Any) -> Any:
        check = self._method(grpc, "HealthCheck", self._check)
        return grpc.method_handlers_generic_handler(f"{HEALTH_PACKAGE}.{HEALTH_SERVICE}", {"Check": check})

    def _method(self, grpc: Any, name: str, handler: Callable[[Any, Any], Awaitable[Any]]) -> Any:
        """A method of one message each way. The message is read here, where it can take only so long and be no message at all:
        the library would wait for ever for the one, and say of the other that the server failed."""
        asked, answered = message(f"{name}Request"), message(f"{name}Response")

        async def read(_messages: Any, context: Any) -> Any:
            try:
                async with asyncio.timeout(self._message_seconds):
                    data = await context.read()
            except TimeoutError:
                await _abort(context, 408, "the request took too long to come")
            try:
                request = asked.FromString(b"" if data is grpc.aio.EOF else data)
            except Exception as problem:
                await _abort(context, 400, f"the request is no {name}Request: {problem}")
                raise
            return await handler(request, context)

        return grpc.stream_unary_rpc_method_handler(read, response_serializer=answered.SerializeToString)

    async def _infer(self, request: Any, context: Any) -> Any:
        told: asyncio.Future[tuple[int, Fields, bytes]] = asyncio.get_running_loop().create_future()
        headers, wrong = _headers(context), None
        try:
            body, head = grpc_tensors.to_binary(request)
            headers.append((b"inference-header-content-length", b"%d" % head))
        except InstarError as problem:  # the gateway asks first who calls, and keeps it
            body, wrong = b"", problem
        left = context.time_remaining()
        if left is not None:
            headers.append((b"instar-timeout", b"%.6f" % min(max(left, 0.000001), LONGEST_SECONDS)))
        place = Place(request.model_name, request.model_version or None, rule=RULE)

        def respond(status: int, fields: Fields, content: bytes) -> None:
            if not told.done():  # the caller may have hung up
                told.set_result((status, fields, content))

        self._gateway.take(place, headers, body, len(body), respond, wrong)
        status, fields, content = await told
        facts = dict(fields)
        if b"instar-call" in facts:
            context.set_trailing_metadata((("instar-call", facts[b"instar-call"].decode()),))
        if status != 200:
            await _abort(context, status, _error_of(content))
        return grpc_tensors.from_answer(content, int(facts.get(b"inference-header-content-length", b"0")))

    async def _live(self, request: Any, context: Any) -> Any:
        return message("ServerLiveResponse")(live=True)

    async def _ready(self, request: Any, context: Any) -> Any:
        status, _ = await self._ask("/v2/health/ready", context)
        return message("ServerReadyResponse")(ready=status == 200)

    async def _check(self, request: Any, context: Any) -> Any:
        status, _ = await self._ask("/v2/health/ready", context)
        return message("HealthCheckResponse")(status=SERVING if status == 200 else NOT_SERVING)

    async def _model_ready(self, request: Any, context: Any) -> Any:
        status, body = await self._ask(f"{_path(request)}/ready", context)
        if status not in (200, 503):
            await _abort(context, status, _error_of(body))
        return message("ModelReadyResponse")(ready=status == 200)

    async def _server_metadata(self, request: Any, context: Any) -> Any:
        about = await self._told("/v2", context)
        return message("ServerMetadataResponse")(
            name=about["name"], version=about["version"], extensions=about["extensions"]
        )

    async def _model_metadata(self, request: Any, context: Any) -> Any:
        about = await self._told(_path(request), context)
        response = message("ModelMetadataResponse")(
            name=about["name"], versions=about["versions"], platform=about["platform"]
        )
        for given, made in ((about["inputs"], response.inputs), (about["outputs"], response.outputs)):
            for one in given:
                made.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
        return response

    async def _index(self, request: Any, context: Any) -> Any:
        wanted = msgspec.json.encode({"ready": request.ready})
        response = message("RepositoryIndexResponse")()
        for one in await self._told("/v2/repository/index", context, wanted):
            response.models.add(**one)
        return response

    async def _load(self, request: Any, context: Any) -> Any:
        await self._told(f"/v2/repository/models/{request.model_name}/load", context, b"{}")
        return message("RepositoryModelLoadResponse")()

    async def _unload(self, request: Any, context: Any) -> Any:
        await self._told(f"/v2/repository/models/{request.model_name}/unload", context, b"{}")
        return message("RepositoryModelUnloadResponse")()

    async def _told(self, path: str, context: Any, asked: bytes | None = None) -> Any:
        status, body = await self._ask(path, context, asked)
        if status != 200:
            await _abort(context, status, _error_of(body))
        return msgspec.json.decode(body)

    async def _ask(self, path: str, context: Any, asked: bytes | None = None) -> tuple[int, bytes]:
        """What the gateway answers for this caller to GET, or to POST where there is a body."""
        answer: dict[str, Any] = {"status": 500, "body": b""}

        async def send(part: Any) -> None:
            answer.update({name: part[name] for name in ("status", "body") if name in part})

        scope = {
            "type": "http", "method": "GET" if asked is None else "POST", "path": path, "raw_path": path.encode(),
            "query_string": b"", "headers": _headers(context),
        }  # fmt: skip

        async def receive() -> Any:
            return {"type": "http.request", "body": asked or b"", "more_body": False}

        await self._gateway(scope, receive, send)
        return answer["status"], answer["body"]


def _headers(context: Any) -> Headers:
    """Metadata as headers. Browsers cannot speak to this port, so no name of a host has to be checked."""
    found = [(b"host", b"127.0.0.1")]
    for key, value in context.invocation_metadata() or ():
        name = key.lower().encode()
        if name not in _OWN:
            found.append((name, value if isinstance(value, bytes) else value.encode("latin-1", "replace")))
    return found


def _path(request: Any) -> str:
    path = f"/v2/models/{request.name}"
    return f"{path}/versions/{request.version}" if request.version else path


def _error_of(body: bytes) -> str:
    return str(msgspec.json.decode(body).get("error", "")) if body else ""


async def _abort(context: Any, status: int, why: str) -> None:
    import grpc

    await context.abort(getattr(grpc.StatusCode, _CODES.get(status, "INTERNAL")), why)
