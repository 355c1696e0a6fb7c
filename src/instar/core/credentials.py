"""The secret of a token: how it is made, written, checked for typing errors and hashed, when a caller proves who it is.

    secret = new_secret()            # "instar_" and 49 letters: shown once, kept nowhere
    digest = hash_of(secret)         # what is kept

32 random bytes need no slow hash: there is nothing to guess. Secrets are found by their hash, and hashes are compared in
constant time, so the time of an answer says nothing about either.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import stat
import zlib
from collections.abc import Mapping
from pathlib import Path

from instar.core.errors import BadInput

PREFIX = "instar_"  # by which scanners for leaked secrets know it
SECRET_BYTES = 32
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_LETTERS, _SUM_LETTERS = 43, 6  # that hold 256 bits and a CRC-32
_FORM = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_SECRET_LETTERS + _SUM_LETTERS}}}")
LOCAL_TOKEN = "local-token"


def new_secret() -> str:
    """A new secret, with a sum by which a typing error is told from an unknown one."""
    body = PREFIX + _written(int.from_bytes(os.urandom(SECRET_BYTES)), _SECRET_LETTERS)
    return body + _sum(body)


def is_secret(text: str) -> bool:
    """Whether a text has the form of a secret, its sum included."""
    return _FORM.fullmatch(text) is not None and hmac.compare_digest(text[-_SUM_LETTERS:], _sum(text[:-_SUM_LETTERS]))


def hash_of(secret: str) -> str:
    """What is kept of a secret: its SHA-256, in hexadecimal letters."""
    return hashlib.sha256(secret.encode()).hexdigest()


def same(one: str, other: str) -> bool:
    """Whether two hashes are equal, in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())


def masked(text: str) -> str:
    """A text in which no secret can be read any more."""
    return _FORM.sub(PREFIX + "…", text)


def of_header(value: bytes) -> str | None:
    """The secret in an `Authorization` header: of a bearer, or the password of a basic one; None where there is none."""
    scheme, _, rest = value.strip().partition(b" ")
    rest = rest.strip()
    if scheme.lower() == b"bearer":
        return rest.decode("latin-1")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, password = base64.b64decode(rest, validate=True).partition(b":")
    except binascii.Error:
        return None
    # With a token alone, some clients send it as the user's name.
    return ((password or user) if colon else user).decode("latin-1")


def of_environment(environment: Mapping[str, str] | None = None) -> str | None:
    """The secret that this process was given: `INSTAR_TOKEN`, or the content of the file that `INSTAR_TOKEN_FILE` names.

    Raises:
        BadInput: The file cannot be read, or others can read it.
    """
    values = os.environ if environment is None else environment
    if values.get("INSTAR_TOKEN"):
        return _header_safe(values["INSTAR_TOKEN"].strip(), "INSTAR_TOKEN")
    place = values.get("INSTAR_TOKEN_FILE")
    return of_file(Path(place).expanduser()) if place else None


def of_file(path: Path) -> str:
    """The secret in a file that only its owner may read.

    Raises:
        BadInput: It cannot be read, or others can read it.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput(f"the file of the token cannot be read: {problem}", subject=str(path)) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadInput(
            "others may read the file of the token", subject=str(path), found=oct(stat.S_IMODE(mode)), asked="0o600",
            next_step=f"Run chmod 600 {path}; if others read it already, revoke the token and make another.",
        )  # fmt: skip
    return _header_safe(text, str(path))


def local_token(store_folder: Path) -> Path:
    """Where the secret of the store's owner lies while a server asks even the owner who calls; only the owner may read it."""
    return store_folder / "secrets" / LOCAL_TOKEN


def _header_safe(text: str, subject: str) -> str:
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise BadInput("that is no token", subject=subject, asked=f"{PREFIX}… in one line")
    return text


def _sum(body: str) -> str:
    return _written(zlib.crc32(body.encode()), _SUM_LETTERS)


def _written(number: int, width: int) -> str:
    letters = []
    for _ in range(width):
        number, rest = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[rest])
    return "".join(reversed(letters))
