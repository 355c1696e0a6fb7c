"""The load of the serving benchmarks: `wrk` with a fixed body, and what it says in numbers, while a server is measured."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """What one load found.

    Attributes:
        rate: Answers with status 2xx a second.
        p50, p99: Latencies, milliseconds.
        failed: Answers with other statuses, and broken connections.
    """

    rate: float
    p50: float
    p99: float
    failed: int


def load(
    url: str, body: bytes, connections: int, seconds: float = 4.0, content_type: str = "application/json"
) -> Measured:
    """POST the same body over and over, on so many connections, each with one request in flight."""
    if shutil.which("wrk") is None:
        raise SystemExit("the load comes from wrk: install it (Debian's package is called wrk)")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "load.lua"
        (Path(folder) / "body").write_bytes(body)
        script.write_text(
            f'local file = io.open("{folder}/body", "rb")\n'
            f'wrk.method, wrk.body = "POST", file:read("*a")\nfile:close()\n'
            f'wrk.headers["Content-Type"] = "{content_type}"\n'
            "done = function(summary, latency)\n"
            '  io.write(string.format("FOUND %d %d %f %f %d\\n", summary.requests, summary.duration,\n'
            "    latency:percentile(50), latency:percentile(99),\n"
            "    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout))\n"
            "end\n"
        )
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "20s", "-s", str(script), url]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"FOUND (\d+) (\d+) ([\d.]+) ([\d.]+) (\d+)", told)
    if found is None:
        raise SystemExit(f"wrk said nothing that can be read:\n{told}")
    requests, micros, p50, p99, failed = (float(part) for part in found.groups())
    return Measured((requests - failed) / (micros / 1e6), p50 / 1e3, p99 / 1e3, int(failed))
