"""Artifacts through the server's proxy: one large file up and down, and many small ones."""

from __future__ import annotations

import time

from wire import Wire
from writing import experiment, run

ROOT = "/api/2.0/mlflow-artifacts/artifacts"
SMALL_BYTES = 4096


def transfer(url: str, large_mb: int, small_files: int) -> dict[str, float]:
    """Megabytes a second of one large file, and files a second of small ones, each way."""
    with Wire(url) as wire:
        group = experiment(wire, "artifacts")
        one = run(wire, group)
        # The address that the server itself gives: mlflow-artifacts:/EXPERIMENT/RUN/artifacts
        uri = wire.get("runs/get", run_id=one)["run"]["info"]["artifact_uri"]
        place = ROOT + "/" + uri.removeprefix("mlflow-artifacts:").lstrip("/")
        large = bytes(range(256)) * (large_mb * 4096)
        up = _seconds(lambda: wire.send("PUT", f"{place}/large.bin", large))
        down = _seconds(lambda: _same(wire.send("GET", f"{place}/large.bin"), large))
        small = b"x" * SMALL_BYTES
        put = _seconds(lambda: [wire.send("PUT", f"{place}/small/{n}.txt", small) for n in range(small_files)])
        got = _seconds(lambda: [_same(wire.send("GET", f"{place}/small/{n}.txt"), small) for n in range(small_files)])
    return {
        "large file up MB/s": large_mb / up,
        "large file down MB/s": large_mb / down,
        "small files up/s": small_files / put,
        "small files down/s": small_files / got,
    }


def _same(found: bytes, sent: bytes) -> None:
    if found != sent:
        raise SystemExit("an artifact came back changed")


def _seconds(work: object) -> float:
    began = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - began
