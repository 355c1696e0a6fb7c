"""Does a bundle's model run beside us, or in an environment of its own? Decided and made ready when a version is to answer calls.

    name = name_of(store, manifest)         # "" where the running environment has all that the lock names
    prepare(store, manifest, tell=print)    # built when it is missing; why not is kept, and raised

Whoever answers calls finds it by its name (`environment_places`).
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from instar.core.errors import Damaged, InstarError
from instar.core.store import Store
from instar.train import environment, environments, locks
from instar.train import environment_places as places
from instar.train.bundle import Manifest
from instar.train.environment import Environment
from instar.train.locks import Lock

FLAVORS = ("sklearn", "python_function")  # of a logged model that are loaded by the libraries which wrote them

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

    What we read ourselves, a portable form or the trees and graphs of a logged model, needs none.

    Raises:
        Damaged: The description of its environment cannot be read.
        NotFound: A part of it is not in the store.
    """
    if manifest.lock is None or manifest.portable is not None:
        return ""
    if manifest.folder is not None and manifest.folder.served_as not in FLAVORS:
        return ""
    described = _described(store, manifest)
    if _is_here(described, store.blobs.get(manifest.lock).decode("utf-8", "replace")):
        return ""
    return environments.key(described, _lock(store, manifest))


def prepare(store: Store, manifest: Manifest, *, tell: Callable[[str], None] = lambda text: None) -> str:
    """Have a bundle's own environment ready; returns its name, or nothing where it needs none.

    Raises:
        Blocked: Its Python, or what it is made of, is not to be had here, in the builder's words.
    """
    name = name_of(store, manifest)
    if not name or environments.ready(store, name) is not None:
        return name
    try:
        with environments.hold(store, _described(store, manifest), _lock(store, manifest), tell=tell):
            places.note(store.folder, name, "")
    except InstarError as problem:
        places.note(store.folder, name, str(problem))
        raise
    return name


def state_of(store: Store, manifest: Manifest) -> State | None:
    """How it stands with a bundle's own environment; None where it has none."""
    name = name_of(store, manifest)
    if not name:
        return None
    built = environments.ready(store, name)
    if built is not None:
        return State(name, READY, built.seconds)
    if environments.is_building(store, name):
        return State(name, BUILDING)
    reason = places.why_not(store.folder, name)
    return State(name, FAILED, reason=reason) if reason else State(name, MISSING)


def _described(store: Store, manifest: Manifest) -> Environment:
    try:
        return environment.load(store.blobs, manifest.environment)
    except msgspec.MsgspecError as problem:
        raise Damaged(
            "the description of its environment cannot be read", subject=f"bundle of {manifest.model}",
            found=str(problem),
        ) from problem  # fmt: skip


def _lock(store: Store, manifest: Manifest) -> Lock:
    """The lock that the bundle names: exactly that text, whatever would be made of the description today."""
    assert manifest.lock is not None
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
