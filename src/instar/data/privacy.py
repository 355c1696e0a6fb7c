"""Privacy classes of columns, and masking: personal values are kept in records only as a salted hash.

`serve` masks the inputs of a call before they are logged. A mask is equal for equal values under one salt, so rows can
still be joined and counted; without the salt it tells nothing, and erasing the salt erases the person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blake3 import blake3

from instar.core.errors import BadInput

PUBLIC, INTERNAL, PERSONAL = CLASSES = ("public", "internal", "personal")
DEFAULT = INTERNAL
MASK_PREFIX = "masked:"
MASK_BYTES = 16  # 128 bits: no two values of one column meet by chance


def privacy_class(classes: Mapping[str, str], column: str) -> str:
    """The class of a column; internal unless the contract says otherwise.

    Raises:
        BadInput: The contract names a class that there is not.
    """
    found = classes.get(column, DEFAULT)
    if found not in CLASSES:
        raise BadInput("no such privacy class", subject=f"column {column}", found=found, asked=", ".join(CLASSES))
    return found


def mask(value: Any, salt: bytes) -> str | None:
    """`masked:` and the salted hash of a value; None stays None."""
    if value is None:
        return None
    hasher = blake3(salt, derive_key_context="instar 2026 privacy mask v1")
    # The type is part of what is hashed: 1 and "1" are two values.
    hasher.update(f"\x00{type(value).__name__}\x00{value}".encode())
    return MASK_PREFIX + hasher.hexdigest(length=MASK_BYTES)


def mask_row(row: Mapping[str, Any], classes: Mapping[str, str], salt: bytes) -> dict[str, Any]:
    """A row with its personal values masked."""
    return {name: mask(value, salt) if classes.get(name) == PERSONAL else value for name, value in row.items()}


def mask_columns(columns: Mapping[str, Sequence[Any]], classes: Mapping[str, str], salt: bytes) -> dict[str, Any]:
    """Columns with the values of personal ones masked."""
    return {
        name: [mask(value, salt) for value in values] if classes.get(name) == PERSONAL else values
        for name, values in columns.items()
    }
