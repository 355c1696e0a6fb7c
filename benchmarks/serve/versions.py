"""Serving: calls per second and latency of one-row requests with the record on, beside an echo and a plain scikit-learn server.

All answer the same requests (20 columns, 4 of them text) of the same client, in this run, on this machine:

- `echo`: raw ASGI on uvicorn that answers with a fixed body; no Python server on this HTTP stack can be faster.
- `scikit-learn`: raw ASGI on uvicorn, msgspec, the model in the process; no routing, no record. The usual home-made server.
- `instar one`: the same model as champion alone; each call is on the record before its answer (`durable`).
- `instar five`: with three shadows of trees and a native rule, all on the record.
- `instar five, prompt`: the same, the answer waits for the operating system and not for the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import models  # noqa: E402

from instar.adapters.blobs_folder import FolderBlobs  # noqa: E402
from instar.app import open_store  # noqa: E402
from instar.core.store import Store  # noqa: E402
from instar.serve.clients.client import Ask, InferClient  # noqa: E402
from instar.serve.log.calls import CallLog  # noqa: E402
from instar.serve.publishing import snapshot  # noqa: E402
from instar.serve.root.process import ServerTree  # noqa: E402

CONNECTIONS = (1, 8, 32, 64)
WARM_UP = 200


def main(arguments: list[str] | None = None) -> int:
    """Print a table; fails when a call is refused or is not on the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5000, help="calls per measurement")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="instar-bench-") as scratch:
        folder = Path(scratch)
        made = make_store(folder / "store")
        peers = [("echo", peer(folder, "echo")), ("scikit-learn", peer(folder, "sklearn"))]
        for name, running in peers:
            with running as url:
                results[name] = measured(url, options.calls // 10 if name == "scikit-learn" else options.calls)
        for name, endpoint, durable in (
            ("instar one", "one", True),
            ("instar five", "delay", True),
            ("instar five, prompt", "delay", False),
        ):
            with ServerTree.start(made.folder, control=False, durable=durable) as server:
                snapshot.wait_acknowledged(made, snapshot.publish(made))
                before = CallLog(made).read(endpoint).height
                asked = sum(count(options.calls, c) + WARM_UP for c in CONNECTIONS)
                idle = cpu(server.pid)
                results[name] = measured(server.url, options.calls, endpoint)
                busy = cpu(server.pid)
                spent = {part: round((busy[part] - idle[part]) / asked * 1e6) for part in idle}
                results[name]["cpu_us_per_call"] = spent
            recorded = CallLog(made).read(endpoint).height - before
            if recorded != asked:
                print(f"{name}: {recorded} of {asked} calls are on the record", file=sys.stderr)
                return 1
        made.database.close()
    print(json.dumps(results, indent=2) if options.json else table(results))
    return 0


def count(calls: int, connections: int) -> int:
    """One connection is slow; a fifth of the calls says as much."""
    return calls // 5 if connections == 1 else calls


def make_store(folder: Path) -> Store:
    """A store with the endpoints `delay` (five versions) and `one` (its champion alone)."""
    made = open_store(folder, f"sqlite:///{folder / 'instar.db'}")
    revision = models.routes(made)
    from instar.serve.traffic import routing

    routing.set_policy(made, "bench", "one", champion=2, bundles=revision.bundles, cause="benchmark")
    snapshot.publish(made)
    assert isinstance(made.blobs, FolderBlobs)
    return made


def measured(url: str, calls: int, endpoint: str = "delay") -> dict[str, Any]:
    """Calls per second and latencies by number of connections."""
    rows = models.rows(1000, 1).to_dicts()
    inputs = {name: "BYTES" if name in models.TEXTS else "FP64" for name in rows[0]}
    found: dict[str, Any] = {}
    for connections in CONNECTIONS:
        with InferClient(url, endpoint, connections, inputs) as client:
            asks = [Ask(rows[n % 1000], key=str(n)) for n in range(count(calls, connections))]
            client.infer_all([asks[n % len(asks)] for n in range(WARM_UP)])
            started = time.perf_counter()
            answers = client.infer_all(asks)
            seconds = time.perf_counter() - started
        refused = [answer for answer in answers if answer.status != 200]
        if refused:
            raise SystemExit(f"{len(refused)} calls were refused: {refused[0]}")
        found[str(connections)] = round(len(asks) / seconds)
    return found


@contextmanager
def peer(folder: Path, kind: str) -> Iterator[str]:
    """A peer server as a process of its own."""
    import http.client

    place = folder / f"{kind}.port"
    # One thread a call: on a single row the threads of scikit-learn only wait for each other.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(HERE / "peers.py"), kind, str(place)], env=environment)
    try:
        for _ in range(1200):
            if place.exists() and place.read_text():
                break
            time.sleep(0.05)
        port = int(place.read_text())
        http.client.HTTPConnection("127.0.0.1", port).request("GET", "/")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def cpu(root: int) -> dict[str, float]:
    """Processor time of each process of a server, seconds."""
    tick = os.sysconf("SC_CLK_TCK")
    found: dict[str, float] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if int(fields[1]) == root:
            name = "native worker" if "native-" in command else command.split("instar.serve.")[1].split()[0]
            found[name] = found.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / tick
    return found


def table(results: dict[str, Any]) -> str:
    """The results for people."""
    lines = [f"{'calls per second at connections':32}" + "".join(f"{c:>9}" for c in CONNECTIONS)]
    for name, found in results.items():
        lines.append(f"{name:32}" + "".join(f"{found[str(c)]:>9,}" for c in CONNECTIONS))
    for name, found in results.items():
        if found.get("cpu_us_per_call"):
            parts = ", ".join(f"{part} {spent}" for part, spent in sorted(found["cpu_us_per_call"].items()))
            lines.append(f"{name}: processor time a call, microseconds: {parts}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
