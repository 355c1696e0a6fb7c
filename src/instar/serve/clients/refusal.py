"""What a gateway said when it would not tell a client what an endpoint takes, as the error that a program of ours raises."""

from __future__ import annotations

import msgspec

from instar.core.errors import InstarError, NotAllowed, NotFound, Unauthenticated, Unavailable

KINDS: dict[int, type[InstarError]] = {401: Unauthenticated, 403: NotAllowed, 404: NotFound}


class _Said(msgspec.Struct):
    error: str


def refused(endpoint: str, status: int, body: bytes) -> InstarError:
    """The error that an answer with another status than 200 is, in the server's own words where it speaks as ours do."""
    subject = f"endpoint {endpoint}"
    try:
        said = msgspec.json.decode(body, type=_Said).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = f"the server answers {status}: {body[:300].decode(errors='replace')}"
    what, _, next_step = said.partition("\nNext: ")
    kind = KINDS.get(status, Unavailable)
    return kind(what.removeprefix(f"{subject}: ").removesuffix("."), subject=subject, next_step=next_step)
