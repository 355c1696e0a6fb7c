"""How a program of ours says who calls, when it asks a server: a token that it was given, or the owner's own on this machine.

    headers = authorization("http://ml.example:5000")     # {"authorization": "Bearer instar_…"}, or {}

`INSTAR_TOKEN` or the file that `INSTAR_TOKEN_FILE` names comes first. Without either, the token of the store's owner is
read, and only sent to the server that runs on that very store.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from instar.core import credentials
from instar.core.settings import read_settings


def authorization(url: str, store_folder: Path | None = None) -> dict[str, str]:
    """The header by which a server at `url` knows who calls; none where nothing is known here.

    Args:
        store_folder: The store whose owner this program may speak for; default that of the project here.

    Raises:
        BadInput: The file of the token cannot be read, or others can read it.
    """
    secret = secret_for(url, store_folder)
    return {"authorization": f"Bearer {secret}"} if secret else {}


def secret_for(url: str, store_folder: Path | None = None) -> str | None:
    """The token by which a server at `url` knows who calls; None where nothing is known here. Arguments as above."""
    return credentials.of_environment() or _of_owner(url, store_folder)


def store_of(start: Path | None = None) -> Path:
    """The store of the project in which `start` (default: this folder) lies, or of that folder itself."""
    from instar.plan.project import find_root_if_any

    start = start or Path.cwd()
    return read_settings().store_folder(find_root_if_any(start) or start)


def _of_owner(url: str, store_folder: Path | None) -> str | None:
    folder = store_folder or store_of()
    place = credentials.local_token(folder)
    if not place.exists():
        return None
    from instar.serve.root.process import running

    server, asked = running(folder), urlsplit(url)
    if (
        server is None
        or asked.port != server.port
        or asked.hostname not in {server.host, "127.0.0.1", "localhost", "::1"}
    ):
        return None
    return credentials.of_file(place)
