"""A gateway's line to the root: asks for workers, says how busy they are, and hears which processes there are.

Lost only when the root is, which ends us too, or when we did not read what we were told; then it is made again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec

from instar.serve.processes.needs import Ended, FromRoot, ToRoot, Up, encode, from_root

RECONNECT_SECONDS = 0.02

_log = logging.getLogger("instar.serve")


class RootLine(asyncio.Protocol):
    """The line.

    Args:
        heard: Called with what the root says.
        opened: Called when the line is new: the root says all anew, and may not have heard what was asked before.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: Path,
        heard: Callable[[FromRoot], object],
        opened: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._socket = socket
        self._heard, self._opened = heard, opened
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._closed = False
        self.copies: dict[str, tuple[int, ...]] = {}
        self._connecting = loop.create_task(self._connect())

    def tell(self, message: ToRoot) -> None:
        """Tell the root; what cannot be told now is said again by whoever needs it, when the line is new."""
        if self._transport is not None:
            self._transport.write(encode(message))

    def close(self) -> None:
        """Hang up."""
        self._closed = True
        self._connecting.cancel()
        if self._transport is not None:
            self._transport.close()

    async def _connect(self) -> None:
        while not self._closed:
            with contextlib.suppress(OSError):
                await self._loop.create_unix_connection(lambda: self, str(self._socket))
                return
            await asyncio.sleep(RECONNECT_SECONDS)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._rest = b""
        self.copies.clear()
        self._opened()

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                message = from_root.decode(line)
            except msgspec.DecodeError as problem:
                _log.error("what the root told is not its language: %s", problem)
                continue
            if isinstance(message, Up):
                self.copies[message.worker] = message.copies
            elif isinstance(message, Ended):
                left = self.copies.get(message.worker, ())
                self.copies[message.worker] = tuple(number for number in left if number != message.copy)
            self._heard(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self._closed:
            self._connecting = self._loop.create_task(self._connect())
