"""Pages of a long listing, and the tokens that lead from one to the next; used by every search that may find many.

A token holds the place after which to go on (the sort values of the last line), not a count of lines: what is added
in the meantime neither repeats a line nor hides one. It is opaque, and bound to the question that it was given for.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from instar.core import ids
from instar.core.errors import BadInput

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some lines of a listing, and the token that asks for those after them; None at the end."""

    items: Sequence[T]
    token: str | None = None


def write_token(question: object, place: Sequence[Any]) -> str:
    """The token that goes on after `place`, the sort values of a page's last line."""
    text = json.dumps([_mark(question), list(place)], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_token(question: object, token: str, length: int) -> list[Any]:
    """The place that a token holds.

    Args:
        length: How many sort values a line has.

    Raises:
        BadInput: It is no token, or that of another question.
    """
    try:
        mark, place = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        good = isinstance(place, list) and len(place) == length
    except (ValueError, TypeError):
        raise BadInput(
            "that is no page token", found=token[:80], asked="the token of the page before, unchanged"
        ) from None
    if not good or mark != _mark(question):
        raise BadInput(
            "the page token belongs to another search",
            found=token[:80],
            next_step="Ask for the first page again, without a token.",
        )
    return list(place)


def _mark(question: object) -> str:
    return ids.digest_of(question)[3:15]
