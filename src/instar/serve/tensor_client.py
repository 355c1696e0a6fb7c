"""A client for calls of tensor models: what `instar predict` talks to such an endpoint with.

with TensorClient("http://127.0.0.1:5000", "tumour") as client:
    client.infer({"x": [[0.1, 0.2]]}).outputs      # -> {"probabilities": [[0.3, 0.7]]}
"""

from __future__ import annotations

import http.client
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

from instar.core import credentials
from instar.core.errors import BadInput, NotAllowed, NotFound, Unauthenticated, Unavailable
from instar.serve.protocol.signature import DYNAMIC

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class TensorAnswer:
    """An answer.

    Attributes:
        call: Call id; its first prediction is `<call>/0`. Empty when the gateway did not take the call.
        outputs: Nested lists by output.
        error: The refusal's text.
    """

    status: int
    call: str
    version: int | None = None
    outputs: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


class Spec(msgspec.Struct):
    """A tensor, as the endpoint's metadata has it."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}


class _Metadata(msgspec.Struct):
    inputs: list[Spec]


class _Output(msgspec.Struct):
    name: str
    shape: list[int]
    data: list[Any]


class _Body(msgspec.Struct):
    model_version: str = ""
    outputs: list[_Output] = []
    error: str | None = None


class TensorClient:
    """A client of one endpoint, for one thread.

    Args:
        token: By which the caller is known; default `INSTAR_TOKEN`, or the file that `INSTAR_TOKEN_FILE` names.

    Attributes:
        inputs: What the endpoint takes, by name.
        takes_tensors: It is a tensor model's; else a table model's, for `InferClient`.
    """

    def __init__(self, url: str, endpoint: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise BadInput("that is no address of a server", found=repr(url), asked="http://host:port")
        self._url, self._endpoint = url, endpoint
        secret = token or credentials.of_environment()
        self._proof = {"Authorization": f"Bearer {secret}"} if secret else {}
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=TIMEOUT_SECONDS)
        status, _, body = self._ask("GET", f"/v2/models/{endpoint}")
        if status != 200:
            kind = {401: Unauthenticated, 403: NotAllowed}.get(status, NotFound)
            raise kind(
                f"the server answers {status}: {body[:300].decode(errors='replace')}", subject=f"endpoint {endpoint}"
            )
        self.inputs = {one.name: one for one in msgspec.json.decode(body, type=_Metadata).inputs}
        self.takes_tensors = any("optional" in one.parameters for one in self.inputs.values())

    def infer(
        self,
        tensors: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> TensorAnswer:
        """One call.

        Args:
            tensors: By name nested lists, whole, or one row where the first dimension is open.

        Raises:
            BadInput: The endpoint takes no such tensor, or a list is ragged.
            Unavailable: The server cannot be reached.
        """
        unknown = [name for name in tensors if name not in self.inputs]
        if unknown:
            raise BadInput("the endpoint takes no such tensor", found=unknown[0], asked=", ".join(self.inputs))
        request: dict[str, Any] = {"inputs": [tensor(self.inputs[name], value) for name, value in tensors.items()]}
        if parameters:
            request["parameters"] = parameters
        path = f"/v2/models/{self._endpoint}/infer"
        status, call, body = self._ask("POST", path, msgspec.json.encode(request), headers)
        try:
            said = msgspec.json.decode(body, type=_Body)
        except msgspec.DecodeError:
            return TensorAnswer(status, call, error=body[:500].decode(errors="replace"))
        if status != 200:
            return TensorAnswer(status, call, error=said.error)
        outputs = {one.name: nest(one.data, one.shape) for one in said.outputs}
        return TensorAnswer(status, call, int(said.model_version), outputs)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> TensorClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str, bytes]:
        try:
            sent = {"Content-Type": "application/json", **self._proof, **(headers or {})}
            self._connection.request(method, path, body, sent)
            reply = self._connection.getresponse()
            return reply.status, reply.getheader("Instar-Call", ""), reply.read()
        except (OSError, http.client.HTTPException) as problem:
            raise Unavailable(
                "the server cannot be reached", subject=self._url, found=str(problem) or type(problem).__name__,
                next_step="Start it: `instar up`.",
            ) from problem  # fmt: skip


def nest(flat: Sequence[Any], shape: Sequence[int]) -> Any:
    """Values row by row as nested lists.

    >>> nest([1, 2, 3, 4], [2, 2])
    [[1, 2], [3, 4]]
    """
    if not shape:
        return flat[0]
    width = math.prod(shape[1:])
    return (
        [nest(flat[at * width : (at + 1) * width], shape[1:]) for at in range(shape[0])]
        if len(shape) > 1
        else list(flat)
    )


def tensor(spec: Spec, value: Any) -> dict[str, Any]:
    """A tensor in a request, from nested lists: whole, or one row where the first dimension is open."""
    shape = _shape(value, spec.name)
    if len(shape) == len(spec.shape) - 1 and spec.shape[0] == DYNAMIC:
        value, shape = [value], [1, *shape]
    return {"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": value if shape else [value]}


def _shape(value: Any, name: str) -> list[int]:
    """Lengths of nested lists, which are the same wherever one looks."""
    if not isinstance(value, list):
        return []
    inner = [_shape(one, name) for one in value]
    if any(one != inner[0] for one in inner):
        raise BadInput("its lists are of different lengths", subject=f"tensor {name}", asked="lists of one length each")
    return [len(value), *(inner[0] if inner else [])]
