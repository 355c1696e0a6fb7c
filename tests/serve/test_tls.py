"""TLS on the server's own ports: the same calls, who may still speak plainly, and certificates that change.

The pairs in `certificates/` are for these tests alone: self-signed, for 127.0.0.1 and localhost, until 2126.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx2
import pytest

from instar.core.errors import BadInput, Unavailable
from instar.core.settings import read_settings
from instar.serve.access.certificates import Certificate
from instar.serve.protocol.grpc_messages import message
from instar.serve.root.process import ServerTree
from tests.serve import fakes
from tests.serve.conftest import acknowledged, start
from tests.serve.played import OK, Played, read_head
from tests.serve.raw import BODY, URL, answers, connect, distance, request, to_the_end
from tests.serve.test_grpc import infer

HERE = Path(__file__).parent / "certificates"
ONE, OTHER = HERE / "one.pem", HERE / "other.pem"


def pair(certificate: Path) -> dict[str, str]:
    return {"INSTAR_TLS_CERT": str(certificate), "INSTAR_TLS_KEY": str(certificate.with_suffix(".key"))}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerTree]:
    folder = tmp_path_factory.mktemp("tls") / ".instar"
    number = fakes.route(folder, [fakes.version(folder, 1), fakes.version(folder, 2, quirk="slow")])
    with start(folder, grpc_port=0, environment={**pair(ONE), "INSTAR_HEAD_TIMEOUT": "2"}) as running:
        acknowledged(folder, number)
        yield running


def secure(server: ServerTree, trusted: Path = ONE) -> ssl.SSLSocket:
    return ssl.create_default_context(cafile=str(trusted)).wrap_socket(connect(server), server_hostname="localhost")


def test_calls_are_answered_in_order_whole_or_in_pieces(server: ServerTree) -> None:
    with secure(server) as raw:
        asked = [float(number) for number in range(50)]
        raw.sendall(b"".join(request(json.dumps(fakes.body(one)).encode()) for one in asked))
        assert [distance(body) for _, body in answers(raw, len(asked))] == asked
        for byte in request()[:40]:
            raw.sendall(bytes([byte]))
        raw.sendall(request()[40:])
        assert [status for status, _ in answers(raw, 1)] == [200]
        rows = 20_000
        inputs = [{**one, "shape": [rows], "data": one["data"] * rows} for one in fakes.body()["inputs"]]
        raw.sendall(request(json.dumps({"inputs": inputs}).encode()))
        ((status, body),) = answers(raw, 1)
        assert (status, json.loads(body)["outputs"][0]["shape"]) == (200, [rows])


def test_refusals_are_heard(server: ServerTree) -> None:
    with secure(server) as raw:
        raw.sendall(request(b"", "Content-Length: 1000000000"))
        assert to_the_end(raw).startswith(b"HTTP/1.1 413 ")
    with secure(server) as raw:
        raw.sendall(request(BODY, "Connection: close"))
        assert to_the_end(raw).startswith(b"HTTP/1.1 200 ")


def test_who_does_not_trust_the_certificate_hears_nothing(server: ServerTree) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        secure(server, OTHER)
    with secure(server) as raw:
        raw.sendall(request())
        assert [status for status, _ in answers(raw, 1)] == [200]


def test_plain_http_is_for_this_machine_alone(server: ServerTree) -> None:
    assert httpx2.post(server.url + URL, content=BODY, timeout=30).status_code == 200
    with socket.socket() as raw:
        raw.settimeout(20)
        raw.bind(("127.0.0.2", 0))  # as seen from the server, another machine
        raw.connect(("127.0.0.1", server.port))
        raw.sendall(request())
        found = to_the_end(raw)
    assert found.startswith(b"HTTP/1.1 400 ")
    assert "use https" in json.loads(found.partition(b"\r\n\r\n")[2])["error"]


def test_a_handshake_that_does_not_end_is_hung_up_on(server: ServerTree) -> None:
    with connect(server) as raw:
        raw.sendall(b"\x16\x03\x01\x02\x00")
        assert to_the_end(raw) == b""
    with connect(server) as raw:
        raw.sendall(b"\x16 nonsense \r\n\r\n")
        to_the_end(raw)  # an alert, or nothing
    with secure(server) as raw:
        raw.sendall(request())
        assert [status for status, _ in answers(raw, 1)] == [200]


def test_the_control_process_hears_by_what_a_request_came(server: ServerTree) -> None:
    heads: list[bytes] = []

    def part(connection: socket.socket) -> None:
        while True:
            heads.append(read_head(connection))
            connection.sendall(OK)

    asked = b"GET /mlflow/ajax HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: gopher\r\n\r\n"
    with Played(server, part), secure(server) as raw, connect(server) as plain:
        for one in (raw, plain):
            one.sendall(asked)
            assert [status for status, _ in answers(one, 1)] == [200]
    told = [[line for line in head.lower().split(b"\r\n") if line.startswith(b"x-forwarded-proto")] for head in heads]
    assert told == [[b"x-forwarded-proto: https"], [b"x-forwarded-proto: gopher"]]


def test_grpc_speaks_it_too(server: ServerTree) -> None:
    address = f"localhost:{server.state.grpc_port}"
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(ONE.read_bytes())) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=message("ModelInferRequest").SerializeToString,
            response_deserializer=message("ModelInferResponse").FromString,
        )
        assert call(infer(), timeout=30).outputs


def test_a_server_that_ends_answers_what_it_was_asked(tmp_path: Path) -> None:
    folder = tmp_path / ".instar"
    number = fakes.route(folder, [fakes.version(folder, 1, quirk="slow")])
    with start(folder, environment=pair(ONE)) as server:
        acknowledged(folder, number)
        with secure(server) as raw:
            raw.sendall(request())
            assert [status for status, _ in answers(raw, 1)] == [200]
            raw.sendall(request() * 5)
            server.stop()
            assert to_the_end(raw).count(b"HTTP/1.1 200 ") == 5


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"INSTAR_TLS_CERT": str(ONE)}, "given together"),
        ({**pair(ONE), "INSTAR_TLS_KEY": str(OTHER.with_suffix(".key"))}, "cannot be used together"),
        ({**pair(ONE), "INSTAR_TLS_KEY": str(ONE)}, "cannot be used together"),
        (pair(HERE / "none.pem"), "cannot be read"),
    ],
)
def test_a_pair_that_cannot_be_used_is_refused_before_anything_listens(
    tmp_path: Path, values: dict[str, str], word: str
) -> None:
    with pytest.raises(BadInput, match=word):
        Certificate.of(read_settings(values))
    if "none.pem" in str(values):
        with pytest.raises(Unavailable, match=word):
            start(tmp_path / ".instar", environment=values)


def test_files_that_change_are_taken_up_unless_they_do_not_fit(tmp_path: Path) -> None:
    def put(certificate: Path, key: Path) -> None:
        for file, name in ((certificate, "a.pem"), (key, "a.key")):
            shutil.copy(file, tmp_path / f"{name}.new")
            os.replace(tmp_path / f"{name}.new", tmp_path / name)

    put(ONE, ONE.with_suffix(".key"))
    assert Certificate.of(read_settings({})) is None
    held = Certificate.of(read_settings(pair(tmp_path / "a.pem")))
    assert held is not None
    first = held.context
    held.look()
    assert held.context is first
    put(OTHER, ONE.with_suffix(".key"))  # half of a change
    held.look()
    assert held.context is first
    (tmp_path / "a.pem").unlink()
    held.look()
    assert held.context is first
    put(OTHER, OTHER.with_suffix(".key"))
    held.look()
    assert held.context is not first
