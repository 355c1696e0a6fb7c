"""Which requests ask for predictions, of what and in which form: the one table of inference paths, looked up at each call.

place_of(b"/v2/models/delay/versions/3/infer")   # -> Place("delay", "3", INFER)
form_of(INFER, b"application/json", None)         # -> (wire.JSON, 0)
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote

from instar.core.errors import MalformedRequest, NotAcceptable, UnsupportedMedia
from instar.serve.protocol import codings, wire

KNOWN_LIMIT = 4096  # targets whose place is remembered; callers could make up others without end

# What a path says of the body; the content type says the rest.
INFER, RECORDS, INVOCATIONS = "infer", "records", "invocations"

_JSON = b"application/json"
_ARROW = b"application/vnd.apache.arrow.stream"
_MEDIA: dict[str, dict[bytes, int]] = {
    INFER: {
        _JSON: wire.JSON,
        b"application/octet-stream": wire.BINARY,
        _ARROW: wire.ARROW,
    },
    RECORDS: {_JSON: wire.RECORDS},
    INVOCATIONS: {_JSON: wire.INVOCATIONS, b"text/csv": wire.CSV},
}
# Content types of answers, by form.
CONTENT_TYPES = {
    wire.JSON: _JSON, wire.BINARY: b"application/octet-stream", wire.RECORDS: _JSON, wire.INVOCATIONS: _JSON,
    wire.CSV: b"text/csv; charset=utf-8", wire.ARROW: _ARROW,
}  # fmt: skip
# What may be accepted as an answer.
ANSWERS: dict[str, dict[bytes, int]] = {
    INFER: {**_MEDIA[INFER], b"text/csv": wire.CSV},
    RECORDS: {_JSON: wire.RECORDS, _ARROW: wire.ARROW, b"text/csv": wire.CSV},
    INVOCATIONS: {_JSON: wire.INVOCATIONS, _ARROW: wire.ARROW, b"text/csv": wire.CSV},
}


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
_accepted: dict[tuple[str, int, bytes], int] = {}


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


def answer_of(kind: str, form: int, accept: bytes) -> int:
    """The form of the answer to a body of some form, as the header `Accept` asks for it.

    Raises:
        NotAcceptable: It asks for nothing that there is.
    """
    key = (kind, form, accept)
    answer = _accepted.get(key)
    if answer is None:
        answer = _choose(kind, form, accept)
        if len(_accepted) >= KNOWN_LIMIT:
            _accepted.clear()
        _accepted[key] = answer
    return answer


def _choose(kind: str, form: int, accept: bytes) -> int:
    """The best of the answers (RFC 9110, section 12.5.1); among equals the one that belongs to the body."""
    ranges: dict[bytes, float] = {}
    for part in accept.lower().split(b","):
        name, _, parameters = part.partition(b";")
        ranges[name.strip()] = codings.quality(parameters)
    best, most = wire.SAME, 0.0
    belongs = b"application/octet-stream" if form == wire.BINARY else _ARROW if form == wire.ARROW else _JSON
    for media in sorted(ANSWERS[kind], key=lambda one: one != belongs):
        every = ranges.get(b"*/*", 0.0)
        weight = ranges.get(media, ranges.get(media.split(b"/")[0] + b"/*", every))
        if weight > most:
            best, most = wire.SAME if media == belongs and media not in ranges else ANSWERS[kind][media], weight
    if not most:
        raise NotAcceptable(
            "no answer is of a kind that the caller accepts", subject="Accept",
            found=repr(accept[:80].decode("latin-1")), asked=", ".join(one.decode() for one in ANSWERS[kind]),
        )  # fmt: skip
    return best


def _read(target: bytes) -> Place | None:
    if target[:7].lower() == b"http://" or target[:8].lower() == b"https://":  # absolute, as proxies are asked
        target = b"/" + target.split(b"//", 1)[1].partition(b"/")[2]
    try:
        path = unquote(target.split(b"?", 1)[0].split(b"#", 1)[0].decode("latin-1"), errors="strict")
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
