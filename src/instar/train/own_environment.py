"""Does a bundle's model run beside us, or in an environment of its own? Decided and made ready when a version is to answer calls.

    name = name_of(store, manifest)         # "" where the running environment has all that the lock names
    prepare(store, manifest, tell=print)    # built when it is missing; why not is kept, and raised

Whoever answers calls finds it by its name (`environment_places`).
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from instar.core import ids
from instar.core.errors import InstarError
from instar.core.store import Store
from instar.train import bundle, environment, environments, folder_lock, locks
from instar.train import environment_places as places
from instar.train.bundle import Manifest
from instar.train.environment import Environment
from instar.train.locks import Lock

READY, BUILDING, FAILED, MISSING = "ready", "building", "failed", "missing"

_NAMED = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*")
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*==\s*([^\s;\\]+)")


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """How it stands with a bundle's own environment.

    Attributes:
        environment: Its name.
        state: `"ready"`, `"building"`, `"failed"` or `"missing"`.
        seconds: How long it took to build, once it is ready.
        reason: Why it could not be built, in the builder's words.
    """

    environment: str
    state: str
    seconds: float | None = None
    reason: str = ""


def name_of(store: Store, manifest: Manifest) -> str:
    """The name of a bundle's own environment; empty where it has no lock, or all of that lock is installed here.

    A portable form is read by us and needs none; a folder that somebody logged has one once it was settled on (`settle`).

    Raises:
        Damaged: The description of its environment cannot be read.
        NotFound: A part of it is not in the store.
    """
    wanted = _wanted(store, manifest)
    if wanted is None:
        return ""
    described, lock = wanted
    if _is_here(described, store.blobs.get(lock.requirements).decode("utf-8", "replace")):
        return ""
    return environments.key(described, lock)


def settle(store: Store, manifest: Manifest) -> None:
    """Have a folder that somebody logged answer from the lock of what it requires, which is worked out if it was not.

    Raises:
        BadInput: What it requires cannot be a lock.
        Blocked: Its Python, or what it requires, is not to be had here.
        Unavailable: There is no `uv`.
    """
    if manifest.folder is None:
        return
    try:
        folder_lock.make(store, manifest)
    except InstarError as problem:
        places.note(store.folder, _folder_name(manifest), str(problem))
        raise
    places.note(store.folder, _folder_name(manifest), "")


def unsettle(store: Store, manifest: Manifest, reason: str) -> None:
    """Have a folder that somebody logged answer from what is installed beside Instar, and keep why."""
    folder_lock.forget(store, manifest)
    places.note(store.folder, _folder_name(manifest), reason)


def is_here(store: Store, manifest: Manifest) -> bool:
    """Is all that a logged folder requires installed beside Instar, as far as its own lines say?"""
    try:
        return folder_lock.is_here(folder_lock.requires(store, manifest))
    except InstarError:  # what it asks for is no list of distributions, which whoever makes a lock of it says
        return False


def prepare(store: Store, manifest: Manifest, *, tell: Callable[[str], None] = lambda text: None) -> str:
    """Have a bundle's own environment ready; returns its name, or nothing where it needs none.

    Raises:
        Blocked: Its Python, or what it is made of, is not to be had here, in the builder's words.
    """
    name = name_of(store, manifest)
    if not name or environments.ready(store, name) is not None:
        return name
    try:
        wanted = _wanted(store, manifest)
        assert wanted is not None
        with environments.hold(store, *wanted, tell=tell):
            places.note(store.folder, name, "")
    except InstarError as problem:
        places.note(store.folder, name, str(problem))
        raise
    return name


def state_of(store: Store, manifest: Manifest) -> State | None:
    """How it stands with a bundle's own environment; None where it has none, and none was to be made."""
    name = name_of(store, manifest)
    if not name:
        reason = places.why_not(store.folder, _folder_name(manifest)) if manifest.folder is not None else ""
        return State("", FAILED, reason=reason) if reason else None
    built = environments.ready(store, name)
    if built is not None:
        return State(name, READY, built.seconds)
    if environments.is_building(store, name):
        return State(name, BUILDING)
    reason = places.why_not(store.folder, name)
    return State(name, FAILED, reason=reason) if reason else State(name, MISSING)


def _wanted(store: Store, manifest: Manifest) -> tuple[Environment, Lock] | None:
    """What a bundle's own environment is made of; None where it asks for none."""
    if manifest.portable is not None or manifest.command is not None:
        return None
    lock = folder_lock.kept(store, manifest) if manifest.folder is not None else _lock(store, manifest)
    return None if lock is None else (folder_lock.described(store, manifest), lock)


def _folder_name(manifest: Manifest) -> str:
    """By which it is kept why a folder has no lock."""
    return ids.digest(bundle.encode(manifest))


def _lock(store: Store, manifest: Manifest) -> Lock | None:
    """The lock that the bundle names: exactly that text, whatever would be made of the description today."""
    if manifest.lock is None:
        return None
    text = store.blobs.get(manifest.lock).decode("utf-8", "replace").replace("\\\n", " ")
    pins = [(pin[1], line) for line in text.splitlines() if (pin := _PIN.match(line.strip()))]
    return Lock(manifest.lock, tuple(name for name, line in pins if "--hash=" not in line))


def _is_here(described: Environment, lock: str) -> bool:
    """Has the running environment that Python, and each distribution of the lock in its version? More does no harm."""
    here = environment.capture()
    same = ("implementation", "system", "machine")
    if any(getattr(described, one) != getattr(here, one) for one in same):
        return False
    if described.python.split(".")[:2] != here.python.split(".")[:2]:
        return False
    for line in lock.replace("\\\n", " ").splitlines():
        named = _NAMED.match(line.strip())
        if named is None:  # a remark, or an option of the installer
            continue
        name, pin = environment.normal(named[0]), _PIN.match(line.strip())
        wanted = pin[2] if pin else described.distributions.get(name)  # without a version it comes from an address
        if name != locks.OWN and (wanted is None or here.distributions.get(name) != wanted):
            return False
    return True
