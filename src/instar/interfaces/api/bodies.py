"""How the body of a request is taken in: into memory up to a limit, or as a stream into a file, before a handler sees it.

Half a body never reaches a handler: who hangs up in the middle leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from instar.core.errors import MalformedRequest, StoreFull, TooLarge
from instar.interfaces.api.threads import Threads

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

STRANGERS_LIMIT_BYTES = 16 * 1024  # from who need not say who it is
BODY_LIMIT_BYTES = 64 * 1024 * 1024  # larger things are uploaded as streams
WRITE_BYTES = 1024 * 1024  # gathered before a thread writes them: a hop to a thread costs as much as some 64 KiB


class Gone(Exception):
    """The caller hung up before the end of its request: nobody is left to answer."""


def uploads_folder(store_folder: Path) -> Path:
    """Where uploads lie until their handler took them: in the store, so that taking one can be a rename."""
    return store_folder / "uploads"


def clear_uploads(store_folder: Path) -> None:
    """Remove what a server that was killed left; only the one server of a store may do so, when it starts."""
    for left in uploads_folder(store_folder).glob("*"):
        left.unlink(missing_ok=True)


async def in_memory(headers: Mapping[str, str], receive: Receive, limit: int = BODY_LIMIT_BYTES) -> bytes:
    """The whole body.

    Args:
        limit: In bytes.

    Raises:
        TooLarge: It is over the limit; what was declared too large is not even read.
        Gone: The caller hung up.
    """
    _check(headers, limit)
    parts, size = [], 0
    async for part in _parts(receive):
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


@contextlib.asynccontextmanager
async def in_file(
    headers: Mapping[str, str], receive: Receive, store_folder: Path, limit_bytes: int, threads: Threads
) -> AsyncIterator[Path]:
    """The whole body as a file, which is gone afterwards unless somebody moved it.

    Raises:
        TooLarge: It is over the limit.
        StoreFull: No room is left for it.
        Gone: The caller hung up, or sent less than it had declared.
    """
    _check(headers, limit_bytes)
    folder = uploads_folder(store_folder)
    with _refusing_when_full():
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=folder)
    path = Path(name)
    try:
        try:
            size, waiting = 0, bytearray()
            async for part in _parts(receive):
                size += len(part)
                if size > limit_bytes:
                    raise _too_large(limit_bytes)
                waiting += part
                if len(waiting) >= WRITE_BYTES:
                    await threads.run(_write, descriptor, waiting)
                    waiting = bytearray()
            if waiting:
                await threads.run(_write, descriptor, waiting)
        finally:
            os.close(descriptor)
        declared = headers.get("content-length")
        if declared is not None and size != int(declared):
            raise Gone
        yield path
    finally:
        path.unlink(missing_ok=True)


async def _parts(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Gone
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            return


def _check(headers: Mapping[str, str], limit: int) -> None:
    declared = headers.get("content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise _too_large(limit, f"{declared} bytes")
    coding = headers.get("content-encoding", "identity").lower()
    if coding != "identity":
        raise MalformedRequest(
            "compressed bodies are not read", found=coding, asked="identity", next_step="Send the body as it is."
        )


def _too_large(limit: int, found: str | None = None) -> TooLarge:
    return TooLarge("the body is too large", found=found or f"more than {limit} bytes", asked=f"{limit} bytes")


def _write(descriptor: int, data: bytearray) -> None:
    view = memoryview(data)
    with _refusing_when_full():
        while view:
            view = view[os.write(descriptor, view) :]


@contextlib.contextmanager
def _refusing_when_full() -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        if not is_full(problem):
            raise
        raise full(problem, "the upload cannot be kept") from None


def is_full(problem: OSError) -> bool:
    """Whether the disk, or the share of it that we may use, is full."""
    return problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def full(problem: OSError, what: str) -> StoreFull:
    """What is said then."""
    return StoreFull(
        f"{what}: {problem.strerror}",
        subject="store",
        next_step="Make room on the disk of the store, then send it again; nothing of it was kept.",
    )
