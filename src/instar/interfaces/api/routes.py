"""What a route of the API is: method, path, the permission that it needs, and a plain function from request to reply.

    Route("GET", "/api/projects/{project}/runs/{run}", Permission.READ, show_run)
    Route("GET", "/api/projects", Permission.READ, projects, bound=Bound.SOMEWHERE)

A route says in which project its permission is needed: in that of the path, unless it says otherwise. A path's parts are words,
`{name}`, `{name}.json`, or, as the last one, `{name:path}` for all that is left.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from instar.app import App
from instar.core.errors import InstarError, MalformedRequest
from instar.core.identity import Actor, Caller, Permission, local_caller
from instar.interfaces.api.status import body_of, status_of


@dataclass(frozen=True)
class Request:
    """One call of the control API.

    Attributes:
        app: The opened store and project; the store writes as the caller.
        actor: Who calls, in the project that the route is bound to; already found to have the route's permission.
        caller: Who calls, with the roles in all projects.
        path: Values of the path's parameters, decoded.
        query: Values of the query string; the last of a repeated key.
        body: The undecoded body; empty on routes that take an upload.
        headers: The request's headers, by lower-case name.
        query_lists: All values of each key of the query string, in their order.
        upload: On routes that take an upload: the whole body as a file in the store's folder, which is removed when the
            handler returns, unless it moved the file elsewhere.
        method: As it was sent: HEAD reaches the handlers of GET.
    """

    app: App
    actor: Actor
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    query_lists: Mapping[str, Sequence[str]] = field(default_factory=dict)
    upload: Path | None = None
    method: str = "GET"
    caller: Caller = field(default_factory=local_caller)

    def json(self, type_: Any = Any) -> Any:
        """The body, decoded and checked against a msgspec type.

        Raises:
            MalformedRequest: It is not JSON, or not of that form; the message names the JSON path.
        """
        try:
            return msgspec.json.decode(self.body, type=type_)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MalformedRequest("the body cannot be read", found=str(error), asked="JSON as documented") from error


@dataclass(frozen=True)
class Reply:
    """The answer of a handler: a JSON-ready value, bytes of a media type, or a file.

    Attributes:
        value: What JSON can say, or bytes, which are sent as they are.
        file: Streamed instead of `value`, whole or the range that was asked for. It must stay until the answer is sent.
    """

    value: Any = None
    status: int = 200
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None

    def content(self) -> bytes:
        if isinstance(self.value, bytes):
            return self.value
        if self.media_type == "application/json":
            return msgspec.json.encode(self.value)
        return str(self.value).encode()


Handler = Callable[[Request], Reply]


def _in_json(error: InstarError) -> Reply:
    return Reply(body_of(error), status_of(error))


@dataclass(frozen=True)
class Voice:
    """How a group of routes says no: every refusal of theirs, ours at the rim included, is worded by one function.

    Attributes:
        prefixes: Paths below them that name no route are refused in this voice, too; `{name}` stands for any one part.
        refuse: From an error to the reply that says it; the rim sets the status 405 itself where it applies.
    """

    prefixes: tuple[str, ...] = ()
    refuse: Callable[[InstarError], Reply] = _in_json


PLAIN = Voice()


class Bound(enum.Enum):
    """In which project a caller must have a route's permission."""

    PROJECT = "the project in the path"
    SOMEWHERE = "any project: the handler shows what the caller may see and no more"
    STORE = "all of the store"


WhereBound = Bound | Callable[[Request], str]
_FREE = (Permission.PUBLIC, Permission.KNOWN)


@dataclass(frozen=True)
class Route:
    """One entry of the API's table.

    Attributes:
        bound: In which project the permission is needed, or a function from the request to its name.
        narrows: The handler shows and changes nothing but a caller's endpoints, where it is limited to some; else such a
            caller reaches what has one of their names in the path, as `{endpoint}` or `{model}`, and nothing else.
        proof: Called before the body is read: raises unless the address proves itself. For public routes that take more
            than a few words.
        page: People look at it: who is not signed in is shown the way.
        upload: The body is streamed to a file before the handler is called: `request.upload`.
        voice: How it says no.
    """

    method: str
    path: str
    permission: Permission
    handler: Handler
    upload: bool = False
    voice: Voice = PLAIN
    bound: WhereBound = Bound.PROJECT
    page: bool = False
    narrows: bool = False
    proof: Callable[[Request], None] | None = None

    def __post_init__(self) -> None:
        if self.bound is Bound.PROJECT and "{project}" not in self.path and self.permission not in _FREE:
            raise ValueError(f"{self.method} {self.path} does not say in which project {self.permission} is needed")

    def project(self, request: Request) -> str | None:
        """The project in which the permission is needed; None for all of the store, or for any."""
        if callable(self.bound):
            return self.bound(request)
        return request.path.get("project") if self.bound is Bound.PROJECT else None

    def reached(self, request: Request) -> bool:
        """Whether the caller is not limited to endpoints of which the route is none."""
        if self.narrows or request.caller.endpoints is None or self.permission in _FREE:
            return True
        name = request.path.get("endpoint", request.path.get("model"))  # one name for both
        return name is not None and request.caller.reaches(name)

    def allows(self, request: Request) -> bool:
        """Whether the caller of a request has the permission where it is needed."""
        if self.bound is Bound.SOMEWHERE:
            return request.caller.may_somewhere(self.permission)
        return request.caller.may(self.permission, self.project(request))
