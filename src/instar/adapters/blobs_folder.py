"""The blobs port on a local folder: one file a blob, written aside and renamed, so that no reader sees half of one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from instar.core import ids
from instar.core.durable import sync_folder
from instar.core.errors import Damaged, NotFound, StoreFull


class FolderBlobs:
    """Blobs under `folder/ab/cdef…`, named by the digest's hexadecimal letters."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, data: bytes) -> str:
        digest = ids.digest(data)
        target = self._place(digest)
        if self.renew(digest):
            return digest
        with self._aside() as aside:
            aside.write_bytes(data)
            self._settle(aside, target)
        return digest

    def put_file(self, path: Path) -> str:
        with self._aside() as aside:
            shutil.copyfile(path, aside)  # hash the copy: the original may change under our hands
            digest = ids.digest_of_file(aside)
            self._settle(aside, self._place(digest))
        return digest

    def adopt(self, path: Path) -> str:
        digest = ids.digest_of_file(path)
        if self.renew(digest):
            path.unlink()
            return digest
        try:
            self._settle(path, self._place(digest))
        except OSError as error:
            if error.errno != errno.EXDEV:  # on another file system a rename cannot be
                raise
            digest = self.put_file(path)
            path.unlink()
        return digest

    def get(self, digest: str) -> bytes:
        data = self.path(digest).read_bytes()
        if ids.digest(data) != digest:
            raise Damaged(
                "its content was changed", subject=f"blob {digest}", next_step="Restore the store from a backup."
            )
        return data

    def path(self, digest: str) -> Path:
        target = self._place(digest)
        if not target.exists():
            raise NotFound("the store has no such blob", subject=f"blob {digest}")
        return target

    def has(self, digest: str) -> bool:
        return self._place(digest).exists()

    def renew(self, digest: str) -> bool:
        with self._turn(fcntl.LOCK_SH):
            try:
                os.utime(self._place(digest))  # the collector looks at the time of the last put
            except FileNotFoundError:
                return False
        return True

    def put_at(self, digest: str) -> datetime | None:
        try:
            return datetime.fromtimestamp(self._place(digest).stat().st_mtime, UTC)
        except FileNotFoundError:
            return None

    def collect(self, digest: str, before: datetime) -> int | None:
        target = self._place(digest)
        with self._turn(fcntl.LOCK_EX):
            try:
                stat = target.stat()
            except FileNotFoundError:
                return None
            if stat.st_mtime >= before.timestamp():
                return None
            target.unlink()
            return stat.st_size

    def leftovers(self, before: datetime, *, remove: bool) -> dict[str, int]:
        found = {}
        for file in (*self._folder.glob("tmp*"), *self._folder.glob("??/tmp*")):
            with contextlib.suppress(FileNotFoundError):  # its writer was alive, and has just put it in its place
                stat = file.stat()
                if stat.st_mtime < before.timestamp():
                    found[file.name] = stat.st_size
                    if remove:
                        file.unlink()
        return found

    def delete(self, digest: str) -> None:
        self._place(digest).unlink(missing_ok=True)

    def digests(self) -> Iterator[str]:
        for file in self._folder.glob("??/*"):
            name = file.parent.name + file.name
            if len(name) == 64:
                yield "b3:" + name

    @contextmanager
    def _turn(self, how: int) -> Iterator[None]:
        """Writers renew together, the collector removes alone: the system's lock ends with its process."""
        with (self._folder / ".turn").open("a") as file:
            fcntl.flock(file, how)
            yield

    def _place(self, digest: str) -> Path:
        letters = digest.removeprefix("b3:")
        if len(letters) != 64 or not set(letters) <= set("0123456789abcdef"):
            raise NotFound("that is not a digest", subject=f"blob {digest!r}", asked="b3: and 64 hexadecimal letters")
        return self._folder / letters[:2] / letters[2:]

    @contextmanager
    def _aside(self) -> Iterator[Path]:
        """A new file to write to, which is gone afterwards unless it was settled."""
        with _refusing_when_full():
            descriptor, name = tempfile.mkstemp(dir=self._folder)
            os.close(descriptor)
            aside = Path(name)
            try:
                yield aside
            finally:
                aside.unlink(missing_ok=True)

    def _settle(self, aside: Path, target: Path) -> None:
        fresh = not target.parent.exists()
        target.parent.mkdir(exist_ok=True)
        # Bytes first, record second: what a transaction will name must be on the disk before.
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(aside, 0o644)
        os.utime(aside)  # an adopted file may be older than the grace
        with self._turn(fcntl.LOCK_SH):  # not between the collector's look at an older copy and its deed
            os.replace(aside, target)
        sync_folder(target.parent)
        if fresh:
            sync_folder(self._folder)


@contextmanager
def _refusing_when_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise StoreFull(
            f"a file cannot be kept: {error.strerror}", subject="store",
            next_step="Make room on the disk of the store, and do it again; nothing of it was kept.",
        ) from None  # fmt: skip
