"""Bodies come in whole or not at all, in memory or as files; files go out whole or the range that was asked for."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from instar.app import App
from instar.core import errors
from instar.core.identity import Permission
from instar.core.store import Store
from instar.interfaces.api import bodies, sending
from instar.interfaces.api.application import Application
from instar.interfaces.api.routes import Bound, Reply, Request, Route, Voice

DATA = bytes(range(256)) * 8192  # 2 MiB: several reads


class Kept:
    """Handlers that remember what reached them."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "file.bin"
        self.seen: list[tuple[str, bytes]] = []
        self.upload: Path | None = None

    def take(self, request: Request) -> Reply:
        """Take an upload."""
        assert request.upload is not None
        self.upload = request.upload
        self.seen.append((request.path["name"], request.upload.read_bytes()))
        return Reply({"size": request.upload.stat().st_size, "n": request.query_lists.get("n", [])})

    def move(self, request: Request) -> Reply:
        """Move an upload elsewhere."""
        assert request.upload is not None
        request.upload.rename(self.file)
        return Reply({})

    def give(self, request: Request) -> Reply:
        """Give a file."""
        return Reply(file=self.file, media_type="application/octet-stream", headers={"etag": '"one"'})

    def fill(self, request: Request) -> Reply:
        """Find the disk full while the upload is put away."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(self, request: Request) -> Reply:
        """Fail by a mistake of ours."""
        raise ZeroDivisionError("a mistake")


def _refuse(error: errors.InstarError) -> Reply:
    return Reply({"code": type(error).__name__}, 418, headers={"x-mine": "yes"})


MINE = Voice(("/mine",), _refuse)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


@pytest.fixture
def application(store: Store, tmp_path: Path, kept: Kept) -> Application:
    routes = [
        Route("PUT", "/files/{name}", Permission.TRAIN, kept.take, upload=True, bound=Bound.STORE),
        Route("POST", "/move", Permission.TRAIN, kept.move, upload=True, bound=Bound.STORE),
        Route("POST", "/fill", Permission.TRAIN, kept.fill, upload=True, bound=Bound.STORE),
        Route("GET", "/file", Permission.READ, kept.give, bound=Bound.STORE),
        Route("GET", "/mine/fail", Permission.READ, kept.fail, voice=MINE, bound=Bound.STORE),
        Route("PUT", "/mine/files/{name}", Permission.TRAIN, kept.take, upload=True, voice=MINE, bound=Bound.STORE),
    ]
    return Application(App(store, tmp_path), routes, upload_limit_bytes=8 * 1024 * 1024)


@pytest.fixture
def client(application: Application) -> Iterator[TestClient]:
    with TestClient(application, base_url="http://127.0.0.1") as client:
        yield client


def left(store: Store) -> list[Path]:
    return list(bodies.uploads_folder(store.folder).glob("*"))


def test_an_upload_reaches_the_handler_as_a_file_and_is_gone_afterwards(
    client: TestClient, kept: Kept, store: Store
) -> None:
    reply = client.put("/files/a?n=1&n=2", content=DATA, headers={"content-type": "text/plain"})
    assert reply.json() == {"size": len(DATA), "n": ["1", "2"]}
    assert kept.seen == [("a", DATA)]
    assert kept.upload is not None
    assert kept.upload.is_relative_to(store.folder)
    assert left(store) == []


def test_an_upload_in_chunks_needs_no_length(client: TestClient, kept: Kept) -> None:
    def parts() -> Iterator[bytes]:
        yield from (DATA[at : at + 100_000] for at in range(0, len(DATA), 100_000))

    assert client.put("/files/a", content=parts()).status_code == 200
    assert kept.seen == [("a", DATA)]


def test_an_empty_upload_is_an_empty_file(client: TestClient, kept: Kept) -> None:
    assert client.put("/files/a").status_code == 200
    assert kept.seen == [("a", b"")]


def test_a_handler_may_keep_the_file_by_a_rename(client: TestClient, kept: Kept, store: Store) -> None:
    assert client.post("/move", content=DATA).status_code == 200
    assert kept.file.read_bytes() == DATA
    assert left(store) == []


def test_an_upload_over_the_limit_is_refused(client: TestClient, kept: Kept, store: Store) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 1_000_000

    assert client.put("/files/a", content=b"x" * (8 * 1024 * 1024 + 1)).status_code == 413
    assert (kept.seen, left(store)) == ([], [])


async def _run(application: Application, messages: list[dict[str, Any]], headers: dict[str, str]) -> list[Any]:
    """Send messages of a request; what was sent back."""
    sent: list[Any] = []
    waiting = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(waiting)

    async def send(message: Any) -> None:
        sent.append(message)

    encoded = [(name.encode(), value.encode()) for name, value in {"host": "127.0.0.1", **headers}.items()]
    scope = {"type": "http", "method": "PUT", "path": "/files/a", "raw_path": b"/files/a", "query_string": b""}
    await application({**scope, "headers": encoded}, receive, send)
    return sent


@pytest.mark.parametrize(
    ("messages", "length"),
    [
        ([{"type": "http.request", "body": DATA, "more_body": True}, {"type": "http.disconnect"}], "4000000"),
        ([{"type": "http.disconnect"}], None),
        ([{"type": "http.request", "body": DATA}], str(len(DATA) + 1)),
    ],
    ids=["hung up in the middle", "hung up before", "shorter than it said"],
)
def test_half_an_upload_leaves_nothing_and_reaches_nobody(
    application: Application, kept: Kept, store: Store, messages: list[dict[str, Any]], length: str | None
) -> None:
    headers = {} if length is None else {"content-length": length}
    assert asyncio.run(_run(application, messages, headers)) == []
    assert (kept.seen, left(store)) == ([], [])


def test_a_declared_size_over_the_limit_is_refused_before_a_byte_is_read(application: Application) -> None:
    sent = asyncio.run(_run(application, [], {"content-length": str(10**12)}))
    assert sent[0]["status"] == 413


def test_a_full_disk_is_said_so_and_nothing_is_left(
    client: TestClient, kept: Kept, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(bodies.os, "write", full)
        reply = client.put("/files/a", content=DATA)
        other = client.put("/mine/files/a", content=DATA)
    assert reply.status_code == 507
    assert reply.json()["type"] == "StoreFull"
    assert "Make room" in reply.json()["next"]
    assert (other.status_code, other.json(), other.headers["x-mine"]) == (418, {"code": "StoreFull"}, "yes")
    assert client.post("/fill", content=b"1").status_code == 507
    assert (kept.seen, left(store)) == ([], [])


def test_a_compressed_body_is_refused_clearly(client: TestClient) -> None:
    reply = client.put("/files/a", content=b"x", headers={"content-encoding": "gzip"})
    assert reply.status_code == 400
    assert reply.json()["found"] == "gzip"


def test_uploads_of_a_server_that_was_killed_are_cleared(store: Store) -> None:
    folder = bodies.uploads_folder(store.folder)
    folder.mkdir()
    (folder / "tmp1").write_bytes(b"half")
    bodies.clear_uploads(store.folder)
    assert left(store) == []


SIZE = len(DATA)


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        (None, 200, 0, SIZE),
        ("bytes=0-0", 206, 0, 1),
        ("bytes=10-", 206, 10, SIZE),
        ("bytes=-5", 206, SIZE - 5, SIZE),
        (f"bytes=-{SIZE + 5}", 206, 0, SIZE),
        (f"bytes=5-{SIZE * 2}", 206, 5, SIZE),
        (f"bytes=1000-{SIZE - 2}", 206, 1000, SIZE - 1),
        ("bytes=5-3", 200, 0, SIZE),
        ("bytes=0-1,5-6", 200, 0, SIZE),
        ("bytes=-", 200, 0, SIZE),
        ("lines=1-2", 200, 0, SIZE),
    ],
)
def test_a_file_goes_out_whole_or_in_part(
    client: TestClient, kept: Kept, asked: str | None, status: int, start: int, stop: int
) -> None:
    kept.file.write_bytes(DATA)
    headers = {} if asked is None else {"range": asked}
    reply = client.get("/file", headers=headers)
    assert (reply.status_code, reply.content) == (status, DATA[start:stop])
    assert reply.headers["content-length"] == str(stop - start)
    assert reply.headers["accept-ranges"] == "bytes"
    if status == 206:
        assert reply.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    head = client.head("/file", headers=headers)
    assert (head.status_code, head.content, head.headers["content-length"]) == (status, b"", str(stop - start))


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=-0"])
def test_a_range_beyond_the_file_cannot_be_satisfied(client: TestClient, kept: Kept, asked: str) -> None:
    kept.file.write_bytes(DATA)
    reply = client.get("/file", headers={"range": asked})
    assert (reply.status_code, reply.headers["content-range"], reply.content) == (416, f"bytes */{SIZE}", b"")


def test_a_range_of_another_state_of_the_file_is_the_whole(client: TestClient, kept: Kept) -> None:
    kept.file.write_bytes(DATA)
    assert client.get("/file", headers={"range": "bytes=1-2", "if-range": '"one"'}).status_code == 206
    assert client.get("/file", headers={"range": "bytes=1-2", "if-range": '"two"'}).content == DATA


def test_an_empty_file_is_an_empty_answer(client: TestClient, kept: Kept) -> None:
    kept.file.write_bytes(b"")
    reply = client.get("/file")
    assert (reply.status_code, reply.headers["content-length"], reply.content) == (200, "0", b"")


def test_a_file_that_shrinks_while_it_is_sent_breaks_the_connection(
    client: TestClient, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.file.write_bytes(DATA)
    read = os.read
    monkeypatch.setattr(sending.os, "read", lambda fd, size: read(fd, size) if os.lseek(fd, 0, 1) == 0 else b"")
    with pytest.raises(EOFError):
        client.get("/file")


def test_a_mistake_of_ours_and_an_unknown_path_are_said_in_the_voice_of_the_routes(client: TestClient) -> None:
    assert client.get("/mine/fail").json() == {"code": "InstarError"}
    assert client.get("/mine/unknown").json() == {"code": "NotFound"}
    refused = client.delete("/mine/files/a")
    assert (refused.status_code, refused.headers["allow"], refused.json()) == (405, "PUT", {"code": "NotFound"})
    assert client.put("/mine/files/a", headers={"content-length": "99999999"}).json() == {"code": "TooLarge"}


def test_a_last_slash_too_many_leads_to_the_page(client: TestClient) -> None:
    reply = client.get("/file/", follow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (307, "/file")
    assert client.get("//file/", follow_redirects=False).status_code == 404
