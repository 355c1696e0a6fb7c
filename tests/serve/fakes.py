"""Fakes for the serving side: a model that is a line of JSON, and routes written without a store."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instar.core.ids import digest
from instar.serve.protocol.signature import InputColumn, Signature
from instar.serve.traffic.capacity import DEFAULT, Terms
from instar.serve.traffic.policy import Canary, Policy, Shadow
from instar.serve.traffic.routes import (
    PORTABLE,
    EndpointRoute,
    Snapshot,
    VersionRoute,
    bundle_folder,
    read_snapshot,
    write_snapshot,
)

COLUMNS = (
    InputColumn("distance", "FP64"),
    InputColumn("hour", "INT64"),
    InputColumn("carrier", "BYTES", nullable=True),
    InputColumn("wind", "FP64", nullable=True),
    InputColumn("holiday", "BOOL"),
)
SIGNATURE = Signature(COLUMNS)


class FakeModel:
    """score = bias + distance / 10000, with a switch for each way to misbehave."""

    def __init__(self, bias: float, quirk: str | None, mark: Path | None = None) -> None:
        self.bias = bias
        self.quirk = quirk
        self.mark = mark or Path("nowhere")
        self.held: list[bytearray] = []

    def score(self, columns: Mapping[str, Sequence[Any]]) -> list[float]:
        distances = columns["distance"]
        if self.quirk == "raises":
            raise ValueError("this model never works")
        if self.quirk == "quotes":
            raise ValueError(f"could not convert {columns}")
        if self.quirk == "raises on 13" and 13.0 in distances:
            raise ValueError("unlucky distance")
        if self.quirk == "nan on 13":
            return [math.nan if d == 13.0 else 0.5 for d in distances]
        if self.quirk == "dies":
            os._exit(3)
        if self.quirk == "dies on -1" and -1.0 in distances:
            os._exit(3)
        if self.quirk == "dies once" and -1.0 in distances and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.quirk == "hangs":
            time.sleep(4)
        if self.quirk == "hangs on -1" and -1.0 in distances:
            time.sleep(120)
        if self.quirk == "leaks":
            self.held.append(bytearray(os.urandom(1024)) * 1024 * int(distances[0]))
        if self.quirk == "looks around":
            (self.mark.parents[2] / "secret").read_text()
        if self.quirk == "slow":
            time.sleep(0.05)
        return [self.bias + distance / 10_000 for distance in distances]


def load(folder: Path) -> FakeModel:
    """Loader for workers: `--load tests.serve.fakes:load`."""
    spec = json.loads((folder / "model.json").read_text())
    if spec.get("quirk") == "does not load":
        raise ModuleNotFoundError("No module named 'lightgbm'", name="lightgbm")
    if spec.get("quirk") == "dies at once":
        os._exit(4)
    return FakeModel(spec["bias"], spec.get("quirk"), folder / "mark")


def version(
    store_folder: Path, number: int, *, bias: float = 0.0, quirk: str | None = None, native: bool = False
) -> VersionRoute:
    """A version whose bundle lies where routes look for it."""
    spec = json.dumps({"bias": bias, "quirk": quirk, "native": native})
    bundle = digest(spec.encode())
    folder = bundle_folder(store_folder, bundle)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(spec)
    worker = f"native-{bundle[3:19]}" if native else PORTABLE
    return VersionRoute(number, bundle, worker, tuple(c.name for c in COLUMNS), 0.5)


def route(
    store_folder: Path,
    versions: Sequence[VersionRoute],
    *,
    champion: int | None = 1,
    canary: Canary | None = None,
    shadows: Sequence[Shadow] = (),
    endpoint: str = "delay",
    signature: Signature = SIGNATURE,
    terms: Terms = DEFAULT,
    **parts: Any,
) -> int:
    """Publish one endpoint's policy, with such arms and rules; returns the snapshot's number."""
    before = read_snapshot(store_folder)
    known = before.endpoints.get(endpoint)
    number = known.policy.number + 1 if known else 1
    policy = Policy(endpoint, "flights", number, champion, canary, tuple(shadows), **parts)
    routes = {**before.endpoints, endpoint: EndpointRoute(policy, signature, {v.version: v for v in versions}, terms)}
    write_snapshot(store_folder, Snapshot(before.number + 1, 0, routes))
    return before.number + 1


def body(distance: float = 1000.0, **changes: Any) -> dict[str, Any]:
    """A good request of one row, or one with changed values."""
    values = {"distance": distance, "hour": 8, "carrier": "UA", "wind": None, "holiday": False, **changes}
    return {
        "inputs": [
            {"name": c.name, "shape": [1], "datatype": c.datatype, "data": [values[c.name]]}
            for c in COLUMNS
            if c.name in values
        ]
    }
