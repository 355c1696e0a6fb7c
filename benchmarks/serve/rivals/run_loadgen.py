"""MLPerf's load generator against an endpoint; prints its summary as JSON.

    run_loadgen.py URL BODY server|offline RATE SECONDS FOLDER

In the scenario Server queries come at random times (Poisson) at a rate; the latency of the 99th hundredth must stay
below 50 ms. In Offline all samples are there at the start, and are sent as fast as they are answered. Each sample is one
row and one request.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlperf_loadgen as loadgen

CONNECTIONS = 32
SAMPLES = 1024
LATENCY_NS = 50_000_000


class Caller:
    """Sends requests over kept-alive connections, from an event loop in a thread of its own."""

    def __init__(self, url: str, body: bytes) -> None:
        place = urlsplit(url)
        self._host, self._port = str(place.hostname), int(place.port or 80)
        head = f"POST {place.path} HTTP/1.1\r\nhost: {place.netloc}\r\ncontent-type: application/json\r\n"
        self._request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        self._loop = asyncio.new_event_loop()
        self._queue: asyncio.Queue[int] = asyncio.Queue()
        self.failed = 0
        threading.Thread(target=self._run, daemon=True).start()

    def issue(self, samples: list[Any]) -> None:
        """Queue queries; called from the generator's thread."""
        ids = [sample.id for sample in samples]
        self._loop.call_soon_threadsafe(self._put, ids)

    def _put(self, ids: list[int]) -> None:
        for one in ids:
            self._queue.put_nowait(one)

    def _run(self) -> None:
        for _ in range(CONNECTIONS):
            self._loop.create_task(self._work())
        self._loop.run_forever()

    async def _work(self) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        while True:
            one = await self._queue.get()
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
            if not head.startswith(b"HTTP/1.1 200"):
                self.failed += 1
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(one, 0, 0)])


def main() -> None:
    """Run one scenario."""
    url, body, scenario, rate, seconds, folder = sys.argv[1:]
    settings = loadgen.TestSettings()
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = int(float(seconds) * 1000)
    if scenario == "server":
        settings.scenario = loadgen.TestScenario.Server
        settings.server_target_qps = float(rate)
        settings.server_target_latency_ns = LATENCY_NS
    else:
        settings.scenario = loadgen.TestScenario.Offline
        settings.offline_expected_qps = float(rate)
    logs = loadgen.LogSettings()
    logs.log_output = loadgen.LogOutputSettings()
    logs.log_output.outdir = folder
    logs.log_output.copy_summary_to_stdout = False
    logs.enable_trace = False
    caller = Caller(url, Path(body).read_bytes())
    sut = loadgen.ConstructSUT(caller.issue, lambda: None)
    qsl = loadgen.ConstructQSL(SAMPLES, SAMPLES, lambda samples: None, lambda samples: None)
    loadgen.StartTestWithLogSettings(sut, qsl, settings, logs)
    summary = (Path(folder) / "mlperf_log_summary.txt").read_text()
    print(json.dumps({"summary": _facts(summary), "failed": caller.failed}), flush=True)


def _facts(summary: str) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in summary.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


if __name__ == "__main__":
    main()
