"""Instar beside the servers that people use today: the same model, the same rows, one after the other on this machine.

Every server answers with the breast-cancer model. At each number of connections Instar is held to the best of the rivals with
the ONNX form, and for models without a portable form to those with the pickled one. Instar answers with routing, identity
and the prediction log on, as it does by default.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import urllib.request
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "rivals")]

import hot_path  # noqa: E402
import load  # noqa: E402
import model  # noqa: E402
import recorded  # noqa: E402
import servers  # noqa: E402

from instar.core.store import Store  # noqa: E402
from instar.serve.publishing import snapshot  # noqa: E402
from instar.serve.root.process import ServerTree  # noqa: E402
from instar.serve.traffic import routing  # noqa: E402
from instar.train import bundle, native  # noqa: E402

CONNECTIONS = (1, 8, 32, 64, 256)
MANY_ROWS, MANY_CONNECTIONS = 100, 8
WARM_UP_SECONDS = 1.0

Figures = dict[str, Any]
NATIVE = "cancer-native"


def main(arguments: list[str] | None = None) -> int:
    """Print a table and the ratios; fails when a call of ours failed or is not on the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement")
    parser.add_argument("--only", action="append", default=[], help="rivals whose names contain this")
    parser.add_argument("--json", action="store_true", help="print one JSON document at the end")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="instar-bench-") as scratch:
        folder = Path(scratch)
        made, row = hot_path.make_store(folder)
        add_native(made)
        print(heading(), flush=True)
        ours = {
            "Instar, ONNX, durable": instar(made, hot_path.ENDPOINT, row, options.seconds, durable=True),
            "Instar, ONNX, prompt": instar(made, hot_path.ENDPOINT, row, options.seconds, durable=False),
            "Instar, scikit-learn, durable": instar(made, NATIVE, row, options.seconds, durable=True),
        }
        found = rivals(folder, row, options.seconds, options.only)
        made.database.close()
    for name, figures in ours.items():
        others = {other: one for other, one in found.items() if one["portable"] == ("ONNX" in name)}
        if others:
            print(f"{name + ', times the best':40}{ratios(figures, others)}")
    if options.json:
        print(json.dumps({**ours, **found}, indent=2))
    bad = {name: figures for name, figures in ours.items() if failures(figures) or figures["missing"]}
    for name, figures in bad.items():
        print(f"{name}: {failures(figures)} calls failed, {figures['missing']} are not on the record", file=sys.stderr)
    return 1 if bad else 0


def instar(made: Store, endpoint: str, row: list[float], seconds: float, *, durable: bool) -> Figures:
    """A server of ours, as it comes: routing, identity and the record are on."""
    before = recorded.predictions(made, endpoint)
    asked = servers.Asked(f"/v2/models/{endpoint}/infer", "", by_column if endpoint == NATIVE else servers.tensor)
    with ServerTree.start(made.folder, control=False, durable=durable) as server:
        snapshot.wait_acknowledged(made, snapshot.publish(made))
        answer(
            server.url + asked.path, asked.body(row, 1)
        )  # a first call loads the model: rivals are ready when they begin
        found = measured(server.url, asked, row, seconds)
    kept = recorded.predictions(made, endpoint) - before
    answered = sum(found[str(c)]["rate"] * seconds for c in CONNECTIONS) + found["rows"]["rate"] * seconds * MANY_ROWS
    found["missing"] = max(0, round(answered * 0.95) - kept)  # wrk counts what came until its end, which is a bit later
    found |= {"portable": endpoint != NATIVE}
    name = f"Instar, {'scikit-learn' if endpoint == NATIVE else 'ONNX'}, {'durable' if durable else 'prompt'}"
    print(line(name, found), flush=True)
    return found


def answer(url: str, body: bytes) -> None:
    """Have one call answered."""
    asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as answered:
        answered.read()


def by_column(row: list[float], rows: int) -> bytes:
    """A request with one input a column, as models of data frames take it."""
    inputs = [
        {"name": f"x{at}", "shape": [rows], "datatype": "FP64", "data": [value] * rows} for at, value in enumerate(row)
    ]
    return json.dumps({"inputs": inputs}).encode()


def add_native(made: Store) -> None:
    """An endpoint with the pickled pipeline, which runs in a process of its own."""
    fitted, _ = model.fitted()
    inputs = tuple(bundle.Column(f"x{at}", "FP64") for at in range(model.FEATURES))
    manifest = bundle.Manifest(
        model=NATIVE, step="fitted", kind="model", recipe="benchmark", parameters={}, target="", inputs=inputs,
        outputs=bundle.OUTPUTS, threshold=0.5, run="run_benchmark", fitted_on="tver_benchmark", fitted_rows=569,
        native=made.blobs.put(native.dump(fitted, "fitted")), form="pandas", environment=made.blobs.put(b"{}"),
    )  # fmt: skip
    packed = bundle.pack(made.blobs, manifest)
    routing.set_policy(made, "bench", NATIVE, champion=1, bundles={1: packed}, cause="benchmark")
    snapshot.publish(made)


def failures(found: Figures) -> int:
    """Calls that were not answered well."""
    return sum(part["failed"] for part in found.values() if isinstance(part, dict))


def measured(url: str, asked: servers.Asked, row: list[float], seconds: float) -> Figures:
    """What one server does: by number of connections, and with many rows a request."""
    address = url + asked.path
    load.load(address, asked.body(row, 1), 8, WARM_UP_SECONDS)
    found: Figures = {str(c): asdict(load.load(address, asked.body(row, 1), c, seconds)) for c in CONNECTIONS}
    found["rows"] = asdict(load.load(address, asked.body(row, MANY_ROWS), MANY_CONNECTIONS, seconds))
    return found


def rivals(folder: Path, row: list[float], seconds: float, wanted: list[str]) -> dict[str, Figures]:
    """All rivals, or those whose names contain one of `wanted`."""
    found: dict[str, Figures] = {}
    for rival in servers.RIVALS:
        if wanted and not any(one.lower() in rival.name.lower() for one in wanted):
            continue
        with servers.running(rival, folder) as server:
            found[rival.name] = measured(server.url, rival.asked, row, seconds)
            found[rival.name] |= {"start_seconds": server.started_seconds, "portable": rival.portable}
        print(line(rival.name, found[rival.name]), flush=True)
    return found


def heading() -> str:
    """The table's first line."""
    counts = "".join(f"{c:>9}" for c in CONNECTIONS)
    return f"{'answers a second at connections':40}{counts}{'100 rows':>10}{'p99 at 32':>11}{'start':>8}"


def line(name: str, found: Figures) -> str:
    """One server."""
    rates = "".join(f"{found[str(c)]['rate']:>9,.0f}" for c in CONNECTIONS)
    failed = failures(found)
    start = f"{found['start_seconds']:>7.1f}s" if "start_seconds" in found else ""
    broken = f"  {failed} failed" if failed else ""
    return f"{name:40}{rates}{found['rows']['rate']:>10,.0f}{found['32']['p99']:>9.1f}ms{start}{broken}"


def ratios(ours: Figures, others: dict[str, Figures]) -> str:
    """How many times the best of the others, at each number of connections; and whose p99 is lower than ours."""
    parts = []
    for c in CONNECTIONS:
        best = max(other[str(c)]["rate"] for other in others.values())
        parts.append(f"{ours[str(c)]['rate'] / best:>8.1f}x")
    best = max(other["rows"]["rate"] for other in others.values())
    quicker = [name for name, other in others.items() if other["32"]["p99"] < ours["32"]["p99"]]
    worse = f"  lower p99 at 32: {', '.join(quicker)}" if quicker else "  lowest p99 at 32"
    return "".join(parts) + f"{ours['rows']['rate'] / best:>9.1f}x{worse}"


def row_of(folder: Path) -> list[float]:
    """The row that all are asked for."""
    values: list[float] = json.loads((folder / "row.json").read_text())
    return values
