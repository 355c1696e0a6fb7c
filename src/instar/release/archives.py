"""Looking into a zip archive that came from outside, before anything in it is read: bombs, links and ways out are refused.

with open_archive(path) as archive:
    archive.read("schema.json")
"""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from instar.core.errors import UnsafeModel

MOST_ENTRIES = 20_000
LARGEST_BYTES = 64 * 1024**3  # all entries together, unpacked
LARGEST_RATIO = 200  # unpacked to packed; text of zeros has 1,000, weights of a model hardly 2
RATIO_FROM_BYTES = 16 * 1024**2  # below it a ratio harms nobody


@contextmanager
def open_archive(path: Path | BytesIO, subject: str = "archive") -> Iterator[zipfile.ZipFile]:
    """An archive that may be read.

    Raises:
        UnsafeModel: It is no archive, or one that would fill memory or disk, leads elsewhere, or holds links.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UnsafeModel(f"its archive cannot be read: {error}", subject=subject) from None
    with archive:
        _check(archive, subject)
        yield archive


def unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    """The files of an archive that `open_archive` gave, in a new folder; of their modes only whether they can be run.

    Raises:
        UnsafeModel: A file is also a folder, or its content is not what the archive says.
    """
    folder.mkdir()
    for entry in archive.infolist():
        place = folder.joinpath(*entry.filename.replace("\\", "/").split("/"))
        try:
            if entry.is_dir():
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as packed, place.open("xb") as file:
                shutil.copyfileobj(packed, file)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, FileExistsError, NotADirectoryError) as problem:
            raise UnsafeModel(f"its archive cannot be unpacked: {problem}", subject=entry.filename[:100]) from None
        if (entry.external_attr >> 16) & 0o111:
            place.chmod(0o755)


def is_archive(head: bytes) -> bool:
    """Does a file that begins so look like a zip archive?"""
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def _check(archive: zipfile.ZipFile, subject: str) -> None:
    entries = archive.infolist()
    if len(entries) > MOST_ENTRIES:
        raise _refused("it has too many entries", subject, len(entries), MOST_ENTRIES)
    names = set()
    for entry in entries:
        parts = entry.filename.replace("\\", "/").split("/")
        if entry.filename.startswith(("/", "\\")) or ".." in parts or "\0" in entry.filename or ":" in parts[0]:
            raise _refused("an entry leads out of the archive", subject, entry.filename[:100], "paths below its root")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise _refused("an entry is a symbolic link", subject, entry.filename[:100], "files")
        if entry.filename in names:
            raise _refused("an entry comes twice", subject, entry.filename[:100], "each once")
        names.add(entry.filename)
        if entry.file_size > RATIO_FROM_BYTES and entry.file_size > LARGEST_RATIO * max(entry.compress_size, 1):
            ratio = entry.file_size // max(entry.compress_size, 1)
            raise _refused(
                "an entry unpacks to far more than it is", subject, f"{ratio} times", f"{LARGEST_RATIO} or less"
            )
    unpacked, packed = sum(entry.file_size for entry in entries), sum(entry.compress_size for entry in entries)
    if unpacked > LARGEST_BYTES or (unpacked > RATIO_FROM_BYTES and unpacked > LARGEST_RATIO * max(packed, 1)):
        raise _refused(
            "it unpacks to far more than it is", subject, f"{unpacked} bytes of {packed}", f"{LARGEST_RATIO} times"
        )


def _refused(what: str, subject: str, found: object, asked: object) -> UnsafeModel:
    return UnsafeModel(f"its archive is refused: {what}", subject=subject, found=found, asked=asked)
