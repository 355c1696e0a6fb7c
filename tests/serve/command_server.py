"""A small program that speaks the Open Inference Protocol, with one fault built in at a time: `python serve.py FAULT`.

It is copied into the folders of models, so it imports the standard library alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULT = sys.argv[1] if len(sys.argv) > 1 else ""
NAME = os.environ.get("INSTAR_MODEL", "model")  # as a server of models names it
PATH = f"/v2/models/{NAME}"
COLUMNS = {"distance": "FP64", "carrier": "BYTES"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0" if FAULT == "closes" else "HTTP/1.1"
    # Two writes and no TCP_NODELAY are how this server comes.
    disable_nagle_algorithm = FAULT != "nagle"

    def do_GET(self) -> None:
        faults = {"/v2/health/live": "not live", "/v2/health/ready": "never ready", f"{PATH}/ready": "never ready"}
        faults[PATH] = "no metadata"
        if faults.get(self.path, FAULT) == FAULT:
            self.say(404, {"error": "not here"})
        else:
            self.say(200, metadata() if self.path == PATH else {})

    def do_POST(self) -> None:
        size = int(self.headers["content-length"])
        body = self.rfile.read1(65536) if FAULT == "one piece only" else self.rfile.read(size)  # type: ignore[attr-defined]
        if FAULT == "small bodies" and size > 1_000_000:
            self.say(413, {"error": "too large"})
            return
        if self.path != f"{PATH}/infer" and FAULT != "any model":
            self.say(404, {"error": "no such model"})
            return
        try:
            asked = json.loads(body)
            given = {one["name"]: one["data"] for one in asked["inputs"]}
            assert given.keys() == COLUMNS.keys() or "x" in given, "other inputs"
        except Exception as problem:
            self.say(500 if FAULT == "malformed is its fault" else 400, {"error": str(problem)})
            return
        self.say(*answer(asked, given))

    def say(self, status: int, said: Any) -> None:
        data = (
            b"no JSON" if FAULT == "no json" and status == 200 and "model_name" in said else json.dumps(said).encode()
        )
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def metadata() -> dict[str, Any]:
    columns = dict.fromkeys(COLUMNS, "INT64") if FAULT == "other datatypes" else COLUMNS
    inputs = [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in columns.items()]
    inputs = inputs[:1] if FAULT == "other inputs" else inputs
    return {"name": NAME, "inputs": inputs, "outputs": [{"name": "score", "datatype": "FP64", "shape": [-1]}]}


def answer(asked: dict[str, Any], given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    rows = len(given["distance"])
    scores: list[Any] = [min(abs(one or 0.0) / 10_000, 1.0) for one in given["distance"]]
    output = {"name": "score", "datatype": "FP64", "shape": [rows], "data": scores}
    said = {"model_name": NAME, "id": asked.get("id"), "outputs": [output]}
    if given["carrier"][0] == "dies":
        os._exit(9)
    if given["carrier"][0] == "hangs":
        time.sleep(60)
    if FAULT.startswith("reads "):
        try:
            open(FAULT.removeprefix("reads ")).close()
            output["data"] = [1.0] * rows
        except PermissionError:
            output["data"] = [0.25] * rows
    if FAULT == "leaves a child":
        output["data"] = [subprocess.Popen(["sleep", "600"], start_new_session=True).pid] * rows
    if given["carrier"][0] == "burn":
        while time.process_time() < 1.5:
            pass
    if given["carrier"][0] == "children":
        sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
        output["data"] = [subprocess.Popen(sleep, start_new_session=bool(at % 2)).pid for at in range(rows)]
    if given["carrier"][0] == "environment":
        output["data"] = [float(sum(name.startswith("INSTAR_") for name in os.environ))] * rows
    if FAULT == "fails":
        return 503, {"error": "out of fuel"}
    if FAULT == "no id":
        del said["id"]
    if FAULT == "another id":
        said["id"] = "somebody else's"
    if FAULT == "one row":
        output |= {"shape": [1], "data": scores[:1]}
    if FAULT == "shape lies":
        output["shape"] = [rows + 1]
    if FAULT == "no score":
        output["name"] = "prediction"
    if FAULT == "text":
        output["data"] = ["0.5"] * rows
    if FAULT == "whole":
        output["datatype"] = "INT64"
    if FAULT == "rows together":
        output["data"] = [sum(scores)] * rows
    if FAULT == "one at a time":
        Handler.busy = getattr(Handler, "busy", 0) + 1  # type: ignore[attr-defined]
        time.sleep(0.02)
        crowded = Handler.busy > 1  # type: ignore[attr-defined]
        Handler.busy -= 1  # type: ignore[attr-defined]
        return (500, {"error": "busy"}) if crowded else (200, said)
    return 200, said


if __name__ == "__main__":
    if FAULT == "ends":
        print("no module named fuel")
        sys.exit(3)
    if FAULT == "deaf":
        time.sleep(60)
    print("ready to serve", flush=True)
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["INSTAR_PORT"])), Handler).serve_forever()
