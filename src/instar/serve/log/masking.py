"""Masking of personal values before they reach a record: a keyed hash instead of a text, nothing instead of a number.

The key is a file of the store with mode 0600. The same text gives the same mask within a store, so that masked records
can still be counted and joined; without the key a mask cannot be guessed from a list of names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from blake3 import blake3

PREFIX = "masked:"
KEY_FILE = "mask.key"
Mask = Callable[[str, Sequence[Any]], list[Any]]  # (column, values) to what is kept of them


def mask_nothing_through(column: str, values: Sequence[Any]) -> list[Any]:
    """The mask where no key is given: personal values are not kept at all."""
    return [None] * len(values)


def keyed_mask(key: bytes) -> Mask:
    """A mask under a key of 32 bytes."""

    def mask(column: str, values: Sequence[Any]) -> list[Any]:
        # The column is part of the hash: equal texts of two columns do not show that they are equal.
        return [
            PREFIX + blake3(f"{column}\0{value}".encode(), key=key).hexdigest(16) if isinstance(value, str) else None
            for value in values
        ]

    return mask


def mask_key_file(serve_folder: Path) -> Path:
    """The store's mask key; made at first use."""
    path = serve_folder / KEY_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path
    with os.fdopen(handle, "wb") as file:
        file.write(os.urandom(32))
        file.flush()
        os.fsync(file.fileno())
    return path
