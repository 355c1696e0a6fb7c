"""Canonical text of constants, for step keys: equal for equal values on every machine and Python, or refused as opaque."""

from __future__ import annotations

import collections
import collections.abc
import decimal
import enum
import fractions
import io
import pathlib
import re
import socket
import threading
import types
import uuid
import zoneinfo
from collections.abc import Callable, Mapping
from typing import Any

from instar.core.ids import digest

Reference = Callable[[object], str | None]


_PLAIN_TYPES: tuple[Callable[[Any], object], ...] = (dict, list, tuple, set, frozenset, str, bytes, int, float)
_MAPPINGS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter, types.MappingProxyType)


class Opaque(Exception):
    """A value has no canonical text."""

    def __init__(self, value: object) -> None:
        self.value = value
        super().__init__(f"an object of {type(value).__module__}.{type(value).__qualname__}")


def is_plain(value: object) -> bool:
    """Is it a text, a number, a truth, None, or one of Python's own collections?"""
    return value is None or type(value) in _PLAIN_TYPES or type(value) in (bool, complex)


def canonical(value: object, reference: Reference) -> str:
    """The text of a value; order counts in lists and dictionaries, not in sets.

    Args:
        value: Any object.
        reference: Called with each object that is no plain value; returns its text, None when it does not know it, or
            raises Opaque.

    Raises:
        Opaque: Some object within `value` has no canonical text.
    """
    return _text(value, reference, ())


# The state of these lies elsewhere or is used up: neither a value nor the statement that made it tells what they give.
_LIVE: tuple[tuple[type, str], ...] = (
    (io.FileIO, "an open file"),
    (io.IOBase, "an open file"),
    (socket.socket, "a socket"),
    (types.GeneratorType, "a generator"),
    (types.CoroutineType, "a coroutine"),
    (types.AsyncGeneratorType, "a generator"),
    (collections.abc.Iterator, "an iterator, which is used up"),
    (type(threading.Lock()), "a lock"),
    (type(threading.RLock()), "a lock"),
    (threading.Condition, "a lock"),
    (threading.Semaphore, "a lock"),
    (threading.Event, "a lock"),
    (threading.Thread, "a thread"),
)


def live_kind(value: object) -> str:
    """What a value is whose state no code and no value tells; empty when it is no such thing."""
    for kind, word in _LIVE:
        if isinstance(value, kind) and not isinstance(value, io.BytesIO | io.StringIO):
            return word
    # By its methods, as PEP 249 describes it, so that no driver need be imported.
    if all(callable(getattr(type(value), name, None)) for name in ("cursor", "commit", "close")):
        return "a connection to a database"
    return ""


def spoken(value: object) -> str:
    """What to call a value that has no canonical text."""
    return live_kind(value) or f"an object of {type(value).__module__}.{type(value).__qualname__}"


def roughly(value: object) -> str:
    """Text of a value in which what has no canonical text stands by its name alone."""

    def named(inner: object) -> str | None:
        if isinstance(inner, pathlib.PurePath):
            return f"path {inner.name}"
        if type(inner).__module__.split(".")[0] == "numpy" and hasattr(inner, "dtype"):
            return None
        return f"object {getattr(inner, '__qualname__', type(inner).__qualname__)}"

    return canonical(value, named)


def state_of(value: object) -> dict[str, object]:
    """Attributes of an object, from its dictionary and slots, by name, and the plain value that it may be."""
    found = dict(getattr(value, "__dict__", {}))
    for plain in _PLAIN_TYPES:  # a subclass of a plain type holds a value too
        if isinstance(value, plain):  # type: ignore[arg-type]
            found["itself"] = plain(value)
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if slot not in ("__dict__", "__weakref__") and hasattr(value, slot):
                found[slot] = getattr(value, slot)
    return dict(sorted(found.items()))


def _text(value: object, reference: Reference, above: tuple[int, ...]) -> str:
    if value is None or value is Ellipsis or isinstance(value, bool):
        return ascii(value)
    if type(value) in (int, float, complex, str, bytes, bytearray):
        return f"{type(value).__name__} {value!a}"
    if id(value) in above:
        return f"ring {len(above) - above.index(id(value))}"
    inside = (*above, id(value))
    if type(value) in (list, tuple, collections.deque):
        items = [_text(item, reference, inside) for item in value]  # type: ignore[attr-defined]
        return f"{type(value).__name__} [{', '.join(items)}]"
    if type(value) in (set, frozenset):
        return f"{type(value).__name__} {{{', '.join(sorted(_text(item, reference, inside) for item in value))}}}"  # type: ignore[attr-defined]
    if type(value) in _MAPPINGS:
        return _mapping_text(value, reference, inside)  # type: ignore[arg-type]
    plain = _standard_text(value)
    if plain is not None:
        return plain
    if isinstance(value, enum.Enum):
        return f"member {_known(type(value), reference)} {value.name} {_text(value.value, reference, inside)}"
    known = reference(value)
    if known is not None:
        return known
    if isinstance(value, pathlib.PurePath):
        return f"path {value.as_posix()}"
    return _array_text(value, reference, inside)


def _mapping_text(value: Mapping[object, object], reference: Reference, inside: tuple[int, ...]) -> str:
    items = [f"{_text(key, reference, inside)}: {_text(item, reference, inside)}" for key, item in value.items()]
    return f"mapping {{{', '.join(items)}}}"


def _standard_text(value: object) -> str | None:
    """Values of the standard library whose repr is exact and the same everywhere."""
    if isinstance(value, range | slice) or type(value).__module__ == "datetime":
        return ascii(value)
    if isinstance(value, decimal.Decimal | fractions.Fraction | uuid.UUID | zoneinfo.ZoneInfo):
        return f"{type(value).__name__} {value}"
    if isinstance(value, re.Pattern):
        return f"pattern {value.flags} {value.pattern!a}"
    return None


def _known(value: type, reference: Reference) -> str:
    """A class by its label, or by its name where it is the standard library's."""
    try:
        return reference(value) or value.__qualname__
    except Opaque:
        return value.__qualname__


def _array_text(value: Any, reference: Reference, inside: tuple[int, ...]) -> str:
    """Arrays of numpy and whatever else says its bytes the same way; the library itself is not imported for it."""
    if type(value).__module__.split(".")[0] != "numpy" or not hasattr(value, "dtype"):
        raise Opaque(value)
    if value.dtype.hasobject:
        return f"array {value.shape} {_text(value.tolist(), reference, inside)}"
    little = value.astype(value.dtype.newbyteorder("<"))
    return f"array {little.dtype.str} {value.shape} {digest(little.tobytes())}"
