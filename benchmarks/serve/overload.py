"""Overload: calls that come at a fixed rate whatever the answers are, up to ten times what the server can answer.

    ./run bench serve overload --seconds 4

A caller that waits for its answers (as `wrk` does) slows down with the server; customers do not. So this load is open: every
tick so many calls are sent, each connection sends its next without waiting, and a connection that is behind opens another.
The model is made slow (5 ms a call, call by call), so that the machine can send ten times the capacity. Printed for each load:
answers within the caller's time (goodput), refusals, the server's memory. Fails where goodput falls below 80 % of the best.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

from tests.serve import fakes  # noqa: E402

from instar.serve.log.segments import alive_boots  # noqa: E402
from instar.serve.root.process import ServerTree  # noqa: E402
from instar.serve.traffic.routes import read_ack  # noqa: E402

SERVICE_SECONDS = 0.005
TIMEOUT_SECONDS = 0.5
TIMES = (0.5, 1.0, 2.0, 5.0, 10.0)
CONNECTIONS = 400


def load(folder: Path) -> Any:
    """Loader for workers: a model that takes its time for each row."""
    model = fakes.load(folder)

    class Slow:
        def score(self, columns: Any) -> list[float]:
            time.sleep(SERVICE_SECONDS * len(columns["distance"]))
            return model.score(columns)

    return Slow()


class Client(asyncio.Protocol):
    """One connection: sends whenever it is told to, and counts what comes back."""

    def __init__(self, sent: bytes, found: Counter[str]) -> None:
        self._sent, self._found = sent, found
        self._began: list[float] = []
        self._data = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    @property
    def free(self) -> bool:
        return not self._began and not self.transport.is_closing()

    def send(self) -> None:
        self._began.append(time.monotonic())
        self.transport.write(self._sent)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            if len(self._data) < end + 4 + length:
                return
            self._data = self._data[end + 4 + length :]
            status = int(head.split()[1])
            in_time = time.monotonic() - self._began.pop(0) <= TIMEOUT_SECONDS
            self._found["good" if status == 200 and in_time else "late" if status == 200 else str(status)] += 1


async def flood(port: int, rate: float, seconds: float, sent: bytes) -> Counter[str]:
    """Calls at `rate` a second."""
    loop = asyncio.get_running_loop()
    found: Counter[str] = Counter()
    clients = [
        (await loop.create_connection(lambda: Client(sent, found), "127.0.0.1", port))[1] for _ in range(CONNECTIONS)
    ]
    began, due, turn = time.monotonic(), 0, 0
    while (now := time.monotonic() - began) < seconds:
        while due < rate * now:
            due += 1
            client = next((c for c in (clients[(turn + k) % CONNECTIONS] for k in range(CONNECTIONS)) if c.free), None)
            turn += 1
            if client is None:
                found["unsent"] += 1  # more are on their way than there are connections
            else:
                client.send()
        await asyncio.sleep(0.002)
    await asyncio.sleep(TIMEOUT_SECONDS + 0.3)
    for client in clients:
        client.transport.abort()
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load")
    options = parser.parse_args(arguments)
    body = json.dumps(fakes.body(1000)).encode()
    sent = (
        b"POST /v2/models/delay/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Instar-Timeout: %dms\r\nContent-Length: %d\r\n\r\n" % (TIMEOUT_SECONDS * 1000, len(body))
    ) + body
    with tempfile.TemporaryDirectory(prefix="instar-bench-") as scratch:
        folder = Path(scratch) / ".instar"
        number = fakes.route(folder, [fakes.version(folder, 1)])
        environment = {"PYTHONPATH": f"{ROOT}:{HERE}:{ROOT / 'src'}"}
        with ServerTree.start(folder, control=False, loader="overload:load", environment=environment) as server:
            while not all(
                (ack := read_ack(folder, boot)) and ack.number >= number for boot in alive_boots(folder / "calls")
            ):
                time.sleep(0.05)
            capacity = 1 / SERVICE_SECONDS
            rates = {}
            for times in TIMES:
                found = asyncio.run(flood(server.port, capacity * times, options.seconds, sent))
                rates[times] = found["good"] / options.seconds
                others = ", ".join(f"{name} {count}" for name, count in sorted(found.items()) if name != "good")
                print(
                    f"{times:>4g} x {capacity:g}/s: {rates[times]:>6.0f} good/s, server {memory(server.pid)} MiB; {others}",
                    flush=True,
                )
    best = max(rates.values())
    kept = rates[TIMES[-1]] / best
    print(f"goodput at {TIMES[-1]:g} times the capacity: {kept:.0%} of the best")
    return 0 if kept >= 0.8 else 1


def memory(root: int) -> int:
    """Resident memory of a server's processes, MiB."""
    pages = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            pages += int((entry / "statm").read_text().split()[1]) if parent == root else 0
        except (OSError, IndexError, ValueError):
            continue
    return pages * 4096 // 2**20


if __name__ == "__main__":
    sys.exit(main())
