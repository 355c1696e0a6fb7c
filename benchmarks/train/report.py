"""The figures as a table: one column a server, and how many times better Instar is than each peer; targets beside them."""

from __future__ import annotations

from typing import Any

from servers import BEST, DEFAULT, INSTAR, NOTHING

RATES = ("/s", "MB/s")

# What the figure must reach: beside which server, and how many times better (at most so much slower beside `nothing`).
TARGETS: dict[str, tuple[str, float]] = {
    "batches: metrics/s": (DEFAULT, 30.0),
    "search, filter and order ms": (DEFAULT, 20.0),
    "search, order alone ms": (DEFAULT, 20.0),
    "paging through all ms": (DEFAULT, 20.0),
    "history ms": (DEFAULT, 20.0),
    "runs created/s": (BEST, 5.0),
    "single metrics/s": (BEST, 5.0),
}
LIMITS = {
    "start s": 1.0,
    "memory at rest MB": 150.0,
    "CPU at rest %": 1.0,
    "beside them: p99 ms": 50.0,
    "page of a wide table ms, 10,000 x 1,000": 1000.0,
}
MOST_OF_NOTHING = 1.3


def table(found: dict[str, dict[str, float]], facts: dict[str, Any]) -> str:
    """All figures."""
    columns = list(dict.fromkeys(name for values in found.values() for name in values))
    columns = sorted(columns, key=lambda name: not name.startswith(INSTAR))
    peers = [name for name in columns if not name.startswith(INSTAR)]
    lines = [" ".join(f"{name} {value}," for name, value in facts.items()).rstrip(","), ""]
    head = f"{'':44}" + "".join(f"{name:>20}" for name in columns)
    lines.append(head + "".join(f"{'to ' + name:>22}" for name in peers) + "  target")
    for figure, values in found.items():
        row = f"{figure:44}" + "".join(f"{_number(values.get(name)):>20}" for name in columns)
        row += "".join(f"{_ratio(figure, values, name):>22}" for name in peers)
        lines.append(row + "  " + verdict(figure, values))
    return "\n".join(lines)


def times_better(figure: str, values: dict[str, float], peer: str) -> float | None:
    """How many times better Instar is than a peer: above 1 is better."""
    ours, theirs = values.get(INSTAR), values.get(peer)
    if not ours or not theirs:
        return None
    return ours / theirs if figure.endswith(RATES) else theirs / ours


def verdict(figure: str, values: dict[str, float]) -> str:
    """Whether the target is met, where there is one."""
    ours = values.get(INSTAR)
    if ours is None:
        return ""
    if NOTHING in values:
        share = ours / values[NOTHING]
        return f"at most {MOST_OF_NOTHING}: {share:.2f} {_met(share <= MOST_OF_NOTHING)}"
    if figure in LIMITS:
        return f"at most {LIMITS[figure]:g}: {_met(ours <= LIMITS[figure])}"
    peer, wanted = TARGETS.get(figure, ("", 0.0))
    reached = times_better(figure, values, peer) if peer else None
    return f"{wanted:g}x of {peer}: {_met(reached >= wanted)}" if reached is not None else ""


def _met(yes: bool) -> str:
    return "met" if yes else "MISSED"


def _ratio(figure: str, values: dict[str, float], peer: str) -> str:
    ratio = times_better(figure, values, peer)
    return f"{ratio:.1f}x" if ratio is not None else ""


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
