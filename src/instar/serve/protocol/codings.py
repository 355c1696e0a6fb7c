"""Bodies that come packed, and answers that are packed for those who take them so (RFC 9110, section 8.4), at a call.

A gateway only knows the words (`coding_of`, `accepted`); bodies are opened in workers (`unpack`), never beyond a bound: a few
kilobytes that would become gigabytes cost no more memory than the largest body that may come unpacked.
"""

from __future__ import annotations

import zlib

from instar.core.errors import MalformedRequest, TooLarge, UnsupportedMedia
from instar.serve.protocol import v2_json

PLAIN, GZIP, DEFLATE = range(3)
WORDS = {GZIP: b"gzip", DEFLATE: b"deflate"}

PACKED_FROM_BYTES = 8 * 1024  # of an answer; below it packing costs more time than the bytes that it saves
RATIO = 1032  # how much larger a packed body may become: the most that DEFLATE can say in a byte
KNOWN_LIMIT = 1024  # headers whose meaning is remembered; callers could make up others without end

_LEVEL = 1
_WINDOW = {
    GZIP: 31,
    DEFLATE: 15,
}  # of zlib: with the head and tail of RFC 1952, or of RFC 1950, which HTTP calls deflate
_CODINGS = {b"identity": PLAIN, b"gzip": GZIP, b"x-gzip": GZIP, b"deflate": DEFLATE}
_known: dict[bytes, int] = {}


def coding_of(value: bytes) -> int:
    """What the header `Content-Encoding` says.

    Raises:
        UnsupportedMedia: Such a body cannot be opened.
    """
    coding = _CODINGS.get(value.strip().lower())
    if coding is None:
        raise UnsupportedMedia(
            "the body is packed in a way that is not read", subject="Content-Encoding",
            found=repr(value[:40].decode("latin-1")), asked="gzip or deflate, once",
        )  # fmt: skip
    return coding


def accepted(value: bytes) -> int:
    """How an answer may be packed for the header `Accept-Encoding`; `PLAIN` is always good."""
    known = _known.get(value)
    if known is None:
        if len(_known) >= KNOWN_LIMIT:
            _known.clear()
        known = _known[value] = _accepted(value)
    return known


def unpack(body: bytes, coding: int) -> bytes:
    """The body as it was before it was packed.

    Raises:
        MalformedRequest: It is not packed so, or not whole.
        TooLarge: It becomes larger than a body may be.
    """
    opening = zlib.decompressobj(_WINDOW[coding])
    try:
        data = opening.decompress(body, v2_json.BODY_LIMIT_BYTES + 1)
    except zlib.error as problem:
        raise _not_packed(str(problem), coding) from None
    if len(data) > v2_json.BODY_LIMIT_BYTES:
        raise TooLarge(
            "the request's body is too large when it is unpacked",
            found=f"more than {v2_json.BODY_LIMIT_BYTES} bytes",
            asked=f"{v2_json.BODY_LIMIT_BYTES} bytes",
            next_step="Send fewer rows a request.",
        )
    if not opening.eof:
        raise _not_packed("it ends too early", coding)
    if opening.unused_data:
        raise _not_packed("there is more behind its end", coding)
    return data


def pack(body: bytes, coding: int) -> bytes:
    """An answer, packed."""
    packing = zlib.compressobj(_LEVEL, wbits=_WINDOW[coding])
    return packing.compress(body) + packing.flush()


def _accepted(value: bytes) -> int:
    weights: dict[bytes, float] = {}
    for part in value.lower().split(b","):
        name, _, weight = part.partition(b";")
        weights[name.strip()] = quality(weight)
    best, most = PLAIN, 0.0
    for coding, word in WORDS.items():
        wish = weights.get(word, weights.get(b"*", 0.0))
        if wish > most:
            best, most = coding, wish
    # Whoever says so gets it plain.
    return PLAIN if weights.get(b"identity", 0.0) > most else best


def quality(parameters: bytes) -> float:
    """The weight among the parameters of one choice of a header (RFC 9110, section 12.4.2): 1 where none is said."""
    for parameter in parameters.split(b";"):
        name, _, value = parameter.partition(b"=")
        if name.strip().lower() == b"q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def _not_packed(why: str, coding: int) -> MalformedRequest:
    return MalformedRequest(
        f"the body cannot be unpacked: {why}",
        subject="$",
        asked=f"a body in {WORDS[coding].decode()}, as its header says",
    )
