"""The second port: gRPC in, the same calls on the record."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from instar.serve.log.calls import CallLog
from instar.serve.protocol.grpc_messages import message
from instar.serve.root.process import ServerTree
from tests.serve import fakes
from tests.serve.conftest import acknowledged, start, wait_for
from tests.serve.test_server import log as log

Asking = Callable[..., Any]


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerTree]:
    """Endpoint `delay`, two gateways, both ports."""
    number = fakes.route(folder, [fakes.version(folder, 1, bias=0.1)])
    with start(folder, grpc_port=0, gateways=2) as running:
        acknowledged(folder, number)
        yield running


@pytest.fixture
def ask(server: ServerTree) -> Iterator[Asking]:
    """Calls a method of the service by its name."""
    with grpc.insecure_channel(f"127.0.0.1:{server.state.grpc_port}") as channel:

        def asking(method: str, request: Any = None, **options: Any) -> Any:
            name = "HealthCheck" if method == "Check" else method
            service = "grpc.health.v1.Health" if method == "Check" else "inference.GRPCInferenceService"
            made = channel.unary_unary(
                f"/{service}/{method}",
                request_serializer=message(f"{name}Request").SerializeToString,
                response_deserializer=message(f"{name}Response").FromString,
            )
            return made.with_call(request or message(f"{name}Request")(), timeout=20, **options)

        yield asking


def infer(distance: float = 1500.0, **changes: Any) -> Any:
    """A call with typed contents."""
    request = message("ModelInferRequest")(model_name="delay", **changes)
    for name, datatype, field, values in (
        ("distance", "FP64", "fp64_contents", [distance]),
        ("hour", "INT64", "int64_contents", [8]),
        ("carrier", "BYTES", "bytes_contents", [b"UA"]),
        ("wind", "FP64", "fp64_contents", [2.5]),
        ("holiday", "BOOL", "bool_contents", [False]),
    ):
        one = request.inputs.add(name=name, datatype=datatype, shape=[1])
        getattr(one.contents, field).extend(values)
    return request


def test_a_call_is_answered_and_on_the_record(ask: Asking, log: CallLog) -> None:
    request = infer(id="mine")
    request.parameters["entity"].string_param = "UA 17"
    answer, call = ask("ModelInfer", request, metadata=(("instar-key", "UA 17"),))
    assert (answer.model_name, answer.model_version, answer.id) == ("delay", "1", "mine")
    assert [(one.name, one.datatype, list(one.shape)) for one in answer.outputs] == [
        ("score", "FP64", [1]),
        ("decision", "INT64", [1]),
    ]
    assert np.frombuffer(answer.raw_output_contents[0], "<f8").tolist() == [0.25]
    assert answer.parameters["reason"].string_param == "champion"
    found = wait_for(lambda: log.find(dict(call.trailing_metadata())["instar-call"]))
    assert (found["entity"], found["key"], found["request_id"], found["status"]) == ("UA 17", "UA 17", "mine", 200)
    assert found["inputs"]["carrier"] == "UA"


def test_raw_contents_say_the_same(ask: Asking) -> None:
    typed = infer()
    raw = message("ModelInferRequest")(model_name="delay", model_version="1")
    for one in typed.inputs:
        raw.inputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
    raw.raw_input_contents.extend(
        [np.array([1500.0]).tobytes(), np.array([8]).tobytes(), b"\2\0\0\0UA", np.array([2.5]).tobytes(), b"\0"]
    )
    assert ask("ModelInfer", raw)[0].raw_output_contents == ask("ModelInfer", typed)[0].raw_output_contents
    raw.raw_input_contents.pop()
    with pytest.raises(grpc.RpcError) as refused:
        ask("ModelInfer", raw)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_outputs_can_be_chosen(ask: Asking) -> None:
    request = infer()
    request.outputs.add(name="decision")
    assert [one.name for one in ask("ModelInfer", request)[0].outputs] == ["decision"]


def wrong(change: Callable[[Any], object]) -> Any:
    request = infer()
    change(request)
    return request


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        (lambda r: setattr(r, "model_name", "nothing"), grpc.StatusCode.NOT_FOUND, "no such endpoint"),
        (lambda r: setattr(r, "model_version", "99"), grpc.StatusCode.NOT_FOUND, "names no such version"),
        (lambda r: r.inputs.pop(), grpc.StatusCode.INVALID_ARGUMENT, "'holiday' is missing"),
        (lambda r: setattr(r.inputs[0], "datatype", "FP99"), grpc.StatusCode.INVALID_ARGUMENT, "$.inputs[0].datatype"),
        (lambda r: r.inputs[0].shape.append(7), grpc.StatusCode.INVALID_ARGUMENT, "$.inputs[0].shape"),
        (lambda r: setattr(r.inputs[0], "datatype", "INT64"), grpc.StatusCode.INVALID_ARGUMENT, "fp64_contents"),
        (lambda r: setattr(r.inputs[1], "datatype", "INT8"), grpc.StatusCode.INVALID_ARGUMENT, "int64_contents"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(ask: Asking, change: Any, code: Any, word: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        ask("ModelInfer", wrong(change))
    assert refused.value.code() is code
    assert word in refused.value.details()


def test_a_message_that_cannot_be_read_is_on_the_record(ask: Asking, log: CallLog) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        ask("ModelInfer", wrong(lambda r: setattr(r.inputs[0], "datatype", "INT64")))
    call = dict(refused.value.trailing_metadata())["instar-call"]
    found = wait_for(lambda: log.find(call))
    assert (found["status"], found["score"]) == (400, None)
    assert "fp64_contents" in found["error"]


def test_a_call_has_the_callers_deadline(server: ServerTree, log: CallLog) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.state.grpc_port}") as channel:
        made = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=message("ModelInferRequest").SerializeToString,
            response_deserializer=message("ModelInferResponse").FromString,
        )
        with pytest.raises(grpc.RpcError) as late:
            made(infer(), timeout=0.0001)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_server_says_what_it_is(ask: Asking) -> None:
    assert ask("ServerLive")[0].live
    assert ask("ServerReady")[0].ready
    assert ask("Check")[0].status == 1
    about = ask("ServerMetadata")[0]
    assert (about.name, about.version) == ("instar", "2")
    assert ask("ModelReady", message("ModelReadyRequest")(name="delay", version="1"))[0].ready
    model = ask("ModelMetadata", message("ModelMetadataRequest")(name="delay"))[0]
    assert [(one.name, one.datatype) for one in model.inputs] == [(c.name, c.datatype) for c in fakes.COLUMNS]
    assert [one.name for one in model.outputs] == ["score", "decision"]
    index = ask("RepositoryIndex")[0]
    assert [(one.name, one.state) for one in index.models] == [("delay", "READY")]
    for method in ("ModelReady", "ModelMetadata"):
        with pytest.raises(grpc.RpcError) as refused:
            ask(method, message(f"{method}Request")(name="nothing"))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_bytes_that_are_no_message_hurt_nobody(server: ServerTree, ask: Asking) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.state.grpc_port}") as channel:
        made = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for data in (b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x0f", bytes(1000)):
            with pytest.raises(grpc.RpcError) as refused:
                made(data, timeout=10)
            assert refused.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert ask("ServerLive")[0].live


def test_what_is_too_large_is_refused_and_the_connection_lives(ask: Asking) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        ask("ModelInfer", infer(raw_input_contents=[bytes(17 * 1024 * 1024)]))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ask("ModelInfer", infer())[0].outputs


def method(channel: grpc.Channel, name: str = "ModelInfer") -> Any:
    return channel.unary_unary(
        f"/inference.GRPCInferenceService/{name}",
        request_serializer=message(f"{name}Request").SerializeToString,
        response_deserializer=message(f"{name}Response").FromString,
    )


def test_bounds_deadlines_and_the_end_hold_for_many_at_once(tmp_path: Path) -> None:
    """Calls beyond the bound are refused at once, a message that does not come is given up, and who is in flight at the end is
    answered."""
    folder = tmp_path / ".instar"
    number = fakes.route(folder, [fakes.version(folder, 1, quirk="slow")])  # 50 ms a call
    limits = {"INSTAR_MOST_CALLS": "40", "INSTAR_BODY_TIMEOUT": "0.1"}
    with start(folder, grpc_port=0, environment=limits) as server:
        acknowledged(folder, number)
        address = f"127.0.0.1:{server.state.grpc_port}"
        with grpc.insecure_channel(address) as channel:
            call = method(channel)
            assert call(infer(), timeout=30).outputs

            def codes(count: int, timeout: float) -> Counter[grpc.StatusCode]:
                return Counter(one.code() for one in [call.future(infer(), timeout=timeout) for _ in range(count)])

            found = codes(200, 60)
            assert found.keys() == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
            late = codes(30, 0.3)  # who would be answered too late hears so at once, or at its deadline
            assert late.keys() <= {*found, grpc.StatusCode.DEADLINE_EXCEEDED}
            assert late[grpc.StatusCode.OK] < 30
            # A sender that begins a call and sends no message.
            never = threading.Event()

            def nothing() -> Iterator[bytes]:
                never.wait(30)
                yield from ()

            slow = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer").future(nothing(), timeout=30)
            assert slow.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "took too long to come" in slow.details()
            never.set()
            assert call(infer(), timeout=30).outputs
            flying = [call.future(infer(), timeout=30) for _ in range(8)]
            wait_for(lambda: any(one.done() for one in flying))
            server.stop()
            assert {one.code() for one in flying} == {grpc.StatusCode.OK}


def test_messages_are_those_of_the_protocol() -> None:
    """The wire form of one message, byte by byte: numbers and types of fields are what every client counts on."""
    request = message("ModelInferRequest")(model_name="m", model_version="1", id="i")
    request.parameters["a"].int64_param = 7
    one = request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    one.contents.fp32_contents.extend([1.0, 2.0])
    request.outputs.add(name="y")
    request.raw_input_contents.append(b"zz")
    expected = (
        "0a016d" "120131" "1a0169"  # model_name, model_version, id
        "2207" "0a0161" "12021007"  # parameters: a -> int64_param 7
        "2a19" "0a0178" "120446503332" "1a020102" "2a0a" "3208" "0000803f" "00000040"  # inputs: x, FP32, [1, 2], fp32_contents
        "3203" "0a0179"  # outputs: y
        "3a027a7a"  # raw_input_contents
    )  # fmt: skip
    assert request.SerializeToString(deterministic=True).hex() == expected
