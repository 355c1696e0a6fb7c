"""What is not inference reaches the control process as it was sent, and its answers come back as they were given."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from instar.serve.process import ServerTree
from instar.serve.routes import control_socket, make_run_folder
from tests.serve.conftest import start, wait_for


async def control(scope: Any, receive: Any, send: Any) -> None:
    """Says what it received; sends a stream in parts when asked for one."""
    if scope["type"] != "http":
        return
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    place = f"{scope['raw_path'].decode()}?{scope['query_string'].decode()}"
    said = f"{scope['method']} {place} {size} {headers.get('x-mine')} {headers['host']}"
    fields = [(b"x-said", said.encode()), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    status = 418 if scope["path"] == "/teapot" else 200
    await send({"type": "http.response.start", "status": status, "headers": fields})
    for _ in range(5 if scope["path"] == "/stream" else 0):
        await send({"type": "http.response.body", "body": b"p" * 1000, "more_body": True})
        await asyncio.sleep(0.01)
    await send({"type": "http.response.body", "body": b"end"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerTree]:
    folder = tmp_path_factory.mktemp("relay") / ".instar"
    with start(folder) as tree:
        path = control_socket(make_run_folder(folder).parents[1])
        config = uvicorn.Config(control, uds=str(path), log_level="error", lifespan="off", server_header=False)
        behind = uvicorn.Server(config)
        thread = threading.Thread(target=behind.run, daemon=True)
        thread.start()
        wait_for(lambda: behind.started)
        yield tree
        behind.should_exit = True
        thread.join(10)
        Path(path).unlink(missing_ok=True)


def test_method_path_query_headers_and_body_reach_it(server: ServerTree) -> None:
    reply = httpx2.put(f"{server.url}/api/a%20b/%2F?x=1&y=%26", content=b"12345", headers={"x-mine": "yes"}, timeout=30)
    host = server.url.removeprefix("http://")
    assert reply.headers["x-said"] == f"PUT /api/a%20b/%2F?x=1&y=%26 5 yes {host}"
    assert reply.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert reply.content == b"end"


def test_statuses_and_empty_bodies_pass(server: ServerTree) -> None:
    assert httpx2.get(f"{server.url}/teapot", timeout=30).status_code == 418
    assert httpx2.head(f"{server.url}/", timeout=30).headers["x-said"].startswith("HEAD /? 0")


def test_bodies_stream_both_ways(server: ServerTree) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(200):
            yield b"x" * 100_000

    with httpx2.stream("POST", f"{server.url}/stream", content=parts(), timeout=30) as reply:
        sizes = [len(part) for part in reply.iter_raw()]
    assert " 20000000 " in reply.headers["x-said"]
    assert sum(sizes) == 5003
    assert len(sizes) > 2
