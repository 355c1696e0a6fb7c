"""Where environments lie that were built for runs and models, and whether one is ready: read by who answers, without a store."""

from __future__ import annotations

from pathlib import Path

import msgspec

from instar.core import durable
from instar.core.errors import Unavailable

STAMP = "environment.json"  # written last: what has none is half built
FOLDER = "environments"


class NotBuilt(Unavailable):
    """An environment is not ready: it may be in a moment."""


class _Note(msgspec.Struct, omit_defaults=True):
    reason: str = ""
    building: bool = False


def place(store_folder: Path, name: str) -> Path:
    """The folder of an environment by its name."""
    return store_folder / FOLDER / name.removeprefix("b3:")


def python(store_folder: Path, name: str) -> Path:
    """Where its interpreter lies, once it is ready."""
    return place(store_folder, name) / "venv" / "bin" / "python"


def interpreter(store_folder: Path, name: str) -> str:
    """The interpreter of an environment that is ready.

    Raises:
        NotBuilt: It is not, and why.
    """
    if is_built(store_folder, name):
        return str(python(store_folder, name))
    if _read(store_folder, name).building:
        raise NotBuilt(
            "the environment of the version is being built", subject=f"environment {name[:11]}",
            next_step="Ask again in a while: it answers as soon as that is ready.",
        )  # fmt: skip
    raise NotBuilt(
        "the environment of the version is not built", subject=f"environment {name[:11]}",
        found=why_not(store_folder, name) or None,
        next_step="Build it with `instar models build VERSION`, which says what is missing; then ask again.",
    )  # fmt: skip


def is_built(store_folder: Path, name: str) -> bool:
    """Is it ready?"""
    return (place(store_folder, name) / STAMP).exists()


def why_not(store_folder: Path, name: str) -> str:
    """Why it could not be built when that was last tried; empty when it was not, or could, or is being tried again."""
    return _read(store_folder, name).reason


def note(store_folder: Path, name: str, reason: str) -> None:
    """Keep why it could not be built; an empty reason forgets it."""
    if reason:
        _write(store_folder, name, _Note(reason))
    else:
        _note(store_folder, name).unlink(missing_ok=True)


def note_building(store_folder: Path, name: str) -> None:
    """Keep that it is being built, or is to be at once; what it could not be built for before is forgotten."""
    _write(store_folder, name, _Note(building=True))


def _read(store_folder: Path, name: str) -> _Note:
    try:
        return msgspec.json.decode(_note(store_folder, name).read_bytes(), type=_Note)
    except (OSError, msgspec.MsgspecError):
        return _Note()


def _write(store_folder: Path, name: str, said: _Note) -> None:
    durable.replace_file(_note(store_folder, name), msgspec.json.encode(said), durable=False)


def _note(store_folder: Path, name: str) -> Path:
    return store_folder / FOLDER / "failed" / f"{name.removeprefix('b3:')}.json"
