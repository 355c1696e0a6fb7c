"""In what condition the versions of a running server are: loaded, cold, or unable to start and why; for people who look.

The root writes it when it changes; nothing that answers calls reads it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from instar.serve.root.process import running
from instar.serve.traffic.routes import replace_file, serve_folder

WARM, COLD, FAILING = "warm", "cold", "failing"


class Condition(msgspec.Struct, frozen=True):
    """One version's, by its bundle.

    Attributes:
        state: `warm`: it is loaded. `cold`: the next call loads it. `failing`: it cannot be loaded at present.
        processes: Of its own, that take calls.
        bytes: Memory of these.
        problem: Why it fails.
    """

    state: str
    processes: int = 0
    bytes: int = 0
    problem: str | None = None


def write(store_folder: Path, conditions: dict[str, Condition]) -> None:
    """Say how versions are now."""
    replace_file(_file(store_folder), msgspec.json.encode(conditions), durable=False)


def read(store_folder: Path) -> dict[str, Condition]:
    """Conditions by bundle, of the server that runs on a store; none when none runs. What is not named is cold."""
    if running(store_folder) is None:
        return {}
    try:
        return msgspec.json.decode(_file(store_folder).read_bytes(), type=dict[str, Condition])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


def _file(store_folder: Path) -> Path:
    return serve_folder(store_folder) / "conditions.json"
