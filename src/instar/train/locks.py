"""The lock of an environment: every installed distribution with its exact version and the hashes of its files, to build it again.

Hashes are taken from the project's own lock where it has one, and else asked of `uv`, which knows those that it has in its
cache: making a lock never waits for the network. The text is what both `uv pip sync` and `pip install --require-hashes`
read. It is made once an environment and store, when a bundle is packed.
"""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from instar.core import ids
from instar.core.errors import NotFound
from instar.core.store import Store
from instar.train import environment, tools
from instar.train.environment import Environment

_TOOLS = frozenset({"pip"})  # what an environment is built with, and nothing imports
_SEEDS = frozenset(
    {"setuptools", "wheel"}
)  # what `venv` put there: part of the environment only if the project says so
OWN = "instar"  # comes into an environment as a copy of the running one (see `environments.own_copy`)
FOLDER = "environments/locks"  # of the store: which lock an environment has
_SECONDS = 60.0

_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*==\s*([^\s;\\]+)")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
# In locks that are TOML: sections of packages, and in each its name, its version and the hashes of its files.
_SECTION = re.compile(r"^\[\[packages?\]\]$", re.MULTILINE)
_NAME, _VERSION = (re.compile(rf'^{word} = "([^"]+)"', re.MULTILINE) for word in ("name", "version"))
_ANY_HASH = re.compile(r'sha256(?::|"?\s*=\s*")([0-9a-f]{64})')

Hashes = dict[tuple[str, str], tuple[str, ...]]


class Lock(msgspec.Struct, frozen=True):
    """The lock of one environment.

    Attributes:
        requirements: Digest of its text.
        unhashed: Distributions that it holds a version of, and no hash.
        folders: Distributions that were installed from a folder: they are in no index, and not in the lock.
    """

    requirements: str
    unhashed: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


def lock_of(store: Store, description: str) -> Lock:
    """The lock of the environment whose description has that digest; made on first use, and then kept.

    Raises:
        NotFound: The description is not in the store.
    """
    file = store.folder / FOLDER / f"{description.removeprefix('b3:')}.json"
    known = _read(file)
    if known is not None and store.blobs.renew(known.requirements):
        return known
    made = make(store, environment.load(store.blobs, description))
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(f".{ids.new_id('tmp')}")
    aside.write_bytes(msgspec.json.encode(made))
    aside.replace(file)
    return made


def make(store: Store, described: Environment) -> Lock:
    """The lock of an environment; its text is kept."""
    hashes = _of_project(store, described)
    lines, unhashed, folders = [], [], []
    seeds = {name for name in _SEEDS if hashes and (name, described.distributions.get(name)) not in hashes}
    wanted = {name: version for name, version in described.distributions.items() if name not in _TOOLS | seeds}
    missing = {
        name: version
        for name, version in wanted.items()
        if (name, version) not in hashes and name not in described.sources
    }
    hashes |= dict(_of_uv(tuple(sorted(missing.items()))))
    for name, version in sorted(wanted.items()):
        source = described.sources.get(name, "")
        if source == environment.FOLDER or name == OWN:
            folders += [name] if name != OWN else []
            continue
        line, own = _line(name, version, source)
        known = own or hashes.get((name, version), ())
        lines.append(" ".join([line, *(f"--hash={one}" for one in known)]))
        if not known:
            unhashed.append(name)
    text = "".join(f"{line}\n" for line in lines)
    return Lock(store.blobs.put(text.encode()), tuple(unhashed), tuple(folders))


def hashes_in(text: str, file_name: str) -> Hashes:
    """Hashes by name and version in the text of a lock: of uv, poetry, pdm, PEP 751, or a list of requirements."""
    if file_name.endswith(".txt") or file_name == "requirements.lock":
        return dict(_of_requirements(text))
    return dict(_of_packages(text))


def _of_project(store: Store, described: Environment) -> Hashes:
    if described.lock is None or described.lock_file is None:
        return {}
    try:
        text = store.blobs.get(described.lock).decode("utf-8", "replace")
    except NotFound:
        return {}
    return hashes_in(text, described.lock_file)


def _of_requirements(text: str) -> Iterator[tuple[tuple[str, str], tuple[str, ...]]]:
    for line in text.replace("\\\n", " ").splitlines():
        pin = _PIN.match(line.strip())
        if pin and (found := _HASH.findall(line)):
            yield (environment.normal(pin[1]), pin[2]), tuple(sorted(set(found)))


def _of_packages(text: str) -> Iterator[tuple[tuple[str, str], tuple[str, ...]]]:
    # By pattern, not by a parser: reading a large lock as TOML takes a hundred times as long.
    for section in _SECTION.split(text)[1:]:
        name, version = _NAME.search(section), _VERSION.search(section)
        found = sorted({f"sha256:{one}" for one in _ANY_HASH.findall(section)})
        if name and version and found:
            yield (environment.normal(name[1]), version[1]), tuple(found)


@functools.cache
def _of_uv(missing: tuple[tuple[str, str], ...]) -> Hashes:
    """What uv's cache knows; distributions that it does not know are left out one by one."""
    uv = tools.uv()
    left = dict(missing)
    while uv is not None and left:
        with tempfile.TemporaryDirectory(prefix="instar-lock-") as folder:
            file = Path(folder) / "pins.in"
            file.write_text("".join(f"{name}=={version}\n" for name, version in left.items()))
            command = [uv, "pip", "compile", "--quiet", "--offline", "--no-deps", "--generate-hashes", "--no-header"]
            try:
                done = subprocess.run(
                    [*command, "--no-annotate", str(file)], capture_output=True, text=True, cwd=folder,
                    timeout=_SECONDS, check=False, env=tools.environment(),
                )  # fmt: skip
            except (OSError, subprocess.TimeoutExpired):
                return {}
        if done.returncode == 0:
            return dict(_of_requirements(done.stdout))
        named = [name for name in left if re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", done.stderr)]
        for name in named:
            del left[name]
        if not named:
            return {}
    return {}


def _line(name: str, version: str, source: str) -> tuple[str, tuple[str, ...]]:
    """The requirement, and the hashes that its source brought with it."""
    found = tuple(_HASH.findall(source))
    address = source.partition("#")[0]
    if address.startswith(("git+", "hg+", "https:", "http:")):
        return f"{name} @ {address}", found
    return f"{name}=={version}", found


def _read(file: Path) -> Lock | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Lock)
    except (OSError, msgspec.MsgspecError):
        return None
