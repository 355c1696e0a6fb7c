"""Heads of requests for predictions that were parsed before, found again by their bytes, whenever a request comes.

A client sends the same head over and over. So the next request that begins with the same bytes is not parsed at all. Only
heads are remembered whose end and body nobody can read in two ways: HTTP/1.1, one length, no word about the connection or the
coding of the body. What is remembered is what the parser made of these very bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from instar.serve.protocol import v2_json
from instar.serve.protocol.places import Place

KNOWN_BYTES = 4096  # of a head that is remembered
MOST_KNOWN = 1024  # when more come, all are forgotten: callers could make up others without end

# Where one of these is, a request may end elsewhere, or the connection with it.
_SPECIAL = frozenset({b"transfer-encoding", b"connection", b"expect", b"upgrade", b"te", b"trailer", b"keep-alive"})


class Head(NamedTuple):
    """A request's head; `length` is that of its body, bytes."""

    place: Place
    headers: list[tuple[bytes, bytes]]
    length: int


_known: dict[bytes, Head] = {}

known = _known.get


def remember(data: bytes, place: Place, headers: list[tuple[bytes, bytes]], http_version: str, keep: bool) -> None:
    """Remember a head that was parsed, unless it is one that must be parsed each time."""
    lengths = [value for name, value in headers if name == b"content-length"]
    if len(lengths) != 1 or not lengths[0].isdigit() or http_version != "1.1" or not keep:
        return
    if int(lengths[0]) > v2_json.BODY_LIMIT_BYTES or any(name in _SPECIAL for name, _ in headers):
        return
    if len(_known) >= MOST_KNOWN:
        _known.clear()
    _known[data] = Head(place, headers, int(lengths[0]))
