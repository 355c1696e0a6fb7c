"""Personal inputs through every door of a real server: no byte under the store, log or error, has one of their values."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx2
import msgspec
import numpy as np
import pyarrow as pa
import pytest

from instar.serve.log.calls import CallLog
from instar.serve.protocol.grpc_messages import message
from instar.serve.protocol.signature import Signature
from instar.serve.root.process import ServerTree
from instar.serve.traffic.policy import Canary, Shadow
from tests.serve import fakes, tensor_fakes
from tests.serve.conftest import acknowledged, start, wait_for
from tests.serve.test_server import log as log

NAME = "Zaphod-Beeblebrox"  # a text that tells of a person
NUMBER = 7234.5671875  # a number that does; exact as FP32, too
KEY = "passenger-4242"  # a routing key and an entity
ROW = {"distance": NUMBER, "hour": 8, "carrier": NAME, "wind": None, "holiday": False}


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerTree]:
    """`delay` answers, with a canary and a shadow that quote what they got; `broken` fails and does; `flight` has tensors."""
    personal = {"distance", "carrier"}
    columns = Signature(tuple(msgspec.structs.replace(c, personal=c.name in personal) for c in fakes.COLUMNS))
    tensors = msgspec.structs.replace(
        tensor_fakes.SIGNATURE,
        tensors=tuple(msgspec.structs.replace(t, personal=t.name != "bias") for t in tensor_fakes.SIGNATURE.tensors),
    )
    good = fakes.version(folder, 1, bias=0.1)
    bad = [fakes.version(folder, number, quirk="quotes", bias=number) for number in (2, 3)]
    fakes.route(folder, [good, *bad], canary=Canary(2, 100), shadows=[Shadow(3, "rule")], signature=columns)
    fakes.route(folder, bad[:1], champion=2, endpoint="broken", signature=columns)
    number = fakes.route(
        folder, [tensor_fakes.version(folder, 1, "quotes")], endpoint="flight", signature=tensors
    )  # fmt: skip
    with start(folder, loader="tests.serve.test_personal:load", grpc_port=0) as running:
        acknowledged(folder, number)
        yield running


def load(folder: Path) -> Any:
    """Loader for workers: models of both kinds."""
    spec = json.loads((folder / "model.json").read_text())
    return fakes.load(folder) if "bias" in spec else tensor_fakes.load(folder)


def doors() -> list[tuple[str, bytes, dict[str, str]]]:
    """One good row in each form: path behind the endpoint, body, headers."""
    plain = {"content-type": "application/json"}
    v2 = {
        "parameters": {"entity": KEY},
        "inputs": [{"name": c.name, "shape": [1], "datatype": c.datatype, "data": [ROW[c.name]]} for c in fakes.COLUMNS],
    }  # fmt: skip
    parts = [struct.pack("<d", NUMBER), struct.pack("<q", 8), struct.pack("<I", len(NAME)) + NAME.encode(),
             struct.pack("<d", float("nan")), b"\0"]  # fmt: skip
    head = json.dumps(
        {
            "inputs": [
                {"name": c.name, "shape": [1], "datatype": c.datatype, "parameters": {"binary_data_size": len(part)}}
                for c, part in zip(fakes.COLUMNS, parts, strict=True)
            ]
        }
    ).encode()
    sink = io.BytesIO()
    table = pa.Table.from_pylist([ROW]).set_column(3, "wind", pa.array([None], pa.float64()))
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    csv = ",".join(ROW) + f"\n{NUMBER},8,{NAME},,false\n"
    split = {"dataframe_split": {"columns": list(ROW), "data": [list(ROW.values())]}}
    return [
        ("/v2/models/{}/infer", json.dumps(v2).encode(), plain),
        ("/v2/models/{}/infer", head + b"".join(parts),
         {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}),
        ("/v2/models/{}/infer", sink.getvalue(), {"content-type": "application/vnd.apache.arrow.stream"}),
        ("/v2/models/{}/records", json.dumps({"records": [ROW]}).encode(), plain),
        ("/endpoints/{}/invocations", json.dumps(split).encode(), plain),
        ("/endpoints/{}/invocations", csv.encode(), {"content-type": "text/csv"}),
    ]  # fmt: skip


def mistakes() -> list[tuple[str, bytes, dict[str, str]]]:
    """What is refused, each with a personal value where something else belongs."""
    plain = {"content-type": "application/json"}
    wrong = {**ROW, "distance": NAME}
    v2 = [{"name": c.name, "shape": [1], "datatype": c.datatype, "data": [wrong[c.name]]} for c in fakes.COLUMNS]
    split = {"dataframe_split": {"columns": list(ROW), "data": [[NAME]]}}
    return [
        ("/v2/models/{}/infer", json.dumps({"inputs": v2}).encode(), plain),
        ("/v2/models/{}/infer", json.dumps({"inputs": [{**v2[0], "name": NAME}]}).encode(), plain),
        ("/v2/models/{}/infer", json.dumps({"inputs": v2, "outputs": [{"name": NAME}]}).encode(), plain),
        ("/v2/models/{}/records", json.dumps({"records": [wrong]}).encode(), plain),
        ("/v2/models/{}/records", json.dumps({"records": [NAME]}).encode(), plain),
        ("/v2/models/{}/records", json.dumps({"records": [{**ROW, NAME: 1}]}).encode(), plain),
        ("/endpoints/{}/invocations", json.dumps(split).encode(), plain),
        ("/endpoints/{}/invocations", f"{','.join(ROW)}\n{NAME},8,UA,,false\n".encode(), {"content-type": "text/csv"}),
        ("/endpoints/{}/invocations", f"{NAME},8\n{NAME},9\n".encode(), {"content-type": "text/csv"}),
    ]


def by_grpc(server: ServerTree, endpoint: str, distance: float = NUMBER, text: str = NAME) -> str:
    """The same over gRPC; returns the call's id."""
    request = message("ModelInferRequest")(model_name=endpoint)
    raw = [struct.pack("<d", distance), struct.pack("<q", 8), struct.pack("<I", len(text)) + text.encode(),
           struct.pack("<d", float("nan")), b"\0"]  # fmt: skip
    for one in fakes.COLUMNS:
        request.inputs.add(name=one.name, datatype=one.datatype, shape=[1])
    request.raw_input_contents.extend(raw)
    with grpc.insecure_channel(f"127.0.0.1:{server.state.grpc_port}") as channel:
        ask = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=message("ModelInferRequest").SerializeToString,
            response_deserializer=message("ModelInferResponse").FromString,
        )
        try:
            _, call = ask.with_call(request, timeout=20, metadata=(("instar-key", KEY),))
        except grpc.RpcError as error:
            return str(dict(error.trailing_metadata())["instar-call"])
        return str(dict(call.trailing_metadata())["instar-call"])


def test_no_personal_value_is_on_the_disk(server: ServerTree, folder: Path, log: CallLog) -> None:
    calls: dict[str, list[str]] = {"delay": [], "broken": [], "flight": []}
    with httpx2.Client(base_url=server.state.url, headers={"instar-key": KEY}) as client:
        for endpoint in ("delay", "broken"):
            for path, body, headers in doors():
                reply = client.post(path.format(endpoint), content=body, headers=headers)
                assert reply.status_code == (200 if endpoint == "delay" else 500), reply.text
                calls[endpoint].append(reply.headers["instar-call"])
            calls[endpoint].append(by_grpc(server, endpoint))
        for path, body, headers in mistakes():
            reply = client.post(path.format("delay"), content=body, headers=headers)
            assert reply.status_code == 400, (path, body, reply.text)
            calls["delay"].append(reply.headers["instar-call"])
        asked = tensor_fakes.body(1, parameters={"entity": KEY})
        for x, word in ((NUMBER, "good"), (NUMBER, NAME), (NAME, "no number")):
            asked["inputs"][0]["data"], asked["inputs"][1]["data"] = [x, x, x], [word]
            reply = client.post("/v2/models/flight/infer", json=asked)
            calls["flight"].append(reply.headers["instar-call"])
    for endpoint, made in calls.items():
        for call in made:
            found = wait_for(lambda call=call: log.find(call))
            assert found["key"] in (KEY, None), endpoint  # it stands in the personal part, and can be asked for
            assert NAME not in str(found)
            assert str(NUMBER) not in str(found)
    server.stop()
    texts = [NAME.encode(), str(NUMBER).encode()]
    numbers = [np.array(NUMBER, kind).tobytes() for kind in ("<f8", ">f8", "<f4", ">f4")]
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for value in (*texts, *numbers):
                assert value not in data, (path, value, data[max(0, data.index(value) - 200) :][:300])


def test_what_was_refused_is_the_persons_too(folder: Path) -> None:
    """After the server ended: keys of failed calls stand in the part that an erasure takes."""
    from instar.serve.log import record, segments

    failed = 0
    for path in (folder / "calls").rglob("*.seg"):
        for frame in map(record.decode_frame, segments.read(path)[0]):
            entry = record.decode_entry(frame.metadata)
            if isinstance(entry, record.Call):
                assert entry.key is None
                assert frame.personal is not None
                assert record.decode_personal(frame.personal).key == KEY
                failed += entry.work is None
    assert failed
