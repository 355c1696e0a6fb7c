"""Who may call, as gateways know it: hashes of tokens with roles, endpoints and limits, in a signed file of the store.

Beside the routes and not among them, so that a version which does not load never holds up a revocation, and revoking does not
write all routes anew. Written by the control side (`granting.py`), taken up by every process that answers (`keyring.py`);
imports no database. The file is `serve/callers.json`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from instar.serve.traffic.routes import serve_folder
from instar.serve.traffic.signed_file import read_signed, write_signed

KEY = "callers"
LOCAL = "local"  # the id of the owner's own token, which is a file and no record


class Grant(msgspec.Struct, frozen=True):
    """One live token.

    Attributes:
        hash: Of its secret.
        roles: By project; `*` stands for all.
        endpoints: The only ones that it may ask; None where its roles alone decide.
        until: Wall time, microseconds since 1970; 0 for no end.
        rate: Calls a second that all processes let through together; 0 for no limit.
    """

    id: str
    name: str
    kind: str
    hash: str
    roles: dict[str, tuple[str, ...]]
    endpoints: tuple[str, ...] | None = None
    until: int = 0
    rate: float = 0.0


class Callers(msgspec.Struct, frozen=True):
    """All that may call at one moment.

    Attributes:
        number: Counts up with each change.
        made_at: When the control side last said that this holds; wall time, microseconds since 1970.
    """

    number: int
    made_at: int
    grants: tuple[Grant, ...] = ()


NONE_YET = Callers(0, 0)


def callers_file(store_folder: Path) -> Path:
    return serve_folder(store_folder) / "callers.json"


def write_callers(store_folder: Path, callers: Callers) -> None:
    """Replace the file, whole."""
    write_signed(store_folder, callers_file(store_folder), KEY, msgspec.json.encode(callers))


def read_callers(store_folder: Path) -> Callers:
    """What the file says; `NONE_YET` when there is none.

    Raises:
        Damaged: It is not what the control side of this store wrote.
    """
    body = read_signed(store_folder, callers_file(store_folder), KEY)
    return NONE_YET if body is None else msgspec.json.decode(body, type=Callers)
