"""The forms in which callers may ask, each against the one answer that the protocol's own JSON gives."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.core.errors import NotAcceptable, UnsupportedMedia
from instar.serve.protocol import places, wire
from instar.serve.protocol.forms import csv_rows
from instar.serve.protocol.forms.answer import Answer
from instar.serve.protocol.places import INFER, INVOCATIONS, RECORDS, Place, form_of, place_of
from instar.serve.protocol.replies import Output
from instar.serve.protocol.v2_json import Asked
from instar.serve.worker.runtime import Runtime
from tests.serve import fakes, tensor_fakes
from tests.serve.test_runtime import plan, replies

ROWS = [
    {"distance": 1000.0, "hour": 8, "carrier": "UA", "wind": None, "holiday": False},
    {"distance": 4500.5, "hour": 23, "carrier": None, "wind": 3.5, "holiday": True},
]


class Asking:
    """A worker that knows one route."""

    def __init__(self, folder: Path) -> None:
        self.runtime = Runtime(fakes.load)
        self.plan = plan(folder, [(fakes.version(folder, 1), "champion")], [])

    def __call__(self, body: bytes | str, form: int = wire.JSON, head: int = 0, **more: int) -> wire.Reply:
        data = body.encode() if isinstance(body, str) else body
        return replies(self.runtime.answer(self.plan, [(1, wire.Ask(data, form, head, **more))])[0])[1]


@pytest.fixture
def ask(tmp_path: Path) -> Asking:
    return Asking(tmp_path)


class Matrix(Asking):
    """A worker with a tensor model: `x` of three floats a row, `score` and `label` out."""

    def __init__(self, folder: Path) -> None:
        self.runtime = Runtime(tensor_fakes.load)
        self.plan = plan(folder, [(tensor_fakes.version(folder, 1), "champion")], [], tensor_fakes.SIGNATURE)


def v2(rows: list[dict[str, Any]] = ROWS) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": c.name, "shape": [len(rows)], "datatype": c.datatype, "data": [row[c.name] for row in rows]}
            for c in fakes.COLUMNS
        ]
    }


def csv_of(rows: list[dict[str, Any]] = ROWS) -> str:
    lines = [",".join(rows[0])]
    lines += [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
    return "\r\n".join(lines)


def arrow_of(rows: list[dict[str, Any]] = ROWS, **metadata: str) -> bytes:
    table = pa.Table.from_pylist(rows).replace_schema_metadata(metadata)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def binary_of(inputs: list[tuple[str, str, list[int], bytes]], **more: Any) -> tuple[bytes, int]:
    named = [
        {"name": n, "datatype": d, "shape": s, "parameters": {"binary_data_size": len(data)}}
        for n, d, s, data in inputs
    ]
    head = json.dumps({"inputs": named, **more}).encode()
    return head + b"".join(data for *_, data in inputs), len(head)


FORMS = {
    "records": (wire.RECORDS, lambda: json.dumps({"records": ROWS})),
    "a list of rows": (wire.RECORDS, lambda: json.dumps(ROWS)),
    "dataframe_records": (wire.INVOCATIONS, lambda: json.dumps({"dataframe_records": ROWS})),
    "instances": (wire.INVOCATIONS, lambda: json.dumps({"instances": ROWS})),
    "inputs": (wire.INVOCATIONS, lambda: json.dumps({"inputs": {k: [r[k] for r in ROWS] for k in ROWS[0]}})),
    "dataframe_split": (
        wire.INVOCATIONS,
        lambda: json.dumps({"dataframe_split": {"columns": list(ROWS[0]), "data": [list(r.values()) for r in ROWS]}}),
    ),
    "csv": (wire.CSV, csv_of),
    "arrow": (wire.ARROW, arrow_of),
}


def said(reply: wire.Reply) -> list[tuple[float, int]]:
    """Score and decision of each row, whatever form the answer has."""
    assert reply.status == 200, reply.body
    if reply.form == wire.ARROW:
        table = pa.ipc.open_stream(reply.body).read_all()
        return list(zip(table["score"].to_pylist(), table["decision"].to_pylist(), strict=True))
    body = json.loads(reply.body)
    rows = body.get("records") or body.get("predictions")
    if rows is None:
        score, decision = body["outputs"]
        return list(zip(score["data"], decision["data"], strict=True))
    return [(row["score"], row["decision"]) for row in rows]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_answered_as_the_protocols_own(ask: Asking, name: str) -> None:
    form, made = FORMS[name]
    reply = ask(made(), form)
    assert said(reply) == said(ask(json.dumps(v2()), wire.JSON)) == [(0.1, 0), (0.45005, 0)]
    assert reply.form == (wire.INVOCATIONS if form == wire.CSV else form)


def test_one_object_is_one_row_and_names_who_answered(ask: Asking) -> None:
    body = json.loads(ask(json.dumps(ROWS[0]), wire.RECORDS).body)
    assert body["records"] == [{"score": 0.1, "decision": 0}]
    assert (body["model_name"], body["model_version"]) == ("delay", "1")
    body = json.loads(ask(json.dumps({"id": "mine", "records": ROWS[:1]}), wire.RECORDS).body)
    assert body["id"] == "mine"


def test_a_row_may_leave_out_what_may_be_missing_and_nothing_else(ask: Asking) -> None:
    row = {"distance": 1000, "hour": 8, "holiday": False}
    assert said(ask(json.dumps([row, {**row, "carrier": "UA"}]), wire.RECORDS)) == [(0.1, 0), (0.1, 0)]
    del row["hour"]
    reply = ask(json.dumps({"records": [ROWS[0], row]}), wire.RECORDS)
    assert reply.status == 400
    assert json.loads(reply.body)["path"] == "$.records[1]"


@pytest.mark.parametrize(
    ("form", "body", "path"),
    [
        (wire.RECORDS, '{"records": [{"distance": "far"}]}', "$.records[*].distance"),
        (wire.RECORDS, json.dumps({"records": [ROWS[0], {**ROWS[1], "hour": 1 << 70}]}), "$.records[1].hour"),
        (wire.RECORDS, json.dumps([{**ROWS[0], "hour": 1.5}]), "$[0].hour"),
        (wire.RECORDS, json.dumps({**ROWS[0], "hour": "8"}), "$.hour"),
        (wire.RECORDS, json.dumps([{**ROWS[0], "Hour": 1}]), "$[0].Hour"),
        (wire.RECORDS, '{"records": [], "id": 7}', "$.id"),
        (wire.RECORDS, "[]", "$"),
        (wire.RECORDS, "[1]", "$[0]"),
        (wire.RECORDS, '{"records": [{}], "rows": 1}', "$.rows"),
        (wire.INVOCATIONS, "{}", "$"),
        (wire.INVOCATIONS, "[]", "$"),
        (wire.INVOCATIONS, '{"instances": [], "inputs": []}', "$"),
        (wire.INVOCATIONS, '{"instances": []}', "$.instances"),
        (wire.INVOCATIONS, '{"instances": [[1, 2]]}', "$.instances[0]"),
        (wire.INVOCATIONS, '{"inputs": {"distance": 3}}', "$.inputs.distance"),
        (wire.INVOCATIONS, '{"inputs": {"Distance": [3]}}', "$.inputs.Distance"),
        (wire.INVOCATIONS, '{"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}', "$.dataframe_split.data[0]"),
        (wire.INVOCATIONS, '{"dataframe_records": [{}], "params": {"a": 1}}', "$.params"),
        (wire.INVOCATIONS, '{"dataframe_records": [{}], "params": true}', "$.params"),
        (
            wire.INVOCATIONS,
            json.dumps({"dataframe_records": [{**ROWS[0], "hour": None}]}),
            "$.dataframe_records[0].hour",
        ),
    ],
)
def test_a_refusal_says_where_the_fault_is_in_what_was_sent(ask: Asking, form: int, body: str, path: str) -> None:
    reply = ask(body, form)
    told = json.loads(reply.body)
    assert reply.status == 400
    if path == "$.records[*].distance":  # the missing inputs are found first
        assert told["kind"] in ("MissingInput", "WrongDatatype")
    else:
        assert told["path"] == path, told
    if form == wire.INVOCATIONS:
        assert (told["error_code"], told["message"]) == ("BAD_REQUEST", told["error"])


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (csv_of().replace("23", "noon"), "line 3, column hour"),
        (csv_of().replace("True", "perhaps"), "line 3, column holiday"),
        (csv_of() + "\r\n1,2", "line 4"),
        (csv_of().replace("hour", "hours"), "line 1"),
        ("distance", "line 1"),
        (b"\xff\xfe\x00", "line 1"),
    ],
)
def test_a_csv_is_refused_with_its_line(ask: Asking, body: str | bytes, where: str) -> None:
    reply = ask(body, wire.CSV)
    assert reply.status == 400
    assert json.loads(reply.body)["error"].startswith(f"{where}:")


def test_an_arrow_stream_is_refused_where_it_does_not_fit(ask: Asking) -> None:
    whole = arrow_of()
    for body in (b"", b"ARROW1", whole[:-40], whole[:200]):
        assert ask(body, wire.ARROW).status == 400
    for rows, where in (
        ([{**ROWS[0], "hour": "8"}], "column hour"),
        ([{**ROWS[0], "hour": None}], "column hour, row 0"),
        ([{**ROWS[0], "extra": 1}], "column extra"),
    ):
        reply = ask(arrow_of(rows), wire.ARROW)
        assert reply.status == 400
        assert json.loads(reply.body)["error"].startswith(f"{where}:"), reply.body
    odd = pa.table({"hour": pa.array([1], pa.timestamp("us"))})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, odd.schema) as stream:
        stream.write_table(odd)
    assert b"timestamp" in ask(sink.getvalue(), wire.ARROW).body
    reply = ask(arrow_of(id="mine"), wire.ARROW)
    assert pa.ipc.open_stream(reply.body).schema.metadata[b"id"] == b"mine"


def test_tensors_are_read_and_answered_in_binary(tmp_path: Path) -> None:
    ask = Matrix(tmp_path)
    plain = json.loads(ask(json.dumps(tensor_fakes.body(1, 4)), wire.JSON).body)["outputs"]
    given = given_of(tensor_fakes.body(1, 4))
    body, head = binary_of(given, parameters={"binary_data_output": True}, id="mine")
    reply = ask(body, wire.BINARY, head)
    assert (reply.status, reply.form) == (200, wire.BINARY)
    told = json.loads(reply.body[: reply.head])
    assert told["id"] == "mine"
    score, label = told["outputs"]
    assert "data" not in score
    sizes = [one["parameters"]["binary_data_size"] for one in (score, label)]
    tail = reply.body[reply.head :]
    assert len(tail) == sum(sizes)
    assert np.frombuffer(tail[: sizes[0]], "<f4").tolist() == plain[0]["data"]
    assert tail[sizes[0] :] == b"".join(struct.pack("<I", len(t)) + t.encode() for t in plain[1]["data"])
    # One output in binary, the other in JSON; and all in JSON, which is what a caller gets who does not say.
    wanted = [{"name": "label", "parameters": {"binary_data": True}}, {"name": "score"}]
    body, head = binary_of(given, outputs=wanted)
    reply = ask(body, wire.BINARY, head)
    told = json.loads(reply.body[: reply.head])
    assert [("data" in one) for one in told["outputs"]] == [False, True]
    body, head = binary_of(given)
    reply = ask(body, wire.BINARY, head)
    assert reply.form == wire.JSON
    assert json.loads(reply.body)["outputs"] == plain
    # Asked in JSON, answered in binary.
    reply = ask(json.dumps({**tensor_fakes.body(1, 4), "parameters": {"binary_data_output": True}}), wire.JSON)
    assert reply.form == wire.BINARY


def test_columns_are_read_in_binary(ask: Asking) -> None:
    texts = b"".join(struct.pack("<I", len(t)) + t for t in (b"UA", b"AA"))
    body, head = binary_of(
        [
            ("distance", "FP64", [2], np.array([1000.0, 4500.5]).tobytes()),
            ("hour", "INT32", [2], np.array([8, 23], "<i4").tobytes()),
            ("carrier", "BYTES", [2], texts),
            ("wind", "FP64", [2], np.array([1.0, 3.5]).tobytes()),
            ("holiday", "BOOL", [2], b"\0\1"),
        ]
    )
    assert said(ask(body, wire.BINARY, head)) == [(0.1, 0), (0.45005, 0)]


def given_of(request: dict[str, Any]) -> list[tuple[str, str, list[int], bytes]]:
    """The tensors of a request in JSON, in binary."""
    found = []
    for one in request["inputs"]:
        if one["datatype"] == "BYTES":
            data = b"".join(struct.pack("<I", len(text)) + text.encode() for text in one["data"])
        else:
            data = np.asarray(one["data"], {"FP32": "<f4", "INT64": "<i8"}[one["datatype"]]).tobytes()
        found.append((one["name"], one["datatype"], one["shape"], data))
    return found


def good() -> tuple[bytes, int]:
    return binary_of(given_of(tensor_fakes.body(1)))


@pytest.mark.parametrize(
    ("inputs", "path"),
    [
        ([("x", "FP32", [1, 3], b"\0" * 8)], "$.inputs[0].shape"),
        ([("x", "FP32", [1, 3], b"\0" * 11)], "$.inputs[0].parameters.binary_data_size"),
        ([("x", "FP32", [-1, 3], b"\0" * 12)], "$.inputs[0].shape"),
        ([("x", "FP99", [1, 3], b"\0" * 12)], "$.inputs[0].datatype"),
        ([("x", "BYTES", [1, 3], b"\xff\xff\xff\xff")], "$.inputs[0].data[0]"),
        ([("x", "BYTES", [1], struct.pack("<I", 1) + b"\xff")], "$.inputs[0].data[0]"),
        ([("x", "BOOL", [1, 3], b"\0\1\2")], "$.inputs[0]"),
    ],
)
def test_binary_tensors_that_lie_are_refused(tmp_path: Path, inputs: Any, path: str) -> None:
    body, head = binary_of(inputs)
    reply = Matrix(tmp_path)(body, wire.BINARY, head)
    assert reply.status == 400
    assert json.loads(reply.body)["path"] == path


def test_a_binary_body_that_is_cut_or_too_long_is_refused(tmp_path: Path) -> None:
    ask = Matrix(tmp_path)
    body, head = good()
    assert ask(body, wire.BINARY, head).status == 200
    for cut, length in ((body[:-1], head), (body + b"x", head), (body, len(body) + 9), (body, head - 1), (body, 0)):
        assert ask(cut, wire.BINARY, length).status == 400


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_body_is_a_fault_of_the_worker(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bodies that were damaged anywhere are answered or refused, never a failure."""
    folder = tmp_path_factory.mktemp("fuzz")
    table, matrix = Asking(folder), Matrix(folder / "m")
    made: list[tuple[Asking, bytes, int, int]] = []
    for form, make in FORMS.values():
        made_body = make()
        made.append((table, made_body if isinstance(made_body, bytes) else made_body.encode(), form, 0))
    body, head = good()
    made.append((matrix, body, wire.BINARY, head))
    ask, body, form, head = data.draw(st.sampled_from(made))
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))
    assert ask(bytes(damaged[:cut]), form, head).status in (200, 400)


def test_paths_name_endpoint_version_and_kind() -> None:
    assert place_of(b"/v2/models/delay/infer")[:3] == ("delay", None, INFER)  # type: ignore[index]
    assert place_of(b"/v2/models/a%20b/versions/3/infer?x=1")[:3] == ("a b", "3", INFER)  # type: ignore[index]
    assert place_of(b"/v2/models/delay/records/")[:3] == ("delay", None, RECORDS)  # type: ignore[index]
    assert place_of(b"/endpoints/delay/invocations")[:3] == ("delay", None, INVOCATIONS)  # type: ignore[index]
    assert place_of(b"/invocations") == Place(None, None, INVOCATIONS, "/invocations")
    for other in (b"/", b"/v2", b"/v2/models/delay", b"/v2/models/delay/infer/x", b"/v2/models/%ff/infer", b"*"):
        assert place_of(other) is None


def test_targets_that_callers_make_up_are_not_kept_for_ever() -> None:
    for number in range(places.KNOWN_LIMIT + 10):
        place_of(b"/v2/models/%d/infer" % number)
    assert len(places._known) <= places.KNOWN_LIMIT


def test_the_content_type_says_the_form() -> None:
    assert form_of(INFER, None, None) == (wire.JSON, 0)
    assert form_of(INFER, b"Application/JSON; charset=utf-8", None) == (wire.JSON, 0)
    assert form_of(INFER, b"application/octet-stream", b"17") == (wire.BINARY, 17)
    assert form_of(INFER, b"application/vnd.apache.arrow.stream", None) == (wire.ARROW, 0)
    assert form_of(INVOCATIONS, b"text/csv", None) == (wire.CSV, 0)
    for kind, media in ((INFER, b"text/csv"), (RECORDS, b"text/plain"), (INVOCATIONS, b"application/octet-stream")):
        with pytest.raises(UnsupportedMedia):
            form_of(kind, media, None)


@pytest.mark.parametrize(
    ("kind", "form", "accept", "answer"),
    [
        (INFER, wire.JSON, b"application/json", wire.JSON),
        (INFER, wire.JSON, b"text/csv", wire.CSV),
        (INFER, wire.JSON, b"Application/vnd.apache.arrow.stream; charset=x", wire.ARROW),
        (INFER, wire.JSON, b"application/octet-stream", wire.BINARY),
        (INFER, wire.JSON, b"text/html, application/xhtml+xml, */*;q=0.8", wire.SAME),
        (INFER, wire.ARROW, b"*/*", wire.SAME),
        (INFER, wire.ARROW, b"application/json, */*;q=0.5", wire.JSON),
        (INFER, wire.ARROW, b"application/*", wire.SAME),
        (INFER, wire.JSON, b"text/*, application/json;q=0.9", wire.CSV),
        (INFER, wire.JSON, b"application/json;q=0, */*", wire.BINARY),
        (RECORDS, wire.RECORDS, b"application/json", wire.RECORDS),
        (RECORDS, wire.RECORDS, b"text/csv;q=0.9, application/vnd.apache.arrow.stream", wire.ARROW),
        (INVOCATIONS, wire.CSV, b"text/csv, application/json", wire.INVOCATIONS),
        (INVOCATIONS, wire.CSV, b"text/csv", wire.CSV),
    ],
)
def test_a_caller_says_which_answer_it_takes(kind: str, form: int, accept: bytes, answer: int) -> None:
    assert places.answer_of(kind, form, accept) == answer


@pytest.mark.parametrize("accept", [b"", b"image/png", b"application/json;q=0", b"application/octet-stream", b"\xff"])
def test_who_takes_no_answer_that_there_is_hears_which_there_are(accept: bytes) -> None:
    with pytest.raises(NotAcceptable, match=r"application/json, .*text/csv"):
        places.answer_of(RECORDS, wire.RECORDS, accept)


@pytest.mark.parametrize("form", ["records", "dataframe_split", "csv", "arrow"])
def test_every_form_can_be_answered_in_every_other(ask: Asking, form: str) -> None:
    number, made = FORMS[form]
    wanted = [(0.1, 0), (0.45005, 0)]
    for answer in (wire.JSON, wire.RECORDS, wire.INVOCATIONS, wire.ARROW):
        assert said(ask(made(), number, answer=answer)) == wanted
    lines = ask(made(), number, answer=wire.CSV)
    assert (lines.form, lines.body) == (wire.CSV, b"score,decision\r\n0.1,0\r\n0.45005,0\r\n")
    packed = ask(made(), number, answer=wire.BINARY)
    assert (packed.form, packed.body[packed.head :]) == (wire.BINARY, struct.pack("<2d2q", 0.1, 0.45005, 0, 0))


def test_outputs_with_several_values_a_row_have_a_column_each() -> None:
    outputs = [
        Output("y", [2, 2], "FP32", np.array([[1.5, float("nan")], [2.5, 3.5]], dtype=np.float32)),
        Output("word", [2], "BYTES", ["a,b", 'say "no"']),
        Output("good", [2], "BOOL", [True, False]),
    ]
    answer = Answer("words", "1", Asked(), {}, lambda plain: outputs)
    body, form, head = csv_rows.write(answer)
    assert (form, head) == (wire.CSV, 0)
    assert body.decode() == 'y[0],y[1],word,good\r\n1.5,,"a,b",true\r\n2.5,3.5,"say ""no""",false\r\n'


@pytest.mark.parametrize("shapes", [([2], [3]), ([], []), ([2], [])])
def test_what_is_no_rows_is_no_csv(shapes: tuple[list[int], list[int]]) -> None:
    outputs = [Output(f"y{at}", shape, "FP32", [0.5] * 3) for at, shape in enumerate(shapes)]
    with pytest.raises(NotAcceptable, match="not rows"):
        csv_rows.write(Answer("words", "1", Asked(), {}, lambda plain: outputs))


def test_binary_tensors_have_no_place_in_other_forms(ask: Asking) -> None:
    body = json.dumps({"records": ROWS, "parameters": {"binary_data_output": True}})
    refused = ask(body, wire.RECORDS)
    assert (refused.status, json.loads(refused.body)["path"]) == (400, "$.parameters")
