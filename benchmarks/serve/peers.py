"""Peers of the serving benchmark, each a raw ASGI application on uvicorn: `peers.py echo|sklearn FILE_FOR_THE_PORT`."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import models
import msgspec
import uvicorn

ANSWER = (
    b'{"model_name":"delay","model_version":"2","outputs":[{"name":"score","shape":[1],"datatype":"FP64","data":[0.25]},'
    b'{"name":"decision","shape":[1],"datatype":"INT64","data":[0]}]}'
)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and answers with a fixed one."""
    if scope["type"] == "http":
        await receive()
        await answer(send, ANSWER)


def home_made() -> Any:
    """The fitted pipeline in the server's process, as one would write it in an afternoon."""
    import pandas as pd

    frame = models.rows(20_000)
    model, columns = models.trees(frame, 2), frame.columns

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        message = await receive()
        if scope["method"] != "POST":
            await answer(send, b"{}")
            return
        inputs = {tensor["name"]: tensor["data"] for tensor in msgspec.json.decode(message["body"])["inputs"]}
        rows = pd.DataFrame({name: inputs[name] for name in columns})
        scores = model.predict_proba(rows)[:, 1].tolist()
        outputs = [
            {"name": "score", "shape": [len(scores)], "datatype": "FP64", "data": scores},
            {"name": "decision", "shape": [len(scores)], "datatype": "INT64", "data": [int(s >= 0.3) for s in scores]},
        ]
        await answer(send, msgspec.json.encode({"model_name": "delay", "model_version": "2", "outputs": outputs}))

    return application


async def answer(send: Any, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve until terminated."""
    kind, place = sys.argv[1], Path(sys.argv[2])
    application = echo if kind == "echo" else home_made()
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    place.write_text(str(listening.getsockname()[1]))
    config = uvicorn.Config(
        application, http="httptools", loop="uvloop", ws="none", access_log=False, log_level="warning"
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
