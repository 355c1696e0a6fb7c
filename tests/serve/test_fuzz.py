"""Requests without sense, some hundred in each run: answered or refused, never failed, and on the record. `--full` sends more."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, seed, settings

from instar.serve.log.calls import CallLog
from instar.serve.root.process import ServerTree
from tests.serve import fakes, tensor_fakes
from tests.serve.conftest import acknowledged, start, wait_for
from tests.serve.fuzzing import Request, requests
from tests.serve.test_server import log as log

EXAMPLES = 300
# What a refusal may be called. 504 is none of them: no request here says that it waits for less than a second.
REFUSALS = {400, 401, 403, 404, 405, 406, 411, 413, 414, 415, 431}
# What gRPC calls them.
FAULTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE}


def load(folder: Path) -> Any:
    """Loader for workers: the model of columns, or that of tensors, as its file says."""
    kind: Any = tensor_fakes if '"batchable"' in (folder / "model.json").read_text() else fakes
    return kind.load(folder)


@contextlib.contextmanager
def two_models(folder: Path) -> Iterator[ServerTree]:
    """A server with endpoints `delay` (columns) and `words` (tensors), on both ports."""
    fakes.route(folder, [fakes.version(folder, 1, bias=0.1)])
    number = fakes.route(folder, [tensor_fakes.version(folder, 1)], endpoint="words", signature=tensor_fakes.SIGNATURE)
    with start(folder, loader="tests.serve.test_fuzz:load", grpc_port=0) as running:
        acknowledged(folder, number)
        yield running


class Sender:
    """Sends requests one by one, and keeps what came of them.

    Attributes:
        statuses: How often each HTTP status was given.
        calls: Ids of all calls that were answered.
    """

    def __init__(self, server: ServerTree) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        self._channel = grpc.insecure_channel(f"127.0.0.1:{server.state.grpc_port}")
        self._infer = self._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        self.statuses: dict[int, int] = {}
        self.calls: set[str] = set()

    def send(self, request: Request) -> None:
        """Send one; it is answered or refused, never failed.

        Raises:
            AssertionError: The server failed on it.
        """
        if request.path is None:
            self._send_message(request.body)
            return
        self._http.request(request.method, request.path, request.body, request.headers)
        reply = self._http.getresponse()
        said = reply.read()
        self.statuses[reply.status] = self.statuses.get(reply.status, 0) + 1
        assert reply.status in REFUSALS or reply.status == 200, (reply.status, said[:400])
        if reply.status != 200 and request.method != "HEAD":
            assert json.loads(said)["error"], said
        call = reply.getheader("instar-call")
        if call is not None:
            self.calls.add(call)
        elif request.method == "POST" and reply.status == 200:
            assert not request.path.endswith(("infer", "records", "invocations")), "an answer without a call"

    def _send_message(self, body: bytes) -> None:
        try:
            _, call = self._infer.with_call(body, timeout=60)
            trailing = call.trailing_metadata()
        except grpc.RpcError as refused:
            code, why, trailing = refused.code(), refused.details(), refused.trailing_metadata()
        else:
            code, why = grpc.StatusCode.OK, ""
        assert code not in FAULTS, (code, why)
        self.calls |= {value for name, value in trailing or () if name == "instar-call"}

    def close(self) -> None:
        """Hang up."""
        self._http.close()
        self._channel.close()


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerTree]:
    with two_models(folder) as running:
        yield running


def hold(server: ServerTree, log: CallLog, examples: int) -> Sender:
    """Send so many; what was called is on the record, and the server is the one that it was."""
    sender = Sender(server)

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @seed(7)
    @given(requests())
    def send(request: Request) -> None:
        sender.send(request)

    workers = server.state
    send()
    good = Request(
        "/v2/models/words/infer", json.dumps(tensor_fakes.body(1)).encode(), {"Content-Type": "application/json"}
    )
    before = sender.statuses.get(200, 0)
    sender.send(good)
    assert sender.statuses[200] == before + 1, "the server does not answer any more"
    assert server.state == workers

    def missing() -> set[str]:
        return sender.calls - {call for name in ("delay", "words") for call in log.read(name)["call"]}

    wait_for(lambda: not missing())
    sender.close()
    return sender


def test_nothing_that_is_sent_is_a_fault_of_the_server(server: ServerTree, log: CallLog) -> None:
    sender = hold(server, log, EXAMPLES)
    assert {200, 400, 404, 405, 415} <= sender.statuses.keys()
    assert len(sender.calls) > EXAMPLES / 3
