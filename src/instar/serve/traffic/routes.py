"""The route snapshot: what gateways answer from, on disk, numbered, signed, replaced whole and acknowledged by number.

Read by gateways and written by the control side (`snapshot.py`); imports no database, so that a gateway never does.
Files: `serve/routes.json`, `serve/bundles/<digest>/`, `serve/acks/<boot>.json` in the store's folder.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from instar.core.durable import replace_file as replace_file
from instar.core.errors import NotAllowed
from instar.core.ids import digest
from instar.serve.protocol.signature import Signature
from instar.serve.traffic.capacity import DEFAULT, Terms, together
from instar.serve.traffic.policy import Policy
from instar.serve.traffic.signed_file import read_signed, write_signed

PORTABLE = "portable"
SHADOWS = "shadows"  # holds portable versions that only the record hears: what they cost is never paid by an answer
NATIVE = "native-"  # begins the name of a worker that holds one version alone
KEY = "routes"  # by which the snapshot is signed

SOCKET_FOLDER_LIMIT_BYTES = 76  # a Unix socket's path has 104 bytes on macOS, 108 on Linux; the longest name takes 28


class VersionRoute(msgspec.Struct, frozen=True):
    """One version that a policy names.

    Attributes:
        bundle: Digest; its files lie in `bundle_folder`.
        worker: Which worker process holds it: `portable`, `shadows`, or `native-` and letters of the bundle's digest.
        columns: Columns that it reads.
        threshold: A score at or above it is decided 1; None for a version that answers with numbers and decides nothing.
        environment: Name of the environment of its own that it runs in; empty for ours.
        building: That is being built, or is to be.
        threads, memory_bytes: What a process of it may use at most; None where the version does not say.
    """

    version: int
    bundle: str
    worker: str
    columns: tuple[str, ...]
    threshold: float | None
    environment: str = ""
    building: bool = False
    threads: int | None = None
    memory_bytes: int | None = None


class EndpointRoute(msgspec.Struct, frozen=True):
    """One endpoint: its policy, the signature it enforces, the versions by number, and what is agreed for their processes.

    Attributes:
        retiring: The champion before, which stays loaded for a while though no call is routed to it.
    """

    policy: Policy
    signature: Signature
    versions: dict[int, VersionRoute]
    terms: Terms = DEFAULT
    retiring: VersionRoute | None = None

    @property
    def held(self) -> list[VersionRoute]:
        """All versions that workers hold for it."""
        return [*self.versions.values(), *([self.retiring] if self.retiring is not None else [])]

    def reserves(self, version: VersionRoute) -> bool:
        """Does that version stay loaded, whether calls come or not?"""
        return version is self.retiring or (self.terms.reserve and version.version == self.policy.champion)


class Snapshot(msgspec.Struct, frozen=True):
    """All routes at one moment.

    Attributes:
        number: Counts up; a gateway acknowledges it when all it names is loaded.
        made_at: Wall time, microseconds since 1970.
    """

    number: int
    made_at: int
    endpoints: dict[str, EndpointRoute]

    def workers(self) -> dict[str, list[VersionRoute]]:
        """Versions by worker process, each bundle once."""
        found: dict[str, dict[str, VersionRoute]] = {}
        for endpoint in self.endpoints.values():
            for version in endpoint.held:
                found.setdefault(version.worker, {})[version.bundle] = version
        return {worker: list(versions.values()) for worker, versions in sorted(found.items())}

    def terms(self) -> dict[str, Terms]:
        """What is agreed for the processes of each worker, over all endpoints that use it."""
        found: dict[str, list[Terms]] = {}
        for endpoint in self.endpoints.values():
            for version in endpoint.held:
                # Only the version that answers is reserved; what the record hears comes when it is asked.
                reserve = endpoint.reserves(version)
                found.setdefault(version.worker, []).append(msgspec.structs.replace(endpoint.terms, reserve=reserve))
        return {worker: together(terms) for worker, terms in found.items()}


class Ack(msgspec.Struct, frozen=True):
    """A gateway's word on a snapshot: it answers from it, or why not.

    Attributes:
        failed: Reason by `endpoint@version` for versions that did not load; not fatal where they are shadows.
        error: The snapshot was refused, and the gateway goes on with the one before.
    """

    boot: int
    number: int
    at: int
    failed: dict[str, str] = {}
    error: str | None = None


class _Written(msgspec.Struct):
    number: int
    made_at: int
    endpoints: dict[str, msgspec.Raw]


EMPTY = Snapshot(0, 0, {})

_route = msgspec.json.Decoder(EndpointRoute)


def serve_folder(store_folder: Path) -> Path:
    """Where the serving side keeps its files."""
    return store_folder / "serve"


def routes_file(store_folder: Path) -> Path:
    return serve_folder(store_folder) / "routes.json"


def bundle_folder(store_folder: Path, bundle: str) -> Path:
    """Folder with a bundle's files, there before a snapshot that names it."""
    return bundles_folder(store_folder) / bundle.replace(":", "-")


def bundles_folder(store_folder: Path) -> Path:
    """Folder with the folders of all bundles."""
    return serve_folder(store_folder) / "bundles"


def scratch_folder(store_folder: Path, number: int) -> Path:
    """Folder in which a worker process may write."""
    return run_folder(store_folder) / f"scratch-{number}"


def bundle_of(folder: Path) -> str:
    """Digest of the bundle whose folder this is."""
    return folder.name.replace("-", ":", 1)


def run_folder(store_folder: Path) -> Path:
    """Where the sockets of a running server lie; only their owner may enter.

    In the store, or, where that path is too long for a socket's name, in the system's folder for such things.
    """
    folder = serve_folder(store_folder).absolute() / "run"
    if len(os.fsencode(folder)) <= SOCKET_FOLDER_LIMIT_BYTES:
        return folder
    base = os.environ.get("XDG_RUNTIME_DIR") or os.path.join(tempfile.gettempdir(), f"instar-{os.getuid()}")
    return Path(base) / "instar" / digest(os.fsencode(folder))[3:19]


def worker_socket(store_folder: Path, number: int) -> Path:
    """Unix socket of a worker process, by the number that its root gave it."""
    return run_folder(store_folder) / f"worker-{number}.sock"


def root_socket(store_folder: Path) -> Path:
    """Unix socket on which the root hears gateways and workers."""
    return run_folder(store_folder) / "root.sock"


def control_socket(store_folder: Path) -> Path:
    """Unix socket of the control process."""
    return run_folder(store_folder) / "control.sock"


def door_socket(store_folder: Path) -> Path:
    """Unix socket on which the control process takes whole connections from gateways."""
    return run_folder(store_folder) / "door.sock"


def make_run_folder(store_folder: Path) -> Path:
    """Make the folder of sockets, mode 0700.

    Raises:
        NotAllowed: Somebody else made it first.
    """
    folder = run_folder(store_folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_uid != os.getuid():
        raise NotAllowed(
            "the folder for its sockets belongs to another user",
            subject=str(folder),
            next_step="Set XDG_RUNTIME_DIR to a folder of your own.",
        )
    folder.chmod(0o700)
    return folder


def write_snapshot(store_folder: Path, snapshot: Snapshot) -> None:
    """Replace the snapshot, whole."""
    write_signed(store_folder, routes_file(store_folder), KEY, msgspec.json.encode(snapshot))


def read_snapshot(store_folder: Path, reading: Reading | None = None) -> Snapshot:
    """The snapshot on disk; `EMPTY` when none was ever published.

    Args:
        reading: What was read last: endpoints that are written as they were then are not read again.

    Raises:
        Damaged: The file is not what the control side of this store wrote.
    """
    body = read_signed(store_folder, routes_file(store_folder), KEY)
    if body is None:
        return EMPTY
    return (reading or Reading()).take(msgspec.json.decode(body, type=_Written))


class Reading:
    """What one reader read last, so that one change among a thousand endpoints is one endpoint to read."""

    def __init__(self) -> None:
        self._written: dict[str, bytes] = {}
        self._endpoints: dict[str, EndpointRoute] = {}

    def take(self, written: _Written) -> Snapshot:
        """The snapshot of what is written."""
        texts = {name: bytes(text) for name, text in written.endpoints.items()}
        self._endpoints = {
            name: self._endpoints[name] if self._written.get(name) == text else _route.decode(text)
            for name, text in texts.items()
        }
        self._written = texts
        return Snapshot(written.number, written.made_at, self._endpoints)


def write_ack(store_folder: Path, boot_name: str, ack: Ack) -> None:
    """A gateway's acknowledgement."""
    replace_file(_ack_file(store_folder, boot_name), msgspec.json.encode(ack), durable=False)


def forget_ack(store_folder: Path, boot_name: str) -> None:
    """Take back what a gateway acknowledged, when it ends."""
    _ack_file(store_folder, boot_name).unlink(missing_ok=True)


def read_ack(store_folder: Path, boot_name: str) -> Ack | None:
    """What a gateway last acknowledged."""
    try:
        return msgspec.json.decode(_ack_file(store_folder, boot_name).read_bytes(), type=Ack)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _ack_file(store_folder: Path, boot_name: str) -> Path:
    return serve_folder(store_folder) / "acks" / f"{boot_name}.json"
