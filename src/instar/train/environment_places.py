"""Where environments lie that were built for runs and models, and whether one is ready: read by who answers, without a store."""

from __future__ import annotations

from pathlib import Path

import msgspec

from instar.core import durable
from instar.core.errors import Unavailable

STAMP = "environment.json"  # written last: what has none is half built
FOLDER = "environments"


class _Failed(msgspec.Struct):
    reason: str


def place(store_folder: Path, name: str) -> Path:
    """The folder of an environment by its name."""
    return store_folder / FOLDER / name.removeprefix("b3:")


def python(store_folder: Path, name: str) -> Path:
    """Where its interpreter lies, once it is ready."""
    return place(store_folder, name) / "venv" / "bin" / "python"


def interpreter(store_folder: Path, name: str) -> str:
    """The interpreter of an environment that is ready.

    Raises:
        Unavailable: It is not, and why.
    """
    if (place(store_folder, name) / STAMP).exists():
        return str(python(store_folder, name))
    raise Unavailable(
        "the environment of the version is not built", subject=f"environment {name[:11]}",
        found=why_not(store_folder, name) or None,
        next_step="Build it with `instar models build VERSION`, which says what is missing; then ask again.",
    )  # fmt: skip


def why_not(store_folder: Path, name: str) -> str:
    """Why it could not be built when that was last tried; empty when it was not, or could."""
    try:
        return msgspec.json.decode(_note(store_folder, name).read_bytes(), type=_Failed).reason
    except (OSError, msgspec.MsgspecError):
        return ""


def note(store_folder: Path, name: str, reason: str) -> None:
    """Keep why it could not be built; an empty reason forgets it."""
    if reason:
        durable.replace_file(_note(store_folder, name), msgspec.json.encode(_Failed(reason)), durable=False)
    else:
        _note(store_folder, name).unlink(missing_ok=True)


def _note(store_folder: Path, name: str) -> Path:
    return store_folder / FOLDER / "failed" / f"{name.removeprefix('b3:')}.json"
