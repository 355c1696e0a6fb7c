"""Requests that no honest client would send, in every form: what the fuzz tests send (`test_fuzz` here, and `--full`)."""

from __future__ import annotations

import copy
import dataclasses
import gzip
import io
import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from tests.serve import fakes, tensor_fakes

ROWS = [{"distance": 1000.0, "hour": 8, "carrier": "UA", "wind": 2.5, "holiday": False}] * 3


@dataclass(frozen=True)
class Request:
    """A request; `path` None means a message to gRPC's ModelInfer."""

    path: str | None
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "POST"


# Values that JSON can say and no signature wants; raw ones stand where a body is made as text.
_odd: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 3),
    st.sampled_from([1 << 31, 1 << 63, 1 << 64, -1 << 63, 10**400]),
    st.floats(),
    st.sampled_from([1e39, -1e308, 5e-324]),
    st.text(max_size=8),
    st.sampled_from(["", "\0", "é" * 40, "1", "NaN", "true"]),
    st.lists(st.integers(-2, 2), max_size=4),
    st.sampled_from([[], {}, [[[]]], {"a": 1}]),
)
_RAW = [
    *(b"", b"{", b"null", b"[]", b"{}", b"nan", b"\xff\xfe\xfa", b'"\xed\xa0\x80"', b"\0" * 64, b'{"a":1}' * 3),
    *(b"[" * 100_000, b'{"inputs":' * 50_000, b'{"records":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    *(b'{"inputs":[NaN]}', b'{"id":"\\ud800","inputs":[]}', b'{"inputs":[],"inputs":[]}'),
    b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1e999,1,2]}]}',
    b'{"instances":[' + b"[1]," * 9000 + b"1]}",
]
_TYPES = ["BYTES", "BOOL", "FP16", "FP64", "INT8", "UINT64", "BF16", "", "fp32"]
_LENGTHS = ["0", "-1", "x", "", "999999999", "1" * 30, "²", "7"]
_COLUMNS = [
    pa.array([1, 2, 3], pa.timestamp("us")),
    pa.array(["a", "b", "a"]).dictionary_encode(),
    pa.array([[1.0], [], None]),
    pa.array([{"a": 1}] * 3),
    pa.nulls(3),
    pa.array([b"\xff", b"", b"a"]),
    pa.array([1.5, None, float("nan")]),
    pa.array([[1.0, 2.0, 3.0]] * 3, pa.list_(pa.float32(), 3)),
    pa.array([1, 2, 3], pa.decimal128(5, 2)),
]
_HEADERS = ["Instar-Key", "Instar-Event-Time", "Instar-Timeout", "Accept", "Accept-Encoding", "Content-Encoding"]
_SAID = [
    "text/csv",
    "identity",
    "",
    "a",
    "30s",
    "-1s",
    "1e400",
    "2013-03-01T08:15:00Z",
    "0001-01-01T00:00:00+23:59",
    "gzip",
    "\xff",
    "*/*",
]
_PATHS = [
    *("/v2", "/v2/", "/v2/nothing", "/v2/health/ready", "/v2/models", "/v2/models/delay", "/invocations"),
    *("/v2/models//infer", "/v2/models/%00/infer", "/v2/models/%ff/infer", "/v2/models/..%2f..%2f/infer"),
    *("/v2/models/delay/versions/9/infer", "/v2/models/delay/versions/-1/infer", "/v2/models/delay/infer/"),
    *("/v2/models/delay/infer?x=%", "/v2/models/" + "a" * 3000 + "/infer"),
]
_METHODS = ["POST", "GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"]


def _good(endpoint: str, kind: str) -> list[Any]:
    """Bodies in JSON that are answered, as a start."""
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    if kind == "infer":
        return [fakes.body(), tensor_fakes.body(1, 2)] if endpoint == "delay" else [tensor_fakes.body(1, 2, id="again")]
    if kind == "records":
        return [{"records": ROWS, "id": "again"}, ROWS, ROWS[0], {"records": [{"x": [1, 2, 3], "words": "a"}]}]
    split = {"columns": list(ROWS[0]), "data": [list(row.values()) for row in ROWS]}
    tensors = {"inputs": {"x": [[1, 2, 3]], "words": ["a"]}}
    return [{"dataframe_split": split}, {"dataframe_records": ROWS}, {"instances": ROWS}, {"inputs": columns}, tensors]


@st.composite
def _bent(draw: st.DrawFn, good: Any) -> bytes:
    """A good body in JSON, with values, members or lengths that are no good."""
    body = copy.deepcopy(good)
    for _ in range(draw(st.integers(0, 3))):
        at: Any = body
        while isinstance(at, dict | list) and at:
            where = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
            inner = at[where]
            if isinstance(inner, dict | list) and inner and draw(st.integers(0, 4)):
                at = inner
                continue
            change = draw(st.sampled_from(["odd", "odd", "gone", "more", "twice"]))
            if change == "odd":
                at[where] = copy.deepcopy(draw(_odd))
            elif change == "gone":
                del at[where]
            elif isinstance(at, dict):
                at[draw(st.sampled_from(["extra", "data", "id", "parameters", "outputs", "", "params"]))] = (
                    copy.deepcopy(draw(_odd))
                )
            else:
                at.append(copy.deepcopy(inner if change == "twice" else draw(_odd)))
            break
    return json.dumps(body).encode()


@st.composite
def _damaged(draw: st.DrawFn, body: bytes) -> bytes:
    """Bytes changed, cut off or put behind."""
    bent = bytearray(body)
    for _ in range(draw(st.integers(0, 4))):
        if bent:
            bent[draw(st.integers(0, len(bent) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        del bent[draw(st.integers(0, len(bent))) :]
    return bytes(bent) + (draw(st.binary(max_size=9)) if not draw(st.integers(0, 3)) else b"")


@st.composite
def _binary(draw: st.DrawFn) -> tuple[bytes, str]:
    """A body with binary tensors whose sizes, shapes and types may lie, and the length of its head."""
    inputs, tail = [], b""
    for name, datatype, shape, data in (
        ("x", "FP32", [2, 3], bytes(24)),
        ("words", "BYTES", [2], struct.pack("<I", 1) + b"a" + struct.pack("<I", 0)),
        ("bias", "INT64", [2, 1], bytes(16)),
    ):
        lies = draw(st.integers(0, 7))
        size: Any = len(data) if lies else draw(st.one_of(_odd, st.integers(0, 40)))
        told = shape if lies != 1 else draw(st.lists(st.sampled_from([-1, 0, 1, 2, 3, 1 << 40, 1 << 62]), max_size=5))
        kind = datatype if lies != 2 else draw(st.sampled_from(_TYPES))
        given = data if lies != 3 else draw(st.binary(max_size=40))
        inputs.append({"name": name, "shape": told, "datatype": kind, "parameters": {"binary_data_size": size}})
        tail += given
    head: dict[str, Any] = {
        "inputs": inputs,
        "parameters": {"binary_data_output": draw(st.one_of(st.booleans(), _odd))},
    }
    if draw(st.booleans()):
        head["outputs"] = draw(
            st.lists(st.one_of(_odd, st.sampled_from([{"name": "score"}, {"name": "label"}])), max_size=3)
        )
    text = json.dumps(head).encode()
    length = str(len(text)) if draw(st.integers(0, 5)) else draw(st.sampled_from(_LENGTHS))
    return text + tail, length


@st.composite
def _arrow(draw: st.DrawFn) -> bytes:
    """An Arrow stream: rows that fit, columns of odd types, no rows, or damaged."""
    columns: dict[str, Any] = {name: pa.array([row[name] for row in ROWS]) for name in ROWS[0]}
    if draw(st.booleans()):
        columns[draw(st.sampled_from([*columns, "x", ""]))] = draw(st.sampled_from(_COLUMNS))
    table = pa.table(columns)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.slice(0, draw(st.sampled_from([0, 1, 3]))))
    return draw(st.one_of(st.just(sink.getvalue()), _damaged(sink.getvalue())))


_CSV = b"distance,hour,carrier,wind,holiday\r\n1000,8,UA,2.5,false\r\n4500.5,23,,,true\r\n"
_csv = st.one_of(
    _damaged(_CSV),
    st.sampled_from(
        [
            b"",
            b"\n",
            b"a,b",
            b'"',
            b"distance\n" + b'"' * 999,
            _CSV + b"1,2\n",
            b"hour,hour\n1,2\n",
            b"\xef\xbb\xbf" + _CSV,
        ]
    ),
    st.sampled_from(["nan", "inf", "1e999", "0x1", "١", "9" * 400, '"a""b"', "-0"]).map(
        lambda value: _CSV.replace(b"8", value.encode())
    ),
)


@st.composite
def _message(draw: st.DrawFn) -> bytes:
    """A message of gRPC: tensors in typed or raw contents that may lie, or bytes that are none."""
    from instar.serve.protocol.grpc_messages import message

    request = message("ModelInferRequest")(
        model_name=draw(st.sampled_from(["words", "words", "delay", "", "é"])), id="again"
    )
    for name, datatype, shape in (("x", "FP32", [1, 3]), ("words", "BYTES", [1])):
        told = shape if draw(st.integers(0, 3)) else draw(st.lists(st.sampled_from([-1, 0, 1, 3, 1 << 62]), max_size=4))
        kind = (
            datatype
            if draw(st.integers(0, 5))
            else draw(st.sampled_from(["BOOL", "FP16", "INT8", "UINT32", "", "FP64"]))
        )
        one = request.inputs.add(name=name, datatype=kind, shape=told)
        if draw(st.integers(0, 5)):
            one.contents.fp32_contents.extend(draw(st.lists(st.floats(width=32), max_size=4)) if name == "x" else [])
            one.contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=4), max_size=2)) if name != "x" else [])
    if draw(st.booleans()):
        for one in request.inputs:
            one.ClearField("contents")
        good = [bytes(12), struct.pack("<I", 1) + b"a"]
        request.raw_input_contents.extend(
            good if draw(st.booleans()) else draw(st.lists(st.binary(max_size=16), max_size=3))
        )
    whole = request.SerializeToString()
    return whole if draw(st.integers(0, 3)) else draw(_damaged(whole))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """One request of any form; now and then packed, or damaged on the way."""
    request = draw(_plain())
    if request.path is None or draw(st.integers(0, 7)):
        return request
    coding, pack = draw(st.sampled_from([("gzip", gzip.compress), ("deflate", zlib.compress), ("gzip", zlib.compress)]))
    body = pack(request.body)
    body = body if draw(st.integers(0, 3)) else draw(_damaged(body))
    return dataclasses.replace(request, body=body, headers={**request.headers, "Content-Encoding": coding})


@st.composite
def _plain(draw: st.DrawFn) -> Request:
    form = draw(
        st.sampled_from(["json", "json", "json", "raw", "binary", "binary", "csv", "arrow", "message", "elsewhere"])
    )
    if form == "message":
        return Request(None, draw(_message()))
    headers = draw(st.dictionaries(st.sampled_from(_HEADERS), st.sampled_from(_SAID), max_size=1))
    if form == "binary":
        body, length = draw(_binary())
        headers |= {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": length.encode().decode("latin-1"),
        }
        return Request("/v2/models/words/infer", body, headers)
    if form == "arrow":
        headers["Content-Type"] = "application/vnd.apache.arrow.stream"
        return Request(f"/v2/models/{draw(st.sampled_from(['delay', 'words']))}/infer", draw(_arrow()), headers)
    if form == "csv":
        headers["Content-Type"] = "text/csv"
        return Request(f"/endpoints/{draw(st.sampled_from(['delay', 'words']))}/invocations", draw(_csv), headers)
    endpoint, kind = (
        draw(st.sampled_from(["delay", "words"])),
        draw(st.sampled_from(["infer", "records", "invocations"])),
    )
    path = f"/endpoints/{endpoint}/invocations" if kind == "invocations" else f"/v2/models/{endpoint}/{kind}"
    headers["Content-Type"] = draw(
        st.sampled_from(["application/json"] * 6 + ["application/json; charset=latin-1", "text/plain", "", "a/b/c;;="])
    )
    body = draw(st.sampled_from(_RAW)) if form == "raw" else draw(_bent(draw(st.sampled_from(_good(endpoint, kind)))))
    if form != "elsewhere":
        return Request(path, body, headers)
    return Request(draw(st.sampled_from(_PATHS)), body, headers, draw(st.sampled_from(_METHODS)))
