"""Versions whose environment is not built as yet, as publishing routes found them: read by who builds, and by people who look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from instar.serve.traffic.routes import replace_file, serve_folder


class Waiting(msgspec.Struct, frozen=True):
    """A version that a policy names, and whose environment is not built.

    Attributes:
        environment: Its name.
        policy: Number of the policy that names it.
        held: The endpoint answers as before until it is built; else its calls hear that it is not.
        failed: Why it could not be built; empty while it is being built, or is to be.
    """

    endpoint: str
    version: int
    bundle: str
    environment: str
    policy: int
    held: bool = False
    failed: str = ""

    @property
    def name(self) -> str:
        """As people write it."""
        return f"{self.endpoint}@{self.version}"

    @property
    def words(self) -> str:
        """How it stands, for people."""
        said = f"its environment cannot be built: {self.failed}" if self.failed else "its environment is being built"
        return f"{said}; until it is, the endpoint answers as before" if self.held else said


def read(store_folder: Path) -> tuple[Waiting, ...]:
    """All that wait now."""
    try:
        return msgspec.json.decode(_file(store_folder).read_bytes(), type=tuple[Waiting, ...])
    except (FileNotFoundError, msgspec.DecodeError):
        return ()


def write(store_folder: Path, found: Sequence[Waiting]) -> None:
    """Say what waits; whoever publishes holds the lock of the routes."""
    if tuple(found) == read(store_folder):
        return
    if found:
        replace_file(_file(store_folder), msgspec.json.encode(found), durable=False)
    else:
        _file(store_folder).unlink(missing_ok=True)


def _file(store_folder: Path) -> Path:
    return serve_folder(store_folder) / "waiting.json"
