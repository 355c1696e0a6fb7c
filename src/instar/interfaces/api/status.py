"""Errors as HTTP: the one place where the error tree meets status codes."""

from __future__ import annotations

from typing import Any

from instar.core import errors

# The first class that fits decides, so the special comes before the general.
STATUS: tuple[tuple[type[errors.InstarError], int], ...] = (
    (errors.TooLarge, 413),
    (errors.UnsupportedMedia, 415),
    (errors.BadInput, 400),
    (errors.NotFound, 404),
    (errors.Unauthenticated, 401),
    (errors.NotAllowed, 403),
    (errors.TooManyCalls, 429),
    (errors.Conflict, 409),
    (errors.Blocked, 409),
    (errors.GateFailed, 409),
    (errors.CheckFailed, 422),
    (errors.UnsafeModel, 422),
    (errors.Unavailable, 503),
    (errors.DeadlineExceeded, 504),
    (errors.StoreBusy, 503),
    (errors.StoreFull, 507),
)


def status_of(error: errors.InstarError) -> int:
    """The HTTP status of an error; 500 when it is our fault."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def body_of(error: errors.InstarError) -> dict[str, Any]:
    """The JSON body of an error: a text for people (`error`, as the Open Inference Protocol asks), and its facts."""
    facts = {
        "error": str(error),
        "type": type(error).__name__,
        "subject": error.subject,
        "found": error.found,
        "asked": error.asked,
        "next": error.next_step,
    }
    return {
        name: value if isinstance(value, int | float) else str(value)
        for name, value in facts.items()
        if value not in (None, "")
    }
