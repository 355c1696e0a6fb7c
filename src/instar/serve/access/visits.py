"""What a process saw of callers: when tokens were used, and who was refused what, until the control side has it on the record.

A gateway never opens the database. It counts, and leaves what it counted as a small file, at most one at a time; the control
process takes such files in. So an attacker costs a number, and neither a row nor a line for each try.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from instar.core.durable import replace_file
from instar.serve.access.keyring import Pass
from instar.serve.traffic.routes import serve_folder

if TYPE_CHECKING:
    from instar.core.store import Store

MINUTE = 60
MOST_KINDS = 1000  # of refusals that one process tells apart at a time
NOBODY = "nobody"  # whoever did not prove who it is
OTHERS = "others"  # what is refused beyond that


class Refused(msgspec.Struct, frozen=True, array_like=True):
    """One kind of refusal: `minute` is seconds since 1970, `route` has parameters by name."""

    minute: int
    caller: str
    route: str
    status: int
    project: str = ""


class _Report(msgspec.Struct):
    used: dict[str, float] = {}
    refused: list[tuple[Refused, int]] = []


class Visits:
    """What one process saw since it last told.

    Args:
        name: Of the process, for its file; two that run must differ.

    Attributes:
        tell: Called at each refusal, for who writes them down.
    """

    def __init__(self, store_folder: Path, name: str) -> None:
        self.tell: Callable[[], object] | None = None
        self._file = visits_folder(store_folder) / f"{name}.json"
        self._refused: dict[Refused, int] = {}
        self._used: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def refuse(self, caller: str, route: str, status: int, project: str = "") -> None:
        """Count a refusal."""
        kind = Refused(int(time.time()) // MINUTE * MINUTE, caller, route[:300], status, project[:200])
        if kind not in self._refused and len(self._refused) >= MOST_KINDS:
            kind = Refused(kind.minute, OTHERS, OTHERS, status)
        self._refused[kind] = self._refused.get(kind, 0) + 1
        if self.tell is not None:
            self.tell()

    def take(self, passes: Iterable[Pass]) -> tuple[dict[str, float], dict[Refused, int]]:
        """Last uses of tokens, each told once a minute, and refusals, since this was last asked."""
        for held in passes:
            token = held.caller.token
            if held.used_at and held.used_at - self._told.get(token, 0.0) >= MINUTE:
                self._used[token] = self._told[token] = held.used_at
        used, refused = self._used, self._refused
        self._used, self._refused = {}, {}
        return used, refused

    def put_back(self, used: dict[str, float], refused: dict[Refused, int]) -> None:
        """Keep what was taken and could not be told."""
        self._used = {**used, **self._used}
        for kind, count in refused.items():
            if kind in self._refused or len(self._refused) < MOST_KINDS:
                self._refused[kind] = self._refused.get(kind, 0) + count

    def leave(self, passes: Iterable[Pass]) -> bool:
        """Leave what was seen for the control process; False while it cannot be, or what was left before still lies there."""
        if self._file.exists():
            return False
        used, refused = self.take(passes)
        try:
            if used or refused:
                replace_file(self._file, msgspec.json.encode(_Report(used, list(refused.items()))), durable=False)
        except OSError:  # a full disk, of which the log says more
            self.put_back(used, refused)
            return False
        return True


def visits_folder(store_folder: Path) -> Path:
    """Where gateways leave what they saw."""
    return serve_folder(store_folder) / "visits"


def take_in(store: Store) -> None:
    """Put on the record what gateways left."""
    for file in sorted(visits_folder(store.folder).glob("*.json")):
        try:
            report = msgspec.json.decode(file.read_bytes(), type=_Report)
        except (FileNotFoundError, msgspec.DecodeError):
            report = _Report()
        record(store, report.used, dict(report.refused))
        file.unlink(missing_ok=True)


def record(store: Store, used: dict[str, float], refused: dict[Refused, int]) -> None:
    """Put on the record what one process saw."""
    from instar.core import refusals, tokens

    tokens.note_use(store, {token: _moment(at) for token, at in used.items()})
    counts = {
        refusals.Refusal(_moment(one.minute), one.caller, one.route, one.status, one.project): count
        for one, count in refused.items()
    }
    refusals.note(store, counts)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
