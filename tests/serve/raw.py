"""Requests as bytes on a connection, and what comes back, for tests that say them letter by letter."""

from __future__ import annotations

import json
import socket

from instar.serve.root.process import ServerTree
from tests.serve import fakes

URL = "/v2/models/delay/infer"
BODY = json.dumps(fakes.body(1000)).encode()


def request(body: bytes = BODY, *fields: str, version: str = "1.1", path: str = URL) -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: 127.0.0.1", "Content-Type: application/json", *fields]
    if not any(field.lower().startswith(("content-length", "transfer-encoding")) for field in fields):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def connect(server: ServerTree) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def to_the_end(raw: socket.socket) -> bytes:
    """All that comes until the server hangs up."""
    found = b""
    try:
        while part := raw.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def answers(raw: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """Statuses and bodies of so many answers, in order."""
    found, data = [], b""
    while len(found) < count:
        head, gap, rest = data.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), None)
        if gap and length is not None and len(rest) >= length:
            found.append((int(head.split()[1]), rest[:length]))
            data = rest[length:]
            continue
        part = raw.recv(65536)
        assert part, (found, data)
        data += part
    assert not data
    return found


def distance(answer: bytes) -> float:
    """What the fake model was asked for."""
    return float(round(json.loads(answer)["outputs"][0]["data"][0] * 10_000))
