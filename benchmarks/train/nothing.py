"""A server that answers every call with nothing: what a client takes by itself is measured against it.

python nothing.py PORT_FILE
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn

ANSWER = b"{}"
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"2")]


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Read the request, answer `{}`."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


if __name__ == "__main__":
    listening = socket.socket()
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.bind(("127.0.0.1", 0))
    Path(sys.argv[1]).write_text(str(listening.getsockname()[1]))
    config = uvicorn.Config(
        nothing, http="httptools", loop="uvloop", lifespan="off", access_log=False, log_level="warning"
    )
    uvicorn.Server(config).run(sockets=[listening])
