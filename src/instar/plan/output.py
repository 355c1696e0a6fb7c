"""What a step's function prints and logs while it runs: into a file that can be followed, and kept with its execution.

While a step runs its output lies in `logs/` of the store's folder; at its end it is put with the blobs, the beginning and
the end of it where it is longer than a megabyte, and the file goes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from instar.core.errors import InstarError
from instar.core.store import Store

KEPT_HEAD, KEPT_TAIL = 256 * 1024, 768 * 1024  # bytes that are kept of a longer log
LIVE_LIMIT = 16 * 1024 * 1024  # bytes from which on the file of a running step is cut, so that no step fills the disk
FOLLOW_SECONDS = 0.1
_FORMAT = "%(levelname)s %(name)s: %(message)s"


def live_file(store: Store, execution: str) -> Path:
    """Where the output of a running execution lies."""
    return store.folder / "logs" / f"{execution}.log"


def collect(store: Store, execution: str) -> str | None:
    """Put the output of an execution that has ended with the blobs; None when it was silent."""
    path = live_file(store, execution)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return None
    digest = None
    if size:
        with path.open("rb") as file:
            head = file.read(KEPT_HEAD + KEPT_TAIL)
            if size > KEPT_HEAD + KEPT_TAIL:
                file.seek(size - KEPT_TAIL)
                note = _note(size - KEPT_HEAD - KEPT_TAIL)
                head = head[:KEPT_HEAD] + note + file.read(KEPT_TAIL)
        digest = store.blobs.put(_without_overwritten(head))
    path.unlink()
    return digest


def read(store: Store, execution: str, log: str | None) -> str:
    """The output of an execution: from its log, or from where it runs. Empty when it was silent."""
    if log is not None:
        return store.blobs.get(log).decode("utf-8", "replace")
    try:
        return live_file(store, execution).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


@contextlib.contextmanager
def captured(path: Path, whole_process: bool) -> Iterator[None]:
    """Send what is printed and logged within to a file.

    Args:
        whole_process: The process is there for this alone: its standard output and error go to the file too, so that
            nothing that a library or a program prints is missed, and all threads may log. Otherwise only what Python
            prints, and what this thread logs.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    stream = open(  # noqa: SIM115 the descriptor is closed below, after all that writes to it has let go
        descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(_FORMAT))
    if not whole_process:
        own = threading.get_ident()
        handler.addFilter(lambda record: record.thread == own)
    root, level = logging.getLogger(), logging.getLogger().level
    before = sys.stdout, sys.stderr
    saved = _to(descriptor) if whole_process else []
    try:
        sys.stdout = sys.stderr = stream
        root.addHandler(handler)
        if level != logging.INFO:  # setting it empties a cache, also to what it is
            root.setLevel(min(level or logging.INFO, logging.INFO))
        yield
    except BaseException as error:
        cause = error.__cause__ if isinstance(error, InstarError) else error
        if cause is not None:
            traceback.print_exception(cause, file=stream)
        raise
    finally:
        root.removeHandler(handler)
        if root.level != level:
            root.setLevel(level)
        if sys.stdout is stream:  # unless the function put another in its place
            sys.stdout = before[0]
        if sys.stderr is stream:
            sys.stderr = before[1]
        with contextlib.suppress(ValueError):  # the function closed it
            stream.flush()
        for number, kept in saved:
            os.dup2(kept, number)
            os.close(kept)
        os.close(descriptor)


def _to(descriptor: int) -> list[tuple[int, int]]:
    """Point standard output and error at a file; returns what they were."""
    with contextlib.suppress(ValueError, AttributeError):
        sys.stdout.flush()
        sys.stderr.flush()
    saved = [(number, os.dup(number)) for number in (1, 2)]
    for number, _ in saved:
        os.dup2(descriptor, number)
    return saved


class Follower:
    """Watches the output of running executions: passes new lines on, and cuts what would fill the disk.

    Args:
        store: Where the files lie.
        tell: Called with an execution's id and a line, from the follower's thread; None: nobody wants to know.
    """

    def __init__(self, store: Store, tell: Callable[[str, str], None] | None) -> None:
        self._store, self._tell = store, tell
        self._lock = threading.Lock()
        self._silent: Path | None = (
            None  # left empty by an execution that ended: to make a file is slow, to rename is not
        )
        self._files: dict[str, tuple[Path, int]] = {}  # and how much of it was passed on
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, execution: str) -> Path:
        """Watch one more; returns its file."""
        path = live_file(self._store, execution)
        if self._thread is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._thread = threading.Thread(target=self._run, name="output of steps", daemon=True)
            self._thread.start()
        with self._lock:
            if self._silent is not None:
                with contextlib.suppress(FileNotFoundError):  # somebody tidied up: it is made anew
                    os.replace(self._silent, path)
                self._silent = None
            self._files[execution] = (path, 0)
        return path

    def end(self, execution: str) -> str | None:
        """Watch it no more; returns the blob of its output."""
        with self._lock:
            if execution not in self._files:
                return None
            self._pass_on(execution, whole=True)
            path, place = self._files.pop(execution)
            if place == 0 and self._silent is None and _is_empty(path):
                self._silent = path
                return None
        return collect(self._store, execution)

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._silent is not None:
            self._silent.unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._stop.wait(FOLLOW_SECONDS):
            with self._lock:
                for execution in list(self._files):
                    self._pass_on(execution)

    def _pass_on(self, execution: str, whole: bool = False) -> None:
        path, place = self._files[execution]
        with contextlib.suppress(FileNotFoundError):
            size = path.stat().st_size
            if self._tell is not None and size > place:
                with path.open("rb") as file:
                    file.seek(place)
                    data = file.read()
                end = len(data) if whole else data.rfind(b"\n") + 1
                for line in _without_overwritten(data[:end]).decode("utf-8", "replace").splitlines():
                    self._tell(execution, line)
                place += end
            if size > LIVE_LIMIT:
                os.truncate(path, KEPT_HEAD)
                with path.open("ab") as file:
                    file.write(_note(size - KEPT_HEAD))
                place = path.stat().st_size
            self._files[execution] = (path, place)


def _is_empty(path: Path) -> bool:
    try:
        return os.stat(path).st_size == 0
    except FileNotFoundError:
        return False


def _note(left_out: int) -> bytes:
    return f"\n[{left_out} bytes are left out here]\n".encode()


def _without_overwritten(data: bytes) -> bytes:
    """Lines as a terminal would show them at last: a progress bar overwrites itself a thousand times."""
    if b"\r" not in data:
        return data
    lines = data.replace(b"\r\n", b"\n").split(b"\n")
    return b"\n".join(line.rstrip(b"\r").rpartition(b"\r")[2] for line in lines)
