"""Instar beside the servers that people use today: the same model, the same rows, one after the other on this machine.

Every server answers with the breast-cancer model. At each number of connections Instar is held to the best of the rivals with
the ONNX form, and for models without a portable form to those with the pickled one. Instar answers with routing, identity
and the prediction log on, as it does by default.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "rivals")]

import load  # noqa: E402
import servers  # noqa: E402

CONNECTIONS = (1, 8, 32, 64, 256)
MANY_ROWS, MANY_CONNECTIONS = 100, 8
WARM_UP_SECONDS = 1.0

Figures = dict[str, Any]


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
    failed = sum(part["failed"] for part in found.values() if isinstance(part, dict))
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
