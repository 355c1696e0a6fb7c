"""Moments as people write them, in a query, a body or an option, when something is asked of a span of time."""

from __future__ import annotations

from datetime import UTC, datetime

from instar.core.errors import BadInput


def moment_of(text: str, subject: str = "") -> datetime:
    """A moment as people write it; without a zone it is UTC.

    Args:
        subject: The option or the field that it stands in.

    Raises:
        BadInput: It is no date and no time.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(
            "that is no moment", subject=subject, found=repr(text[:60]),
            asked="a date or time as in 2013-06-01 or 2013-06-01T12:00:00Z",
        ) from None  # fmt: skip
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def moment_if(text: str | None, subject: str = "") -> datetime | None:
    """The same of what may be left out or empty."""
    return moment_of(text, subject) if text else None
