"""Uploads in parts: a large file that a client sends piece by piece, until all pieces are laid together as one artifact.

    upload = begin(store, "flights", owner="run_…", path="model/weights.bin", parts=3)
    tag = keep_part(store, upload, 2, file)              # in any order; the same part again replaces it
    complete(store, upload, [(1, …), (2, tag), (3, …)], settle, limit_bytes)   # settle(file) makes it an artifact

Parts are files in a folder of the store. Nothing is shown before the end: an upload that is given up, or that nobody
completed in time, leaves no trace. Completing again is answered like the first time: a client that got no answer asks again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from instar.core.errors import BadInput, NotFound, TooLarge
from instar.core.ids import digest_of_file
from instar.core.store import Store

FOLDER = "multipart"
MOST_PARTS = 10_000
LIFE = timedelta(days=1)  # for all of an upload: its parts may be many gigabytes over a slow line
COPY_BYTES = 1024 * 1024  # of a part in memory at once
_ID = re.compile(r"upload_[0-9a-f]{32}\Z")
_ABOUT, _LOCK, _WHOLE, _GONE = "about.json", "lock", "whole", "gone-"


@dataclass(frozen=True)
class PartUpload:
    """One upload.

    Attributes:
        id: Nobody can guess it.
        owner: The run or logged model that gets the file, at `path`.
        parts: How many there will be, numbered from 1.
        expires: What is not complete by then is removed.
        done: It was completed.
    """

    id: str
    project: str
    owner: str
    path: str
    parts: int
    expires: datetime
    done: bool = False


def begin(store: Store, project: str, owner: str, path: str, parts: int) -> PartUpload:
    """Open an upload; those whose time is over are removed first.

    Raises:
        BadInput: So many parts cannot be.
    """
    if not 0 <= parts <= MOST_PARTS:
        raise BadInput("an upload has too many parts", subject=path, found=str(parts), asked=f"0 to {MOST_PARTS}")
    sweep(store)
    upload = PartUpload(f"upload_{secrets.token_hex(16)}", project, owner, path, parts, store.clock.wall() + LIFE)
    folder = _folder(store, upload.id)
    folder.mkdir(parents=True)
    _write_about(folder, upload)
    return upload


def get(store: Store, id: str) -> PartUpload:
    """The upload of an id.

    Raises:
        NotFound: There is none: it was given up, or its time is over.
    """
    upload = _read_about(_folder(store, id)) if _ID.match(id) else None
    if upload is None or upload.expires <= store.clock.wall():
        raise _gone(id)
    return upload


def keep_part(store: Store, upload: PartUpload, number: int, file: Path) -> str:
    """Take a file as a part; returns the tag by which completing names it, the digest of its content.

    Raises:
        BadInput: There is no such part.
        NotFound: The upload was given up meanwhile.
    """
    if not 1 <= number <= upload.parts:
        raise BadInput("there is no such part", subject=upload.id, found=str(number), asked=f"1 to {upload.parts}")
    tag = digest_of_file(file)
    with _held(store, upload.id) as folder:
        if not _about(folder, upload.id).done:  # who completed it has all that it needs
            target = _part(folder, number, tag)
            os.replace(file, target)
            for older in folder.glob(f"{number:05d}-*"):
                if older != target:
                    older.unlink()
    return tag


def complete(
    store: Store,
    upload: PartUpload,
    named: Sequence[tuple[int, str]],
    settle: Callable[[Path], None],
    limit_bytes: int,
) -> None:
    """Lay the parts together and hand the file over. What fails leaves the parts, so that it can be tried again.

    Args:
        named: Number and tag of each part, in any order.
        settle: Takes the file, and keeps it as an artifact.
        limit_bytes: Of the whole file.

    Raises:
        BadInput: A part is missing, named twice, or not the one that was sent.
        TooLarge: The whole is over the limit.
        NotFound: The upload was given up meanwhile.
    """
    with _held(store, upload.id) as folder:
        if _about(folder, upload.id).done:
            return
        parts = [_sent(folder, upload, number, tag) for number, tag in sorted(named)]
        _refuse_gaps(upload, [number for number, _ in named])
        size = sum(part.stat().st_size for part in parts)
        if size > limit_bytes:
            raise TooLarge("the file is too large", found=f"{size} bytes", asked=f"{limit_bytes} bytes")
        whole = folder / _WHOLE
        try:
            with whole.open("wb") as target:
                for part in parts:
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, target, COPY_BYTES)
            settle(whole)
        finally:
            whole.unlink(missing_ok=True)
        _write_about(folder, replace(upload, done=True))
        for part in folder.glob("[0-9]*-*"):
            part.unlink()


def abort(store: Store, upload: PartUpload) -> None:
    """Give an upload up; what it had completed stays."""
    with contextlib.suppress(NotFound), _held(store, upload.id) as folder:
        _remove(folder)


def sweep(store: Store, *, remove: bool = True) -> dict[str, int]:
    """Uploads whose time is over, by id with their bytes; removed unless somebody is about to complete one."""
    found: dict[str, int] = {}
    for folder in (store.folder / FOLDER).glob("*"):
        if folder.name.startswith(_GONE):  # a server was killed while it removed it
            if remove:
                shutil.rmtree(folder, ignore_errors=True)
            continue
        upload = _read_about(folder)
        expires = upload.expires if upload is not None else _begun(folder, store) + LIFE
        if expires > store.clock.wall():
            continue
        with contextlib.suppress(NotFound, BlockingIOError), _held(store, folder.name, wait=False):
            found[folder.name] = sum(one.stat().st_size for one in folder.iterdir())
            if remove:
                _remove(folder)
    return found


def _folder(store: Store, id: str) -> Path:
    return store.folder / FOLDER / id


def _part(folder: Path, number: int, tag: str) -> Path:
    return folder / f"{number:05d}-{tag.removeprefix('b3:')}"


def _sent(folder: Path, upload: PartUpload, number: int, tag: str) -> Path:
    """The file of a part that completing names."""
    sent = list(folder.glob(f"{number:05d}-*")) if 1 <= number <= upload.parts else []
    if not sent:
        raise BadInput("a part was never sent", subject=upload.id, found=f"part {number}")
    if _part(folder, number, tag) not in sent:
        raise BadInput(
            f"part {number} is not the one that was sent", subject=upload.id, found=tag[:100],
            asked=f"b3:{sent[0].name[6:]}", next_step="Send the part again, and name the ETag of that answer.",
        )  # fmt: skip
    return _part(folder, number, tag)


def _refuse_gaps(upload: PartUpload, numbers: Sequence[int]) -> None:
    if len(set(numbers)) < len(numbers):
        raise BadInput("a part is named twice", subject=upload.id)
    missing = sorted(set(range(1, upload.parts + 1)) - set(numbers))
    if missing:
        raise BadInput(
            "parts are missing", subject=upload.id, found=", ".join(map(str, missing[:10])),
            asked=f"1 to {upload.parts}",
        )  # fmt: skip


@contextlib.contextmanager
def _held(store: Store, id: str, *, wait: bool = True) -> Iterator[Path]:
    """The folder of an upload, which nobody else changes meanwhile."""
    folder = _folder(store, id)
    try:
        file = (folder / _LOCK).open("a")
    except FileNotFoundError:
        raise _gone(id) from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder


def _about(folder: Path, id: str) -> PartUpload:
    """What is written of an upload now, while it is held."""
    upload = _read_about(folder)
    if upload is None:
        raise _gone(id)
    return upload


def _read_about(folder: Path) -> PartUpload | None:
    try:
        return msgspec.json.decode((folder / _ABOUT).read_bytes(), type=PartUpload)
    except FileNotFoundError:
        return None


def _write_about(folder: Path, upload: PartUpload) -> None:
    aside = folder / f"{_ABOUT}.new"
    aside.write_bytes(msgspec.json.encode(upload))
    os.replace(aside, folder / _ABOUT)


def _begun(folder: Path, store: Store) -> datetime:
    """When a folder without a description was made: its server was killed in that moment."""
    try:
        return datetime.fromtimestamp(folder.stat().st_mtime, store.clock.wall().tzinfo)
    except FileNotFoundError:
        return store.clock.wall()


def _remove(folder: Path) -> None:
    """In one step as others see it."""
    aside = folder.with_name(_GONE + folder.name)
    os.rename(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)


def _gone(id: str) -> NotFound:
    return NotFound("there is no such upload", subject=id[:40], next_step="Begin again: uploads are kept for a day.")
