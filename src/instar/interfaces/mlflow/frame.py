"""How one call of MLflow's protocol is read and answered: project, message in, message out, errors in MLflow's form.

Every group of routes is a module with a list `operations`; a handler takes the call and the decoded message, and returns
a struct or plain values, and raises our errors:

    def get(call: Call, asked: GetExperiment) -> ExperimentReply:
        \"""One experiment.\"""
        return ExperimentReply(...)

    operations = [Operation("GET", "experiments/get", Permission.READ, get, GetExperiment)]

A handler that must say more than JSON (a file, headers) returns a `Reply`. Operations with `upload` get the body as a file:
`call.request.upload`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from instar.core.errors import MalformedRequest
from instar.core.identity import Permission
from instar.core.store import Store
from instar.interfaces.api.routes import Reply, Request, Route, Voice, WhereBound
from instar.interfaces.mlflow.errors import Refusal, invalid, missing, refuse

WORKSPACE_HEADER = "x-mlflow-workspace"
ROOTS = {
    "mlflow": ("/api/2.0/mlflow/", "/api/3.0/mlflow/", "/ajax-api/2.0/mlflow/", "/ajax-api/3.0/mlflow/"),
    "mlflow-artifacts": ("/api/2.0/mlflow-artifacts/", "/ajax-api/2.0/mlflow-artifacts/"),
    "": ("/",),
}
PROJECT = "/projects/{project}"  # the tracking URI http://HOST:PORT/projects/NAME puts it before every path
ENCODER = msgspec.json.Encoder()
VOICE = Voice(
    prefixes=(
        *(prefix + root[:-1] for prefix in ("", PROJECT) for roots in ROOTS.values() for root in roots if root != "/"),
        "/v1/traces",
        "/graphql",
    ),
    refuse=refuse,
)
_NAME = re.compile(r"[\w][\w .\-]{0,199}\Z")
_WHERE = re.compile(r"(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?\Z", re.DOTALL)


class Message(msgspec.Struct, omit_defaults=True, gc=False):
    """A message of the protocol: absent and null are one, unknown fields are passed over, as in JSON of protocol buffers."""


class Nothing(Message):
    """A message without fields."""


@dataclass(frozen=True)
class Call:
    """One call: what was sent, and the project that it speaks to.

    Attributes:
        request: As it came in.
        project: Named by the address, the workspace header, or the server's own.
    """

    request: Request
    project: str

    @cached_property
    def store(self) -> Store:
        """The store, with the caller as who writes."""
        store = self.request.app.store
        return store if store.actor == self.request.actor else replace(store, actor=self.request.actor)

    @property
    def path(self) -> Mapping[str, str]:
        """Values of the path's parameters."""
        return self.request.path


Handler = Callable[[Call, Any], Any]


@dataclass(frozen=True)
class Operation:
    """One operation of the protocol: at every address where a client may look for it, the same handler.

    Attributes:
        path: Below the root, such as `runs/create`; may have parameters, as in routes.
        handler: Its first line of documentation is the operation's description.
        message: What the body, or for GET the query string, is decoded to.
        root: `"mlflow"`, `"mlflow-artifacts"` or `""` (the server's own root).
        upload: The body is a file.
        proof: Of addresses that prove themselves; called before the body is read.
        bound: In which project the permission is needed: in the one that the call speaks to.
    """

    method: str
    path: str
    permission: Permission
    handler: Handler
    message: type[Message] = Nothing
    root: str = "mlflow"
    upload: bool = False
    bound: WhereBound | None = None
    proof: Callable[[Call], None] | None = None

    def routes(self) -> list[Route]:
        """The operation at all its addresses."""
        answer, prove = _answering(self), self.proof
        proof = None if prove is None else lambda request: prove(Call(request, project_of(request)))
        addresses = [root + self.path for root in ROOTS[self.root]]
        return [
            Route(
                self.method,
                prefix + address,
                self.permission,
                answer,
                self.upload,
                VOICE,
                self.bound or project_of,
                proof=proof,
            )
            for prefix in ("", PROJECT)
            for address in addresses
        ]


def required(value: str | None, name: str) -> str:
    """`value`, which the protocol requires.

    Raises:
        Refusal: It is absent or empty.
    """
    if not value:
        raise missing(name)
    return value


def _answering(operation: Operation) -> Callable[[Request], Reply]:
    read = _reader(operation)
    handler = operation.handler
    wants_message = operation.message is not Nothing

    def answer(request: Request) -> Reply:
        asked = read(request) if wants_message else None
        value = handler(Call(request, project_of(request)), asked)
        return value if isinstance(value, Reply) else Reply(ENCODER.encode(value))

    answer.__doc__ = operation.handler.__doc__
    return answer


def project_of(request: Request) -> str:
    """The project that a call speaks to: of the address, else of the workspace header, else the server's own.

    Raises:
        Refusal: That is no name of a project.
    """
    name = request.path.get("project") or request.headers.get(WORKSPACE_HEADER, "").strip()
    if not name:
        return request.app.project_name
    if not _NAME.match(name):
        raise invalid(f"Invalid name of a project (workspace): {name[:100]!r}.")
    return name


def _reader(operation: Operation) -> Callable[[Request], Any]:
    decoder = msgspec.json.Decoder(operation.message, strict=False)
    lists = _lists(operation.message)

    def read(request: Request) -> Any:
        try:
            if operation.method == "GET" and request.query_lists:
                asked = {
                    name: list(values) if name in lists else values[0] for name, values in request.query_lists.items()
                }
                return msgspec.convert(asked, operation.message, strict=False)
            if request.body[:1] == b'"':  # old clients send JSON within a JSON string
                return decoder.decode(msgspec.json.decode(request.body, type=str))
            return decoder.decode(request.body or b"{}")
        except msgspec.ValidationError as error:
            raise _wrong_value(error) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MalformedRequest("the body cannot be read", found=str(error), asked="a JSON object") from error

    return read


def _lists(message: type[Message]) -> frozenset[str]:
    hints = get_type_hints(message)
    return frozenset(
        name for name, hint in hints.items() if any(get_origin(one) is list for one in (hint, *get_args(hint)))
    )


def _wrong_value(error: msgspec.ValidationError) -> Refusal:
    """msgspec's finding in MLflow's words: ``Expected `str`, got `int` - at `$.run_id` ``."""
    found = _WHERE.match(str(error))
    assert found is not None  # it matches every text
    path = (found["path"] or "$").removeprefix("$").removeprefix(".")
    where = f" for parameter '{path}'" if path else ""
    return invalid(
        f"Invalid value{where} supplied: {found['what']}. "
        "See the API docs for more information about request parameters."
    )
