"""Environments that stand ready: built from a lock, kept under its digest, shared by all bundles and runs that name it.

    with use(store, description) as found:             # built when it is missing, and not collected while it is used
        subprocess.run([found.python, "-m", "instar…"], env={"PYTHONPATH": os.pathsep.join(found.paths)})

`uv` links files from its cache, so that a second environment costs little time and hardly any space; without `uv` the
standard library's `venv` and pip do it. One is ready when its stamp is there, which is written last; what was left half
built is never used. An environment that equals the running one is the running one.

Instar itself is in no lock: a run is made again by the Instar that does it, of which a copy by its content lies beside.
So neither an edit of a development install nor anything installed beside it reaches into the environment.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from instar.core import ids
from instar.core.errors import Blocked
from instar.core.store import Store
from instar.train import conditions, environment, locks, tools
from instar.train import environment_places as places
from instar.train.building import install
from instar.train.environment import Environment
from instar.train.environment_places import STAMP
from instar.train.locks import Lock


class Built(msgspec.Struct, frozen=True):
    """An environment that is ready.

    Attributes:
        digest: Of its lock and its Python: its name.
        python: Version of its interpreter.
        requirements: Digest of the lock's text.
        by: `"uv"` or `"pip"`.
        seconds: How long building took.
        created: When it was ready.
    """

    digest: str
    python: str
    requirements: str
    by: str
    seconds: float
    created: datetime


@dataclass(frozen=True)
class Interpreter:
    """What runs code in an environment.

    Attributes:
        python: Path of the interpreter.
        paths: Folders for Python's import path.
        digest: The environment's name; None for the running one.
        notes: In what it is not as it was asked for.
    """

    python: str
    paths: tuple[str, ...] = ()
    digest: str | None = None
    notes: tuple[str, ...] = ()


def key(described: Environment, lock: Lock) -> str:
    """The name of an environment: equal locks for equal Pythons share one."""
    minor = ".".join(described.python.split(".")[:2])
    return ids.digest_of([described.implementation, minor, described.system, described.machine, lock.requirements])


def running(root: Path | None = None) -> Interpreter:
    """The environment of this process."""
    return Interpreter(sys.executable)


@contextmanager
def use(store: Store, description: str, *, tell: Callable[[str], None] = lambda text: None) -> Iterator[Interpreter]:
    """The environment whose description has that digest, for the time of a `with` block.

    Raises:
        NotFound: The description is not in the store.
        Blocked: Its Python, or what it is made of, is not to be had here.
    """
    described = environment.load(store.blobs, description)
    if not environment.differences(described, environment.capture()):
        yield running()
        return
    lock = locks.lock_of(store, description)
    with hold(store, described, lock, tell=tell) as name, _held(store, conditions.own_digest()):
        python = str(places.python(store.folder, name))
        yield Interpreter(python, (str(own_copy(store)),), name, _notes(lock))


@contextmanager
def hold(
    store: Store, described: Environment, lock: Lock, *, tell: Callable[[str], None] = lambda text: None
) -> Iterator[str]:
    """Have the environment of a lock, built when it is missing, and keep it from the collector for the time of a `with` block.

    Processes that need one environment at one time build it once. Gives its name.

    Raises:
        Blocked: Its Python, or what it is made of, is not to be had here.
    """
    name = key(described, lock)
    with _held(store, name) as lease:
        if ready(store, name) is None:
            fcntl.flock(lease, fcntl.LOCK_EX)
            if ready(store, name) is None:  # another process was first
                tell(
                    f"building the environment {name[:11]}: Python {described.python}, {_count(store, lock)} distributions"
                )
                build(store, described, lock)
            fcntl.flock(lease, fcntl.LOCK_SH)
        os.utime(folder(store, name) / STAMP)  # the collector looks at the time of the last use
        yield name


def is_building(store: Store, name: str) -> bool:
    """Is a process building it at this moment?"""
    with _file(store, name).open("a") as lease:
        try:
            fcntl.flock(lease, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return ready(store, name) is None
    return False


def build(store: Store, described: Environment, lock: Lock) -> Built:
    """Build an environment that is missing; the caller holds its lease alone.

    Raises:
        Blocked: Its Python, or what it is made of, is not to be had here.
    """
    name = key(described, lock)
    place = folder(store, name)
    begun = time.monotonic()
    shutil.rmtree(place, ignore_errors=True)  # half built, by a process that was killed
    place.mkdir(parents=True)
    base = tools.interpreter(described.python)
    if base is None:
        raise Blocked(
            "its Python is not on this machine", subject=f"environment {name[:11]}",
            asked=f"Python {described.python}", found=f"Python {sys.version.split()[0]}",
            next_step="Install that Python, or use the running environment: --here.",
        )  # fmt: skip
    text = place / "requirements.txt"
    text.write_bytes(store.blobs.get(lock.requirements))
    by = install(place / "venv", base, text, whole=not lock.unhashed)
    made = Built(name, described.python, lock.requirements, by, round(time.monotonic() - begun, 3), store.clock.wall())
    aside = place / f".{STAMP}"
    aside.write_bytes(msgspec.json.encode(made))
    aside.replace(place / STAMP)
    return made


def ready(store: Store, name: str) -> Built | None:
    """The environment of that name, if it is ready."""
    try:
        return msgspec.json.decode((folder(store, name) / STAMP).read_bytes(), type=Built)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def listing(store: Store) -> list[Built]:
    """All that are ready, by the time of their making."""
    found = [ready(store, f"b3:{place.name}") for place in sorted(_all(store).glob("*")) if len(place.name) == 64]
    return sorted((one for one in found if one is not None), key=lambda one: one.created)


def last_used(store: Store, name: str) -> datetime:
    """When it was used last, by the machine's clock."""
    return datetime.fromtimestamp((folder(store, name) / STAMP).stat().st_mtime, UTC)


def own_bytes(store: Store, name: str) -> int:
    """Bytes that it takes for itself: files which it shares with a cache or another environment are not its own."""
    return _bytes_in(folder(store, name))


def _bytes_in(place: Path) -> int:
    total = 0
    for parent, _, files in os.walk(place):
        for file in files:
            stat = os.lstat(os.path.join(parent, file))
            total += stat.st_blocks * 512 if stat.st_nlink == 1 else 0
    return total


def collect(store: Store, name: str, before: datetime) -> int | None:
    """Remove an environment that nobody uses and nobody used at or after a moment.

    Returns:
        Bytes that were its own; None when it stays.
    """
    with _file(store, name).open("a") as lease:
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        place = folder(store, name)
        if not place.exists() or ((place / STAMP).exists() and last_used(store, name) >= before):
            return None
        size = own_bytes(store, name)
        (place / STAMP).unlink(missing_ok=True)  # from here on it is half built, should we be killed
        shutil.rmtree(place)
        return size


def leftovers(store: Store, before: datetime, *, remove: bool) -> dict[str, int]:
    """Bytes of what was left half built, and of copies of another Instar, that nobody used since; removed if asked."""
    half = [place for place in _all(store).glob("*") if len(place.name) == 64 and ready(store, place.name) is None]
    copies = [place for place in _copies(store).glob("*") if place.name != conditions.own_digest().removeprefix("b3:")]
    found = {}
    for place in (*half, *copies):
        with _file(store, place.name).open("a") as lease:
            try:
                fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if place.exists() and place.stat().st_mtime < before.timestamp():
                found[place.name] = _bytes_in(place)
                if remove:
                    shutil.rmtree(place)
    return found


def folder(store: Store, name: str) -> Path:
    """Where an environment lies."""
    return places.place(store.folder, name)


def own_copy(store: Store) -> Path:
    """A folder with a copy of the running Instar, to be put on Python's path; made on first use, by its content."""
    name = conditions.own_digest().removeprefix("b3:")
    place = _copies(store) / name
    if place.exists():
        os.utime(place)  # the collector looks at the time of the last use
        return place
    aside = place.with_name(f".{name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    for relative, file in conditions.own_files():
        target = aside / locks.OWN / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    about = aside / f"{locks.OWN}-{_own_version()}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {locks.OWN}\nVersion: {_own_version()}\n")
    try:
        aside.rename(place)
    except OSError:  # another process was first: its copy is the same
        shutil.rmtree(aside, ignore_errors=True)
        if not place.exists():
            raise
    return place


@contextmanager
def _held(store: Store, name: str) -> Iterator[int]:
    """A lease of the operating system: shared by users, alone for the builder and the collector; it ends with its process."""
    with _file(store, name).open("a") as lease:
        fcntl.flock(lease, fcntl.LOCK_SH)
        yield lease.fileno()


def _file(store: Store, name: str) -> Path:
    leases = store.folder / "environments" / "leases"
    leases.mkdir(parents=True, exist_ok=True)
    return leases / name.removeprefix("b3:")


def _copies(store: Store) -> Path:
    return _all(store) / "instar"


def _all(store: Store) -> Path:
    return store.folder / places.FOLDER


def _notes(lock: Lock) -> tuple[str, ...]:
    found = []
    if lock.unhashed:
        found.append(f"without a known hash, so by version only: {', '.join(lock.unhashed)}")
    if lock.folders:
        found.append(f"installed from a folder, so not in the environment: {', '.join(lock.folders)}")
    return tuple(found)


def _count(store: Store, lock: Lock) -> int:
    lines = store.blobs.get(lock.requirements).replace(b"\\\n", b" ").splitlines()
    return sum(line[:1].isalnum() for line in lines)


def _own_version() -> str:
    return environment.capture().distributions.get(locks.OWN, "0")
