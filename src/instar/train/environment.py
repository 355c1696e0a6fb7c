"""The environment in which a model is made, written down before its first line of code runs, so that it can be built again.

It names the interpreter, every installed distribution with its version, and the project's lock with its hashes where
there is one. Two runs in equal environments have equal digests.
"""

from __future__ import annotations

import functools
import json
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from instar.core import ids
from instar.core.blobs import Blobs

FOLDER = "folder"  # the source of a distribution that was installed from a folder

# The first that is found from the project's folder upwards is the lock; uv's own comes first.
LOCK_FILES = ("uv.lock", "requirements.lock", "requirements.txt", "poetry.lock", "pdm.lock", "pylock.toml")


class Environment(msgspec.Struct, frozen=True):
    """An environment.

    Attributes:
        python: Version of the interpreter, e.g. `"3.11.9"`.
        implementation: e.g. `"cpython"`.
        system, machine: e.g. `"linux"`, `"x86_64"`.
        distributions: Version by normalised name.
        sources: Where distributions come from that come from no index: `"folder"`, or an address, with its hash or commit.
        lock: Digest of the lock's text, which is kept as a blob; None without a lock.
        lock_file: Its name.
        hashed: Does the lock hold a hash for each file? Only then is it certain that the same bytes are installed.
    """

    python: str
    implementation: str
    system: str
    machine: str
    distributions: dict[str, str]
    sources: dict[str, str] = {}
    lock: str | None = None
    lock_file: str | None = None
    hashed: bool = False


def capture(root: Path | None = None) -> Environment:
    """Describe the running environment, and the lock of the project at `root`."""
    file = find_lock(root) if root is not None else None
    text = file.read_bytes() if file else b""
    return Environment(
        python=platform.python_version(),
        implementation=sys.implementation.name,
        system=sys.platform,
        machine=platform.machine(),
        distributions={name: version for name, version, _ in _distributions()},
        sources={name: source for name, _, source in _distributions() if source},
        lock=ids.digest(text) if file else None,
        lock_file=file.name if file else None,
        hashed=b"sha256:" in text,
    )


def save(blobs: Blobs, environment: Environment, root: Path | None = None) -> str:
    """Keep the description and its lock; returns the description's digest, which is the environment's name."""
    file = find_lock(root) if root is not None else None
    if file is not None:
        blobs.put_file(file)
    return blobs.put(ids.canonical_json(msgspec.to_builtins(environment)))


def load(blobs: Blobs, digest: str) -> Environment:
    """The description under a digest."""
    return msgspec.json.decode(blobs.get(digest), type=Environment)


def differences(left: Environment, right: Environment) -> dict[str, tuple[Any, Any]]:
    """What differs, by name: distributions under their own names, the rest under the name of the field."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in ("python", "implementation", "system", "machine"):
        if getattr(left, name) != getattr(right, name):
            found[name] = (getattr(left, name), getattr(right, name))
    for name in sorted({*left.distributions, *right.distributions}):
        pair = (left.distributions.get(name), right.distributions.get(name))
        if pair[0] != pair[1]:
            found[name] = pair
    return found


def find_lock(root: Path) -> Path | None:
    """The lock of the project at `root`: beside it, or further up within the same checkout."""
    for folder in (root, *root.absolute().parents):
        for name in LOCK_FILES:
            if (folder / name).is_file():
                return folder / name
        if (folder / ".git").exists():
            return None
    return None


def normal(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def _distributions() -> tuple[tuple[str, str, str], ...]:
    found: dict[str, tuple[str, str]] = {}
    for distribution in metadata.distributions():
        name, version = _named(distribution)
        if name and normal(name) not in found:  # the first one is imported
            found[normal(name)] = (version, _source(distribution))
    return tuple((name, *found[name]) for name in sorted(found))


def _named(distribution: metadata.Distribution) -> tuple[str, str]:
    """Name and version from the head of the metadata: parsing all of them whole costs a run's start half a second."""
    said: dict[str, str] = {}
    for line in (distribution.read_text("METADATA") or "").splitlines():
        key, _, value = line.partition(":")
        if key in ("Name", "Version"):
            said.setdefault(key, value.strip())
        if len(said) == 2 or not line:
            break
    if len(said) == 2:
        return said["Name"], said["Version"]
    return distribution.metadata["Name"] or "", distribution.version  # an older form, or none


def _source(distribution: metadata.Distribution) -> str:
    """What `direct_url.json` says of a distribution that was not taken from an index (PEP 610); else nothing."""
    text = distribution.read_text("direct_url.json")
    if not text:
        return ""
    try:
        said = json.loads(text)
        address = str(said["url"])
    except (ValueError, KeyError, TypeError):
        return FOLDER
    if "dir_info" in said:
        return FOLDER
    if "vcs_info" in said:
        return f"{said['vcs_info']['vcs']}+{address}@{said['vcs_info'].get('commit_id', '')}"
    archive = said.get("archive_info", {})
    known = archive.get("hashes", {}).get("sha256") or str(archive.get("hash", "")).removeprefix("sha256=")
    return f"{address}#sha256:{known}" if known else address
