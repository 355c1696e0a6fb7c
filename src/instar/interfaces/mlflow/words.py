"""MLflow's words for states, views, times and numbers, and ours: the two ways between them, at every call."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from instar.interfaces.mlflow.errors import Refusal, invalid
from instar.interfaces.mlflow.messages import Pair

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST_MILLISECOND = 253_402_300_799_999  # of the year 9999

STATUSES = {
    "running": "RUNNING",
    "scheduled": "SCHEDULED",
    "finished": "FINISHED",
    "failed": "FAILED",
    "killed": "KILLED",
    "abandoned": "KILLED",  # its process died: for MLflow somebody killed it
}
STATES = {status: state for state, status in STATUSES.items() if state != "abandoned"}
NUMBERED_STATUSES = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
VIEWS = {
    "ACTIVE_ONLY": "active", "DELETED_ONLY": "deleted", "ALL": "all",
    "1": "active", "2": "deleted", "3": "all",
}  # fmt: skip


def state(status: str | int) -> str:
    """Our word for a status of a run.

    Raises:
        Refusal: There is no such status.
    """
    name = NUMBERED_STATUSES.get(status) if isinstance(status, int) else status
    if name not in STATES:
        raise invalid(f"Invalid value {status!r} for parameter 'status' supplied: it is one of {', '.join(STATES)}.")
    return STATES[name]


def view(asked: str | int | None) -> str:
    """Our word for a view: which records are listed.

    Raises:
        Refusal: There is no such view.
    """
    if asked is None:
        return "active"
    if str(asked) not in VIEWS:
        raise invalid(f"Invalid value {asked!r} for a view supplied: it is one of ACTIVE_ONLY, DELETED_ONLY, ALL.")
    return VIEWS[str(asked)]


def milliseconds(moment: datetime) -> int:
    """Milliseconds since 1970."""
    delta = moment - EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


def instant(milliseconds: int, name: str) -> datetime:
    """The moment of a number of milliseconds since 1970.

    Raises:
        Refusal: Before 1970, or after the year 9999.
    """
    if not 0 <= milliseconds <= LATEST_MILLISECOND:
        raise invalid(
            f"Invalid value {milliseconds} for parameter '{name}' supplied. "
            "It must be a nonnegative number of milliseconds since 1970."
        )
    return EPOCH + timedelta(milliseconds=milliseconds)


def number(value: float | None) -> float | str:
    """A number as JSON of protocol buffers has it; None is what is no number."""
    if value is None or value != value:
        return "NaN"
    if math.isfinite(value):
        return value
    return "Infinity" if value > 0 else "-Infinity"


def text(value: Any) -> str:
    """A parameter's value as MLflow sees it: its text."""
    return value if isinstance(value, str) else str(value)


def pairs(values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> list[Pair]:
    """Tags or parameters."""
    items = values.items() if isinstance(values, Mapping) else values
    return [Pair(key=key, value=text(value)) for key, value in items]


def gone(what: str, id: str) -> Refusal:
    """There is no such record for this caller."""
    return Refusal("RESOURCE_DOES_NOT_EXIST", f"{what} with id={id} not found")
