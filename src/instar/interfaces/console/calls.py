"""The page of calls: what was asked and answered, found by who called, when, by which version, and with which inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from instar.interfaces.api.calls import LISTS, NUMBERS, TEXTS, reached, searched
from instar.interfaces.api.operate import log_of
from instar.interfaces.api.routes import Request
from instar.serve.log import erasing, holds

ROWS = "50"
SEVERAL = ("input", "score")


def calls(request: Request) -> dict[str, Any]:
    """Calls on the record, newest first, with the filters above them; erasures and holds beside."""
    query = {name: value for name, value in request.query.items() if value.strip()}
    lists = {name: _split(request.query.get(name, "")) for name in SEVERAL}
    found = searched(replace(request, query={"limit": ROWS, **query}, query_lists=lists))
    return {**calls_asked(request), "calls": found.rows, "cursor": found.cursor, "files": found.files,
            "counted": [vars(one) for one in found.counted]}  # fmt: skip


def calls_asked(request: Request) -> dict[str, Any]:
    """The form above the list as it was filled in, and what it may choose from."""
    store, project = request.app.store, request.path["project"]
    names = [name for name in (*TEXTS, *NUMBERS, *LISTS) if name not in ("cursor", "limit")]
    return {
        "project": project,
        "asked": {name: request.query.get(name, "") for name in names},
        "endpoints": [one for one in log_of(store).endpoints_of(project) if request.caller.reaches(one)],
        "erasures": [
            {**vars(one), "selector": None}
            for one in reversed(erasing.erasures(store, project))
            if reached(request, one.endpoint)
        ],
        "holds": [one for one in holds.standing(store, project) if reached(request, one.endpoint)],
    }


def _split(text: str) -> list[str]:
    """Several conditions stand in one field, with commas between them."""
    return [one.strip() for one in text.split(",") if one.strip()]
