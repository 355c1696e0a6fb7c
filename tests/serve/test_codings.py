"""Packed bodies: opened within a bound, answered alike, and refused where they are not what their header says."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.core.errors import MalformedRequest, TooLarge, UnsupportedMedia
from instar.serve.protocol import codings, wire
from instar.serve.protocol.codings import DEFLATE, GZIP, PLAIN
from instar.serve.protocol.v2_json import BODY_LIMIT_BYTES
from instar.serve.worker.worker import _weight
from tests.serve import fakes
from tests.serve.test_forms import Asking, Matrix, binary_of

PACKED = {GZIP: gzip.compress, DEFLATE: zlib.compress}


@given(st.binary(max_size=2000), st.sampled_from([GZIP, DEFLATE]))
def test_what_is_packed_comes_out_as_it_was(data: bytes, coding: int) -> None:
    assert codings.unpack(PACKED[coding](data), coding) == data
    assert codings.unpack(codings.pack(data, coding), coding) == data


@given(st.binary(max_size=300), st.sampled_from([GZIP, DEFLATE]))
def test_what_is_not_packed_is_refused(data: bytes, coding: int) -> None:
    packed = PACKED[coding](data)
    for wrong in (data, packed[:-1], packed + b"x", packed + packed):
        with pytest.raises(MalformedRequest, match="cannot be unpacked"):
            codings.unpack(wrong, coding)


@pytest.mark.parametrize("coding", [GZIP, DEFLATE])
def test_a_body_that_grows_beyond_the_bound_is_not_opened_further(coding: int) -> None:
    bomb = PACKED[coding](bytes(BODY_LIMIT_BYTES + 1))
    assert len(bomb) < BODY_LIMIT_BYTES / 900
    with pytest.raises(TooLarge, match="when it is unpacked"):
        codings.unpack(bomb, coding)
    assert len(codings.unpack(PACKED[coding](bytes(BODY_LIMIT_BYTES)), coding)) == BODY_LIMIT_BYTES


def test_a_batch_counts_what_packed_bodies_can_become() -> None:
    assert _weight(wire.Ask(b"x" * 100)) == 100
    assert _weight(wire.Ask(b"x" * 100, coding=GZIP)) == 103_200
    assert _weight(wire.Ask(b"x" * 100_000, coding=GZIP)) == BODY_LIMIT_BYTES


@pytest.mark.parametrize(
    ("said", "coding"),
    [
        (b"gzip", GZIP), (b"deflate", DEFLATE), (b"gzip, deflate, br", GZIP), (b"deflate;q=1, gzip;q=0.5", DEFLATE),
        (b"*", GZIP), (b"gzip;q=0, *", DEFLATE), (b"identity", PLAIN), (b"identity;q=1, gzip;q=0.5", PLAIN), (b"br", PLAIN),
        (b"gzip;q=0", PLAIN), (b"gzip;q=x", PLAIN), (b"", PLAIN), (b"\xff", PLAIN),
    ],
)  # fmt: skip
def test_an_answer_is_packed_as_the_caller_takes_it(said: bytes, coding: int) -> None:
    assert codings.accepted(said) == coding


def test_codings_that_are_not_read_are_refused() -> None:
    assert [codings.coding_of(one) for one in (b"gzip", b"X-GZip", b"deflate", b" identity ")] == [1, 1, 2, 0]
    for said in (b"br", b"gzip, gzip", b"zstd", b""):
        with pytest.raises(UnsupportedMedia):
            codings.coding_of(said)


@pytest.mark.parametrize("coding", [GZIP, DEFLATE])
def test_a_packed_call_is_answered_like_any(tmp_path: Path, coding: int) -> None:
    ask = Asking(tmp_path)
    body = json.dumps(fakes.body(1500)).encode()
    assert ask(PACKED[coding](body), coding=coding).body == ask(body).body
    bomb = ask(PACKED[coding](bytes(BODY_LIMIT_BYTES + 1)), coding=coding)
    assert (bomb.status, json.loads(bomb.body)["kind"]) == (413, "TooLarge")
    assert ask(body, coding=coding).status == 400


def test_the_head_of_binary_tensors_is_counted_unpacked(tmp_path: Path) -> None:
    body, head = binary_of([("x", "FP32", [1, 3], bytes(12)), ("words", "BYTES", [1], b"\1\0\0\0a")])
    reply = Matrix(tmp_path)(gzip.compress(body), wire.BINARY, head, coding=GZIP)
    assert reply.status == 200


def test_only_large_answers_are_packed(tmp_path: Path) -> None:
    ask = Asking(tmp_path)
    small = ask(json.dumps(fakes.body(1500)), pack=GZIP)
    assert (small.coding, json.loads(small.body)["model_name"]) == (PLAIN, "delay")
    request = fakes.body(1500)
    for tensor in request["inputs"]:
        tensor.update(shape=[2000], data=tensor["data"] * 2000)
    plain = ask(json.dumps(request))
    for coding in (GZIP, DEFLATE):
        packed = ask(json.dumps(request), pack=coding)
        assert packed.coding == coding
        assert len(packed.body) < len(plain.body) / 10
        assert codings.unpack(packed.body, coding) == plain.body


def test_a_caller_says_in_the_body_how_long_it_waits(tmp_path: Path) -> None:
    ask = Asking(tmp_path)

    def timed(timeout: object, **when: int) -> wire.Reply:
        return ask(json.dumps({**fakes.body(1500), "parameters": {"timeout": timeout}}), **when)

    now = time.monotonic_ns()
    for none in (0, None, 60_000_000):
        assert timed(none, came=now).status == 200
    late = timed(1000, came=now - 2_000_000)
    assert (late.status, json.loads(late.body)["kind"]) == (504, "DeadlineExceeded")
    for wrong in (-1, 1.5, "soon", True, [1]):
        refused = timed(wrong, came=now)
        assert (refused.status, json.loads(refused.body)["path"]) == (400, "$.parameters.timeout")


@pytest.mark.parametrize(
    ("parameters", "outputs", "path"),
    [
        ({"sequence_id": 7, "sequence_start": True}, None, "$.parameters.sequence_id"),
        ({"sequence_end": True}, None, "$.parameters.sequence_end"),
        ({"priority": 1}, None, "$.parameters.priority"),
        ({"binary_data_output": "yes"}, None, "$.parameters.binary_data_output"),
        ({}, {"classification": 2}, "$.outputs[0].parameters.classification"),
        ({}, {"binary_data": 1}, "$.outputs[0].parameters.binary_data"),
        ({}, {"shared_memory_region": "a"}, "$.outputs[0].parameters.shared_memory_region"),
    ],
)
def test_what_is_asked_for_and_not_done_is_refused(
    tmp_path: Path, parameters: dict[str, object], outputs: dict[str, object] | None, path: str
) -> None:
    request = {**fakes.body(1500), "parameters": parameters}
    if outputs is not None:
        request["outputs"] = [{"name": "score", "parameters": outputs}]
    refused = Asking(tmp_path)(json.dumps(request))
    assert (refused.status, json.loads(refused.body)["path"]) == (400, path)


def test_parameters_that_ask_for_nothing_may_stand(tmp_path: Path) -> None:
    nothing = {"sequence_id": 0, "sequence_start": False, "sequence_end": False, "priority": 0, "team": "blue"}
    assert Asking(tmp_path)(json.dumps({**fakes.body(1500), "parameters": nothing})).status == 200


def test_values_in_shared_memory_are_refused_by_their_name(tmp_path: Path) -> None:
    one = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"shared_memory_region": "a"}}
    plain = Matrix(tmp_path)(json.dumps({"inputs": [one]}))
    head = json.dumps({"inputs": [one]}).encode()
    binary = Matrix(tmp_path)(head, wire.BINARY, len(head))
    for refused in (plain, binary):
        assert refused.status == 400
        assert "no shared memory" in json.loads(refused.body)["error"]
