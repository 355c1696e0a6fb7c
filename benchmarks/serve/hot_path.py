"""Instar's own answers a second: one row of 30 floats as one tensor, on the record, beside an echo on the same HTTP stack.

    ./run bench serve hot --seconds 4

`wrk` asks on 1 to 256 connections, and with 100 rows a request. `echo` is raw ASGI on uvicorn that reads the body and answers
with a fixed one: no Python server on that stack can be faster. Every answer counted is on the record: that is checked.
Processor time a call, by process, says where the time goes; it is steadier than the rate on a machine that does other work.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "rivals")]

import load  # noqa: E402
import model  # noqa: E402
import recorded  # noqa: E402
import versions  # noqa: E402

from instar.app import open_store  # noqa: E402
from instar.core.store import Store  # noqa: E402
from instar.serve.publishing import snapshot  # noqa: E402
from instar.serve.root.process import ServerTree  # noqa: E402
from instar.serve.traffic import routing  # noqa: E402
from instar.train import bundle  # noqa: E402

ENDPOINT = "cancer"
PATH = f"/v2/models/{ENDPOINT}/infer"
CONNECTIONS = (1, 8, 32, 64, 256)
MANY_ROWS, MANY_CONNECTIONS = 100, 8
WARM_UP_SECONDS = 1

Figures = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Print a table; fails when an answer was refused or is not on the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--gateways", type=int, default=1, help="gateway processes")
    parser.add_argument("--only", choices=("echo", "durable", "prompt"), action="append", help="measure these alone")
    parser.add_argument("--connections", type=int, action="append", help="by default 1, 8, 32, 64 and 256")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    wanted = options.only or ["echo", "durable", "prompt"]
    counts = tuple(options.connections or CONNECTIONS)
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="instar-bench-") as scratch:
        folder = Path(scratch)
        made, row = make_store(folder)
        try:
            for name in wanted:
                if name == "echo":
                    with versions.peer(folder, "echo") as url:
                        found[name] = measured(url + "/", row, counts, options.seconds)
                else:
                    found[name] = instar(made, row, counts, options.seconds, options.gateways, name == "durable")
                if not options.json:
                    print(line(name, found[name], counts), flush=True)
        finally:
            made.database.close()
    if options.json:
        print(json.dumps(found, indent=2))
    return 1 if any(figures.get("missing") or failed(figures) for figures in found.values()) else 0


def instar(
    made: Store, row: list[float], counts: tuple[int, ...], seconds: int, gateways: int, durable: bool
) -> Figures:
    """A server of its own for one mode, and whether all that it answered is on the record."""
    before = recorded.predictions(made, ENDPOINT)
    with ServerTree.start(made.folder, control=False, durable=durable, gateways=gateways) as server:
        snapshot.wait_acknowledged(made, snapshot.publish(made))
        found = measured(server.url + PATH, row, counts, seconds, server.pid)
    kept = recorded.predictions(made, ENDPOINT) - before
    found["missing"] = max(0, found.pop("rows_answered") - kept)
    return found


def measured(address: str, row: list[float], counts: tuple[int, ...], seconds: int, root: int | None = None) -> Figures:
    """One server at each number of connections, and with many rows a request."""
    one, many = body(row, 1), body(row, MANY_ROWS)
    load.load(address, one, 8, WARM_UP_SECONDS)
    found: Figures = {}
    answered = 0
    for name, content, connections, rows in (
        *((str(c), one, c, 1) for c in counts),
        ("rows", many, MANY_CONNECTIONS, MANY_ROWS),
    ):
        idle = versions.cpu(root) if root else {}
        part = load.load(address, content, connections, seconds)
        busy = versions.cpu(root) if root else {}
        calls = part.rate * seconds
        answered += round(part.rate * seconds * 0.9) * rows  # wrk counts what came until its end, which is a bit later
        spent = {process: round((busy[process] - idle[process]) / calls * 1e6, 1) for process in idle if calls}
        found[name] = asdict(part) | {"cpu_us": spent}
    found["rows_answered"] = answered
    return found


def failed(figures: Figures) -> int:
    """Calls that were not answered well."""
    return sum(part["failed"] for part in figures.values() if isinstance(part, dict))


def line(name: str, found: Figures, counts: tuple[int, ...]) -> str:
    """One server, in a few lines."""
    lines = [f"{name}: {failed(found)} failed, {found.get('missing', 0)} not on the record"]
    for key in (*map(str, counts), "rows"):
        part = found[key]
        label = f"{key} connections" if key != "rows" else f"{MANY_ROWS} rows, {MANY_CONNECTIONS} connections"
        spent = ", ".join(f"{process} {us:g}" for process, us in part["cpu_us"].items())
        times = f"p50 {part['p50']:.2f} ms  p99 {part['p99']:.2f} ms"
        lines.append(f"  {label:24}{part['rate']:>9,.0f}/s  {times}" + (f"  µs a call: {spent}" if spent else ""))
    return "\n".join(lines)


def body(row: list[float], rows: int) -> bytes:
    """A request of the Open Inference Protocol with one tensor."""
    tensor = {"name": "input", "shape": [rows, len(row)], "datatype": "FP32", "data": row * rows}
    return json.dumps({"inputs": [tensor]}).encode()


def make_store(folder: Path) -> tuple[Store, list[float]]:
    """A store with the endpoint `cancer`, and a row to ask for."""
    model.write_onnx(folder)
    graph = (folder / "model.onnx").read_bytes()
    made = open_store(folder / "store", f"sqlite:///{folder / 'store' / 'instar.db'}")
    tensors = bundle.Tensors(
        inputs=(bundle.Tensor("input", "FP32", (-1, model.FEATURES)),),
        outputs=(bundle.Tensor("label", "INT64", (-1,)), bundle.Tensor("probabilities", "FP32", (-1, 2))),
        rows=True,
        batchable=True,
    )
    manifest = bundle.Manifest(
        format=bundle.TENSOR_FORMAT, model=ENDPOINT, step="fitted", kind="model", recipe="benchmark", parameters={},
        target="", inputs=(), outputs=(), threshold=0.5, run="run_benchmark", fitted_on="tver_benchmark", fitted_rows=569,
        native=None, form="", environment=made.blobs.put(b"{}"), tensors=tensors,
        portable=bundle.Portable("onnx", made.blobs.put(graph), len(graph), (), layout="tensors"),
    )  # fmt: skip
    packed = bundle.pack(made.blobs, manifest)
    routing.set_policy(made, "bench", ENDPOINT, champion=1, bundles={1: packed}, cause="benchmark")
    snapshot.publish(made)
    return made, json.loads((folder / "row.json").read_text())


if __name__ == "__main__":
    sys.exit(main())
