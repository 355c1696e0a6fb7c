"""How a reply leaves: small ones in one piece, files as a stream in bounded memory, whole or the range asked for.

RFC 9110 sections 9.3.2 (HEAD), 13.1.5 (If-Range) and 14 (ranges); of several ranges the whole file is sent instead, as it allows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instar.interfaces.api.routes import Reply
from instar.interfaces.api.threads import Threads

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

READ_BYTES = 1024 * 1024  # of a file at a time
_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


@dataclass(frozen=True)
class Prepared:
    """A reply in the form in which it is sent: made in the handler's thread, since files are opened here.

    Attributes:
        body: All of it, or the beginning of a file.
        left: Bytes that are still to be read from `descriptor`.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    descriptor: int = -1
    left: int = 0


def prepare(reply: Reply, method: str, asked: Mapping[str, str]) -> Prepared:
    """A reply, encoded; the file is opened and its first part read.

    Args:
        asked: The request's headers.
    """
    if reply.file is not None:
        return _prepare_file(reply, reply.file, method, asked)
    body = reply.content()
    headers = _encoded(reply.media_type, reply.headers, len(body))
    return Prepared(reply.status, headers, b"" if method == "HEAD" else body)


async def send(prepared: Prepared, send: Send, threads: Threads) -> None:
    """Send a prepared reply; a file's parts one after the other, as quickly as they are taken."""
    if prepared.descriptor < 0:
        await send({"type": "http.response.start", "status": prepared.status, "headers": prepared.headers})
        await send({"type": "http.response.body", "body": prepared.body})
        return
    try:
        await send({"type": "http.response.start", "status": prepared.status, "headers": prepared.headers})
        left, part = prepared.left, prepared.body
        while True:
            await send({"type": "http.response.body", "body": part, "more_body": left > 0})
            if not left:
                return
            part = await threads.run(os.read, prepared.descriptor, min(READ_BYTES, left))
            if not part:
                raise EOFError("the file became shorter while it was sent")  # the connection breaks: half is no answer
            left -= len(part)
    finally:
        os.close(prepared.descriptor)


def _prepare_file(reply: Reply, path: Path, method: str, asked: Mapping[str, str]) -> Prepared:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    keep = False
    try:
        size = os.fstat(descriptor).st_size
        status, start, stop = _range(reply, size, asked)
        headers = _encoded(reply.media_type, reply.headers, stop - start)
        headers.append((b"accept-ranges", b"bytes"))
        if status == 206:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (start, stop - 1, size)))
        elif status == 416:
            headers.append((b"content-range", b"bytes */%d" % size))
        if method == "HEAD" or start == stop:
            return Prepared(status, headers, b"")
        os.lseek(descriptor, start, os.SEEK_SET)
        body = os.read(descriptor, min(READ_BYTES, stop - start))
        left = stop - start - len(body)
        keep = left > 0
        return Prepared(status, headers, body, descriptor if keep else -1, left)
    finally:
        if not keep:
            os.close(descriptor)


def _range(reply: Reply, size: int, asked: Mapping[str, str]) -> tuple[int, int, int]:
    """Status, first byte and the byte after the last."""
    found = _RANGE.fullmatch(asked.get("range", ""))
    if found is None or found.groups() == ("", "") or reply.status != 200:
        return reply.status, 0, size
    condition = asked.get("if-range")
    if condition is not None and condition != reply.headers.get("etag"):
        return reply.status, 0, size
    first, last = found.groups()
    if not first:  # the last so many bytes
        count = min(int(last), size)
        return (206, size - count, size) if count else (416, 0, 0)
    start, stop = int(first), min(int(last) + 1, size) if last else size
    if last and int(last) < int(first):
        return reply.status, 0, size  # not a range at all: ignored
    return (206, start, stop) if start < size else (416, 0, 0)


def _encoded(media_type: str, headers: Mapping[str, str], length: int) -> list[tuple[bytes, bytes]]:
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    encoded.append((b"content-type", media_type.encode("latin-1")))
    encoded.append((b"content-length", b"%d" % length))
    return encoded
