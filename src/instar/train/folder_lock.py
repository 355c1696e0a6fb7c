"""The lock of a folder that somebody logged, made of what it requires when it is first to answer, and kept from then on.

MLflow writes versions into `requirements.txt`, and no hashes. What they come to is worked out once, by `uv`, from its cache
or the index that the user's settings name; from then on the version answers from exactly that. Only wheels are taken: the
file comes from outside, and to build a source distribution would run its code.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

import msgspec

from instar.core import durable, ids
from instar.core.errors import BadInput, Blocked, Damaged, Unavailable
from instar.core.store import Store
from instar.train import bundle, environment, locks, tools
from instar.train.bundle import Manifest
from instar.train.environment import Environment
from instar.train.locks import Lock

FILE = "requirements.txt"
LARGEST_BYTES = 1024 * 1024
SECONDS = 300.0  # for an index over a slow line
WHEELS = "--only-binary :all:"
_LAST_LINES = 8

_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([A-Za-z0-9.!+_-]+)$")


def requires(store: Store, manifest: Manifest) -> list[str]:
    """What a folder requires, a line each.

    Raises:
        BadInput: It asks for more than distributions by their names.
    """
    digest = manifest.folder.files.get(FILE) if manifest.folder is not None else None
    if digest is None:
        return []
    with store.blobs.path(digest).open("rb") as file:
        text = file.read(LARGEST_BYTES + 1).decode(errors="replace")
    return plain(text, f"model {manifest.model}")


def plain(text: str, subject: str) -> list[str]:
    """The lines of requirements, which may name distributions and nothing else.

    Raises:
        BadInput: They are too long, or there is an option, an address or a path among them.
    """
    if len(text) > LARGEST_BYTES:
        raise BadInput(f"its {FILE} is too long", subject=subject, asked=f"{LARGEST_BYTES} bytes or fewer")
    lines = [line.partition(" #")[0].strip() for line in text.replace("\\\n", " ").splitlines()]
    named = [line for line in lines if line and not line.startswith("#")]
    for line in named:
        if not line[0].isalnum() or "@" in line or "://" in line or "/" in line.partition(";")[0]:
            raise BadInput(
                f"its {FILE} asks for more than distributions by their names", subject=subject, found=line[:100],
                asked="lines such as scikit-learn==1.7.0",
            )  # fmt: skip
    return named


def is_here(lines: list[str]) -> bool:
    """Is each of these installed beside Instar, in exactly the version that is asked?"""
    installed = environment.capture().distributions
    pins = [_PIN.match(line.replace(" ", "")) for line in lines]
    return all(pin is not None and installed.get(environment.normal(pin[1])) == pin[2] for pin in pins)


def described(store: Store, manifest: Manifest) -> Environment:
    """What the bundle says of its environment; where a folder does not say it, that is of a machine as this one.

    Raises:
        Damaged: It cannot be read.
    """
    try:
        found = environment.load(store.blobs, manifest.environment)
    except msgspec.MsgspecError as problem:
        raise Damaged(
            "the description of its environment cannot be read", subject=f"bundle of {manifest.model}",
            found=str(problem),
        ) from problem  # fmt: skip
    if found.system:
        return found
    here = environment.capture()
    return msgspec.structs.replace(
        found, python=found.python or here.python, system=here.system, machine=here.machine,
        implementation=found.implementation or here.implementation,
    )  # fmt: skip


def kept(store: Store, manifest: Manifest) -> Lock | None:
    """The lock that was made for a folder; None where none was."""
    try:
        found = msgspec.json.decode(_file(store, manifest).read_bytes(), type=Lock)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if store.blobs.renew(found.requirements) else None


def keep(store: Store, manifest: Manifest, requirements: str) -> None:
    """Keep the digest of a lock's text as that of a folder."""
    file = _file(store, manifest)
    file.parent.mkdir(parents=True, exist_ok=True)
    durable.replace_file(file, msgspec.json.encode(Lock(requirements)))


def forget(store: Store, manifest: Manifest) -> None:
    """Have no lock of a folder any more: it answers from what is installed beside Instar."""
    _file(store, manifest).unlink(missing_ok=True)


def make(store: Store, manifest: Manifest) -> Lock:
    """The lock of a folder, made if it was not, and kept.

    Raises:
        BadInput: What it requires cannot be a lock.
        Blocked: Its Python, or what it requires, is not to be had here, in the words of the resolver.
        Unavailable: There is no `uv`.
    """
    found = kept(store, manifest)
    if found is not None:
        return found
    wanted = described(store, manifest)
    text = resolve(requires(store, manifest), wanted.python, f"model {manifest.model}")
    keep(store, manifest, store.blobs.put(text.encode()))
    return Lock(ids.digest(text.encode()))


def resolve(lines: list[str], python: str, subject: str) -> str:
    """The text of a lock, with the hashes of all files, of what is required on a version of Python.

    Raises:
        Blocked: The Python, or what is required, is not to be had here.
        Unavailable: There is no `uv`.
    """
    uv, base = tools.uv(), tools.interpreter(python)
    if uv is None:
        raise Unavailable("its requirements are made a lock by uv, which is not here", subject=subject,
                          next_step="Install uv beside Instar: pip install uv.")  # fmt: skip
    if base is None:
        raise Blocked("its Python is not on this machine", subject=subject, asked=f"Python {python}",
                      next_step="Install that Python.")  # fmt: skip
    command = [uv, "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate", "--python", base]
    command += [*WHEELS.split(), "requirements.in"]
    with tempfile.TemporaryDirectory(prefix="instar-lock-") as folder:
        (Path(folder) / "requirements.in").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        said, text = _run([*command, "--offline"], folder)
        if said and not os.environ.get("UV_OFFLINE"):
            said, text = _run(command, folder)
    if said:
        raise Blocked(
            "what it requires cannot be made a lock", subject=subject, found=said,
            next_step="See that the index can be reached, or that uv's cache or UV_FIND_LINKS has it.",
        )  # fmt: skip
    return f"{WHEELS}\n{text}"


def _run(command: list[str], folder: str) -> tuple[str, str]:
    """Why it failed, empty when it did not; and what it wrote."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=folder, timeout=SECONDS, check=False, env=tools.environment()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}: {error}", ""
    if done.returncode == 0:
        return "", done.stdout
    last = [line.strip() for line in done.stderr.splitlines() if line.strip()][-_LAST_LINES:]
    return " ".join(last) or f"status {done.returncode}", ""


def _file(store: Store, manifest: Manifest) -> Path:
    name = ids.digest(bundle.encode(manifest)).removeprefix("b3:")
    return store.folder / locks.FOLDER / f"folder-{name}.json"
