"""Which requests ask for a prediction, and of what: the one table of inference paths, looked up at each call.

place_of(b"/v2/models/delay/versions/3/infer")   # -> Place("delay", "3")
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote

from instar.serve import wire

KNOWN_LIMIT = 4096  # targets whose place is remembered; callers could make up others without end


class Place(NamedTuple):
    """What a request asks for.

    Attributes:
        version: As the path names it; None when it leaves the choice to the endpoint's policy.
        form, head: How the body is to be read (see `wire.Ask`).
    """

    endpoint: str
    version: str | None = None
    form: int = wire.JSON
    head: int = 0


_known: dict[bytes, Place | None] = {}


def place_of(target: bytes) -> Place | None:
    """The place that a request's target names; None when it is no inference path."""
    try:
        return _known[target]
    except KeyError:
        if len(_known) >= KNOWN_LIMIT:
            _known.clear()
        place = _known[target] = _read(target)
        return place


def _read(target: bytes) -> Place | None:
    path = unquote(target.split(b"?", 1)[0].decode("latin-1"), errors="strict" if b"%" in target else "replace")
    match path.split("/"):
        case ["", "v2", "models", endpoint, "infer"]:
            return Place(endpoint)
        case ["", "v2", "models", endpoint, "versions", version, "infer"]:
            return Place(endpoint, version)
        case _:
            return None
