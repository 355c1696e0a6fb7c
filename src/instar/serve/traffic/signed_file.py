"""A signed file of the store, which its readers can trust: written by the control side when routes or callers change.

The key is in a file of mode 0600, so who can write the folder and cannot read the key makes no routes and no callers.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import msgspec

from instar.core.durable import replace_file
from instar.core.errors import Damaged
from instar.core.keys import signing_key


class _File(msgspec.Struct):
    signature: str
    content: msgspec.Raw


def write_signed(store_folder: Path, path: Path, key: str, body: bytes) -> None:
    """Replace a file by JSON that is signed with the store's key of a name."""
    signature = _signature(store_folder, key, body)
    replace_file(path, msgspec.json.encode({"signature": signature, "content": msgspec.Raw(body)}), mode=0o600)


def read_signed(store_folder: Path, path: Path, key: str) -> bytes | None:
    """The signed JSON in a file; None when there is no file.

    Raises:
        Damaged: It is not of the form, or was not signed with that key.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        parsed = msgspec.json.decode(data, type=_File)
    except msgspec.DecodeError as problem:
        raise _damaged(path, str(problem)) from None
    body = bytes(parsed.content)
    if not hmac.compare_digest(_signature(store_folder, key, body).encode(), parsed.signature.encode()):
        raise _damaged(path, "its signature does not fit")
    return body


def _damaged(path: Path, reason: str) -> Damaged:
    return Damaged(
        f"it is not what the server wrote: {reason}",
        subject=str(path),
        next_step="What was read before still holds. Restart the server, or `instar apply`: both write it again.",
    )


def _signature(store_folder: Path, key: str, body: bytes) -> str:
    return hmac.new(signing_key(store_folder, key), body, hashlib.sha256).hexdigest()
