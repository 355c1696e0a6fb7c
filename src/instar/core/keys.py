"""Keys that only the server has: made at first use, in files of mode 0600 below `secrets/` of the store, while it signs.

key = signing_key(store.folder, "routes")
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

KEY_BYTES = 32


def signing_key(store_folder: Path, name: str) -> bytes:
    """The store's key of a name; made when there is none."""
    place = store_folder / "secrets" / name
    try:
        return place.read_bytes()
    except FileNotFoundError:
        return keep_secret(place, secrets.token_bytes(KEY_BYTES))


def keep_secret(place: Path, content: bytes) -> bytes:
    """Keep a secret in a new file of mode 0600; returns what is in it, which is another's content when that was first."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.parent.chmod(0o700)
    aside = place.with_name(secrets.token_hex(8))
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(aside, place)  # of two that make one at once, the first one's holds
    except FileExistsError:
        pass
    finally:
        aside.unlink()
    return place.read_bytes()
