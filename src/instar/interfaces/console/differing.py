"""The page that says where two versions of an endpoint differ, while one answers and the other is beside it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from instar.interfaces.api.operate import log_of
from instar.interfaces.api.routes import Request
from instar.interfaces.api.traffic import compared


def page(request: Request) -> dict[str, Any]:
    """Two versions on the same calls: whole, parts of the traffic, and the predictions farthest apart; asked as the API is."""
    found = compared(request, log_of(request.app.store))
    asked = urlencode(request.query_lists, doseq=True)
    return {
        "project": request.path["project"],
        "endpoint": found.endpoint,
        "found": found,
        "asked": f"?{asked}" if asked else "",
    }
