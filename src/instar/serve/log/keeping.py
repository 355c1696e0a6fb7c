"""What is kept of a call's tensors, at the moment when its record is made: all values, or of large ones a sample and a digest.

A call whose tensors are small is kept whole. Where one side of a call (what it gave, or what a version answered) is larger
than the limit, each tensor above its share of it is sampled: first values, last values, size, and a digest by which the whole
can be recognised when somebody brings it. Table models are never sampled: monitors compare all their rows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

from blake3 import blake3

from instar.serve.log.record import Tensor
from instar.serve.protocol.signature import BYTES

LIMIT_BYTES = 64 * 1024  # of one side of a call
SAMPLE_VALUES = 256  # kept from the beginning, and as many from the end
SAMPLE_TEXT = 1024  # characters of each sampled text

_LENGTH = struct.Struct("<Q")


def keep(tensors: Iterable[tuple[str, str, Any]], limit_bytes: int = LIMIT_BYTES) -> list[Tensor]:
    """Tensors as the record has them.

    Args:
        tensors: Name, datatype and numpy array (of Python objects for text).
        limit_bytes: All together; above it the large ones are sampled.
    """
    sized = [(name, datatype, array, _size(datatype, array)) for name, datatype, array in tensors]
    share = limit_bytes
    if sum(one[3] for one in sized) > limit_bytes:
        share = limit_bytes // len(sized)
    return [
        Tensor(name, datatype, array.shape, array.tolist() if array.ndim == 1 else array.ravel().tolist())
        if datatype == BYTES and size <= share
        else Tensor(name, datatype, array.shape, array.tobytes())
        if size <= share
        else _sample(name, datatype, array, size)
        for name, datatype, array, size in sized
    ]


def _size(datatype: str, array: Any) -> int:
    if datatype != BYTES:
        return int(array.nbytes)
    return sum(map(len, array.ravel().tolist()))


def _sample(name: str, datatype: str, array: Any, size: int) -> Tensor:
    flat = array.ravel()
    count = SAMPLE_VALUES if flat.size > 2 * SAMPLE_VALUES else (flat.size + 1) // 2
    if datatype != BYTES:
        whole = memoryview(flat.view("uint8")) if flat.size else b""
        digest = blake3(whole).digest()
        return Tensor(
            name, datatype, array.shape, flat[:count].tobytes(), flat[flat.size - count :].tobytes(), digest, size
        )
    texts: list[str | bytes] = flat.tolist()
    hasher = blake3()
    size = 0
    for text in texts:
        data = text.encode() if isinstance(text, str) else text
        hasher.update(_LENGTH.pack(len(data)) + data)
        size += len(data)
    return Tensor(name, datatype, array.shape, _cut(texts[:count]), _cut(texts[-count:]), hasher.digest(), size)


def _cut(texts: Sequence[str | bytes]) -> list[str | bytes]:
    return [text[:SAMPLE_TEXT] for text in texts]
