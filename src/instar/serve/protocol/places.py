"""Which requests ask for predictions, of what and in which form: the one table of inference paths, looked up at each call.

place_of(b"/v2/models/delay/versions/3/infer")   # -> Place("delay", "3", INFER)
form_of(INFER, b"application/json", None)         # -> (wire.JSON, 0)
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote

from instar.core.errors import MalformedRequest, UnsupportedMedia
from instar.serve.protocol import wire

KNOWN_LIMIT = 4096  # targets whose place is remembered; callers could make up others without end

# What a path says of the body; the content type says the rest.
INFER, RECORDS, INVOCATIONS = "infer", "records", "invocations"

_JSON = b"application/json"
_MEDIA: dict[str, dict[bytes, int]] = {
    INFER: {
        _JSON: wire.JSON,
        b"application/octet-stream": wire.BINARY,
        b"application/vnd.apache.arrow.stream": wire.ARROW,
    },
    RECORDS: {_JSON: wire.RECORDS},
    INVOCATIONS: {_JSON: wire.INVOCATIONS, b"text/csv": wire.CSV},
}
# Content types of answers, by form.
CONTENT_TYPES = {
    wire.JSON: _JSON, wire.BINARY: b"application/octet-stream", wire.RECORDS: _JSON, wire.INVOCATIONS: _JSON,
    wire.CSV: _JSON, wire.ARROW: b"application/vnd.apache.arrow.stream",
}  # fmt: skip


class Place(NamedTuple):
    """What a request asks for.

    Attributes:
        endpoint: Its name; None where the path names none, and means the only one.
        version: As the path names it; None when it leaves the choice to the endpoint's policy.
        kind: `INFER`, `RECORDS` or `INVOCATIONS`.
        rule: The path as the table of permissions has it (see `entrance`).
    """

    endpoint: str | None
    version: str | None = None
    kind: str = INFER
    rule: str = "/v2/models/{endpoint}/infer"


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


def form_of(kind: str, media: bytes | None, head: bytes | None) -> tuple[int, int]:
    """The form of a body, and how long its JSON head is.

    Args:
        media: The header `Content-Type`; without one the body is JSON.
        head: The header `Inference-Header-Content-Length`.

    Raises:
        UnsupportedMedia: Such a body is not read.
        MalformedRequest: The length of the head is no number, or it must be given.
    """
    if head is not None and kind == INFER:
        if not head.isdigit() or len(head) > 9:
            raise MalformedRequest(
                "the length of the head is no number", subject="Inference-Header-Content-Length", found=repr(head[:40])
            )
        return wire.BINARY, int(head)
    name = _JSON if media is None else media.split(b";", 1)[0].strip().lower()
    form = _MEDIA[kind].get(name)
    if form is None:
        raise UnsupportedMedia(
            "the body is of a kind that is not read", subject="Content-Type", found=repr(name[:80].decode("latin-1")),
            asked=", ".join(one.decode() for one in _MEDIA[kind]),
        )  # fmt: skip
    if form == wire.BINARY:
        raise MalformedRequest(
            "a body with binary tensors says where its head ends", subject="Inference-Header-Content-Length",
            asked="the bytes of the JSON head",
        )  # fmt: skip
    return form, 0


def _read(target: bytes) -> Place | None:
    try:
        path = unquote(target.split(b"?", 1)[0].decode("latin-1"), errors="strict")
    except UnicodeDecodeError:
        return None
    match path.removesuffix("/").split("/"):
        case ["", "v2", "models", endpoint, "infer" | "records" as kind]:
            return Place(endpoint, None, kind, f"/v2/models/{{endpoint}}/{kind}")
        case ["", "v2", "models", endpoint, "versions", version, "infer" | "records" as kind]:
            return Place(endpoint, version, kind, f"/v2/models/{{endpoint}}/versions/{{version}}/{kind}")
        case ["", "endpoints", endpoint, "invocations"]:
            return Place(endpoint, None, INVOCATIONS, "/endpoints/{endpoint}/invocations")
        case ["", "invocations"]:
            return Place(None, None, INVOCATIONS, "/invocations")
        case _:
            return None
