"""What a route of the API is: method, path, the permission that it needs, and a plain function from request to reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from instar.app import App
from instar.core.errors import MalformedRequest
from instar.core.identity import Actor, Permission


@dataclass(frozen=True)
class Request:
    """One call of the control API.

    Attributes:
        app: The opened store and project.
        actor: Who calls; already found to have the route's permission.
        path: Values of the path's parameters.
        query: Values of the query string; the last of a repeated key.
        body: The undecoded body.
        headers: The request's headers, by lower-case name.
    """

    app: App
    actor: Actor
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

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
    """The answer of a handler: a JSON-ready value, or bytes of a media type."""

    value: Any = None
    status: int = 200
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    def content(self) -> bytes:
        if self.media_type == "application/json":
            return msgspec.json.encode(self.value)
        return self.value if isinstance(self.value, bytes) else str(self.value).encode()


Handler = Callable[[Request], Reply]


@dataclass(frozen=True)
class Route:
    """One entry of the API's table."""

    method: str
    path: str
    permission: Permission
    handler: Handler
