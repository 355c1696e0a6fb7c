"""Under which conditions a run was made, besides its code and its environment: kept as one blob before its first user line runs.

Trials of one search have equal conditions and share the blob. With code, environment, inputs and parameters it is all that
`instar reproduce` needs to make the run again, and to name what differs when it does not come out the same.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from instar.core import ids, processes
from instar.core.blobs import Blobs
from instar.train import hardware, seeds, threads
from instar.train.hardware import Hardware
from instar.train.seeds import Seeds
from instar.train.threads import Threads

COMMAND, NOTEBOOK, NOTEBOOK_STEP, UNKNOWN = "command", "notebook", "notebook step", "unknown"


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """The conditions of a run.

    Attributes:
        way: How it is made again: `"trial"` or `"refit"` of a step, `"notebook step"`, `"command"`, `"notebook"` in which
            `instar.run` was called, or `"unknown"`.
        contract: Revision of the contract in effect.
        inputs: Table version that each of the step's inputs was read from, by the input's name.
        rows: Content digest of the rows that the function was given; empty where none were.
        variables: Digest of each declared environment variable. Values are not kept: they may be secrets.
        values: Values of those that the contract declares public.
        files: Content digest of each declared file, by its path in the project.
        command: The program's arguments, with its script below the project's folder, or `"-m"` and a module; the
            notebook's file; empty for steps.
        folder: Where the command was called, below the project's folder.
        paths: Folders of the project on Python's import path, below the project's folder.
        instar: Content digest of the Instar that ran.
        host: The machine since its last start: only there can it be known whether the process still lives.
    """

    way: str
    hardware: Hardware
    threads: Threads
    seeds: Seeds
    contract: str | None = None
    inputs: dict[str, str] = {}
    rows: str = ""
    variables: dict[str, str] = {}
    values: dict[str, str] = {}
    files: dict[str, str] = {}
    command: tuple[str, ...] = ()
    folder: str = ""
    paths: tuple[str, ...] = ()
    instar: str = ""
    host: str = ""


def capture(
    *,
    way: str = "unknown",
    seed: int | None = None,
    contract: str | None = None,
    inputs: Mapping[str, str] | None = None,
    rows: str = "",
    variables: Iterable[str] = (),
    public: Iterable[str] = (),
    files: Mapping[str, str] | None = None,
    command: Sequence[str] = (),
    folder: str = "",
    root: Path | None = None,
) -> Conditions:
    """The conditions of this process now.

    Args:
        seed: The seed that is about to be planted; None when nobody plants one.
        variables: Names of the environment variables that were declared.
        public: Names of those whose values may be kept.
        root: The project's folder.
    """
    names = sorted(variables)
    return Conditions(
        way=way,
        hardware=hardware.capture(),
        threads=threads.capture(),
        seeds=seeds.capture(seed),
        contract=contract,
        inputs=dict(inputs or {}),
        rows=rows,
        variables={name: variable_digest(name) for name in names},
        values={name: os.environ[name] for name in names if name in os.environ and name in set(public)},
        files=dict(files or {}),
        command=tuple(command),
        folder=folder,
        paths=_paths(root.resolve()) if root is not None else (),
        instar=own_digest(),
        host=processes.host(),
    )


def variable_digest(name: str) -> str:
    """Digest of an environment variable's value, as in step keys."""
    return ids.digest(os.environ.get(name, "").encode())


def save(blobs: Blobs, conditions: Conditions) -> str:
    """Keep them; returns their digest."""
    return blobs.put(ids.canonical_json(msgspec.to_builtins(conditions)))


def load(blobs: Blobs, digest: str) -> Conditions:
    """The conditions under a digest."""
    return msgspec.json.decode(blobs.get(digest), type=Conditions)


def document(conditions: Conditions) -> dict[str, Any]:
    """As JSON values."""
    found: dict[str, Any] = msgspec.to_builtins(conditions)
    return found


@functools.cache
def own_digest() -> str:
    """Digest of the running Instar's own files: a development install changes without its version."""
    return ids.digest_of({name: ids.digest(file.read_bytes()) for name, file in own_files()})


def own_files() -> list[tuple[str, Path]]:
    """The files of the running package, by their names below it, without what Python caches."""
    package = Path(__file__).parents[1]
    found = [file for file in package.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    return sorted((file.relative_to(package).as_posix(), file) for file in found)


def _paths(root: Path) -> tuple[str, ...]:
    found = []
    for entry in sys.path:
        place = Path(entry or ".").resolve()
        if place.is_dir() and place.is_relative_to(root) and not _installed(place):
            found.append(place.relative_to(root).as_posix())
    return tuple(dict.fromkeys(found))


def _installed(place: Path) -> bool:
    return bool({"site-packages", "dist-packages"} & set(place.parts)) or place.is_relative_to(sys.prefix)
