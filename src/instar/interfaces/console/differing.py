"""The page that says where two versions of an endpoint differ, while one answers and the other is beside it."""

from __future__ import annotations

from typing import Any

from instar.interfaces.api.operate import log_of
from instar.interfaces.api.routes import Request
from instar.interfaces.api.traffic import compared


def page(request: Request) -> dict[str, Any]:
    """Two versions on the same calls: whole, parts of the traffic, and the predictions farthest apart; asked as the API is."""
    found = compared(request, log_of(request.app.store))
    return {"project": request.path["project"], "endpoint": found.endpoint, "found": found}
