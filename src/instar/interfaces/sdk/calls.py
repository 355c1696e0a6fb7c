"""Reading the record over the API, page by page, when an application or a notebook asks for calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

A_PAGE = 1000  # predictions

Get = Callable[[dict[str, Any]], Any]


def gather(
    get: Get, inputs: Sequence[str], score: Sequence[str], limit: int | None, asked: dict[str, Any]
) -> list[dict[str, Any]]:
    """Predictions that filters leave, newest first, at most `limit`.

    Args:
        get: Asks for one page by its query.
        asked: Filters by name; moments or texts.
    """
    query = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asked.items()}
    query |= {"input": list(inputs), "score": list(score)}
    found: list[dict[str, Any]] = []
    while limit is None or len(found) < limit:
        page = get({**query, "limit": A_PAGE if limit is None else min(A_PAGE, limit - len(found))})
        found += page["calls"]
        if page["cursor"] is None:
            break
        query["cursor"] = page["cursor"]
    return found
