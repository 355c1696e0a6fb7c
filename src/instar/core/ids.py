"""Names of records: sortable ids with a typed prefix, call ids that tell time and place, and digests of content.

>>> parse_call_id(call_id(1_700_000_000_000, boot=7, sequence=42))
CallId(milliseconds=1700000000000, boot=7, sequence=42)
>>> digest(b"instar")[:10]
'b3:8b09a1a'
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from instar.core.errors import MalformedRequest

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U
_VALUES = {letter: value for value, letter in enumerate(ALPHABET)}
_CALL = re.compile(r"call_([0-9A-HJKMNP-TV-Z]{26})\Z")
_PREDICTION = re.compile(r"(call_[0-9A-HJKMNP-TV-Z]{26})/(0|[1-9][0-9]{0,8})\Z")

# Widths in base-32 letters: 50 bits of milliseconds, 30 of boot, 50 of sequence.
_MILLISECONDS, _BOOT, _SEQUENCE = 10, 6, 10

_PAIRS = [high + low for high in ALPHABET for low in ALPHABET]

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_lock = threading.Lock()
_last: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class CallId:
    """Where and when a call was taken: Unix milliseconds, boot number of the gateway, sequence within the boot."""

    milliseconds: int
    boot: int
    sequence: int


def new_id(prefix: str) -> str:
    """A new id such as `run_01J9…`: ids made later by one process sort later, also within a millisecond."""
    global _last
    with _lock:
        milliseconds = time.time_ns() // 1_000_000
        # Counting the random part up keeps the order of ids made within one millisecond, or after a clock set back.
        if milliseconds <= _last[0]:
            _last = (_last[0], _last[1] + 1)
        else:
            _last = (milliseconds, int.from_bytes(os.urandom(9), "big"))
        return f"{prefix}_{_encode(_last[0], 10)}{_encode(_last[1], 16)}"


def id_of(prefix: str, milliseconds: int, content: bytes) -> str:
    """An id made of a moment and of what it stands for: the same one each time, sorted among the others by the moment."""
    from blake3 import blake3

    return f"{prefix}_{_encode(milliseconds, 10)}{_encode(int.from_bytes(blake3(content).digest()[:10], 'big'), 16)}"


def new_boot() -> int:
    """A random number of 30 bits for one start of one gateway."""
    return int.from_bytes(os.urandom(4), "big") >> 2


def call_id(milliseconds: int, boot: int, sequence: int) -> str:
    """The id of a call, from which time and place can be read back."""
    return "call_" + _encode(milliseconds, _MILLISECONDS) + _encode(boot, _BOOT) + _encode(sequence, _SEQUENCE)


class CallIds:
    """Ids of the calls of one boot, in order. What stays the same from call to call is written once.

    >>> CallIds(boot=7).next(1_700_000_000_000) == call_id(1_700_000_000_000, boot=7, sequence=1)
    True
    """

    def __init__(self, boot: int) -> None:
        self._boot = _encode(boot, _BOOT)
        self._milliseconds = self._high = self._seconds = -1
        self._sequence = 0
        self._begin = self._before = self._middle = ""

    def next(self, milliseconds: int) -> str:
        """The next call's id.

        Args:
            milliseconds: Wall time of its arrival.
        """
        self._sequence += 1
        high, low = self._sequence >> 10, self._sequence & 1023
        if milliseconds != self._milliseconds:
            self._milliseconds = milliseconds
            if milliseconds >> 10 != self._seconds:
                self._seconds = milliseconds >> 10
                self._begin = "call_" + _encode(self._seconds, _MILLISECONDS - 2)
            self._before = self._begin + _PAIRS[milliseconds & 1023] + self._boot
        if high != self._high:
            self._high, self._middle = high, _encode(high, _SEQUENCE - 2)
        return self._before + self._middle + _PAIRS[low]


def parse_call_id(text: str) -> CallId:
    """Time and place of a call.

    Raises:
        MalformedRequest: `text` is not a call id.
    """
    match = _CALL.match(text)
    if match is None:
        raise MalformedRequest(
            "that is not a call id",
            found=repr(text[:60]),
            asked="call_ and 26 letters",
            next_step="Take the id from the header Instar-Call of the answer.",
        )
    letters = match.group(1)
    middle = _MILLISECONDS + _BOOT
    return CallId(_decode(letters[:_MILLISECONDS]), _decode(letters[_MILLISECONDS:middle]), _decode(letters[middle:]))


def parse_prediction_id(text: str) -> tuple[str, int]:
    """Call id and row of a prediction id such as `call_…/17`.

    Raises:
        MalformedRequest: `text` is not a prediction id.
    """
    match = _PREDICTION.match(text)
    if match is None:
        raise MalformedRequest(
            "that is not a prediction id",
            found=repr(text[:60]),
            asked="call_… and the row, as in call_…/0",
            next_step="Add the row of the request to the call id of the answer.",
        )
    return match.group(1), int(match.group(2))


def digest(data: bytes | memoryview) -> str:
    """Content digest: `b3:` and 64 hexadecimal letters of BLAKE3-256."""
    from blake3 import blake3

    return "b3:" + blake3(data).hexdigest()


def digest_of_file(path: Path) -> str:
    """Content digest of a file, which is read in parts: a mapped file would count as memory of the process."""
    from blake3 import blake3

    hasher, part = blake3(), memoryview(bytearray(1024 * 1024))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(part):
            hasher.update(part[:size])
    return "b3:" + hasher.hexdigest()


def canonical_json(value: object) -> bytes:
    """The one JSON text of a value: keys sorted, no spaces, no NaN."""
    return _CANONICAL.encode(value).encode()


def digest_of(value: object) -> str:
    """Digest of a value's canonical JSON."""
    return digest(canonical_json(value))


def _encode(value: int, width: int) -> str:
    return "".join([ALPHABET[value >> shift & 31] for shift in range(5 * width - 5, -5, -5)])


def _decode(letters: str) -> int:
    value = 0
    for letter in letters:
        value = value * 32 + _VALUES[letter]
    return value
