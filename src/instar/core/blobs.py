"""Blobs, as a port: immutable bytes under the digest of their content, for manifests, bundles, profiles and reports."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Protocol


class Blobs(Protocol):
    """A content store. Putting what is there already is free and renews its grace."""

    def put(self, data: bytes) -> str:
        """Keep `data`; returns its digest, `b3:` and 64 hexadecimal letters."""

    def put_file(self, path: Path) -> str:
        """Keep a file's content, without reading it whole into memory; returns its digest."""

    def adopt(self, path: Path) -> str:
        """Keep a file's content by taking the file: it is gone from `path`, and nobody may write to it any more.

        Costs no second copy where the file lies on the store's own file system.
        """

    def get(self, digest: str) -> bytes:
        """The content.

        Raises:
            NotFound: Nothing is kept under `digest`.
            Damaged: What is kept does not have that digest.
        """

    def path(self, digest: str) -> Path:
        """A local file with the content, to read only.

        Raises:
            NotFound: Nothing is kept under `digest`.
        """

    def has(self, digest: str) -> bool:
        """Is it kept?"""

    def renew(self, digest: str) -> bool:
        """As if it were put again, without its bytes: renews its grace; False when it is not kept."""

    def put_at(self, digest: str) -> datetime | None:
        """When it was put, or renewed, last; None when it is not kept."""

    def collect(self, digest: str, before: datetime) -> int | None:
        """Forget it, unless it was put, or renewed, at or after a moment; no put can come between the look and the deed.

        Returns:
            Its size in bytes; None when it stays, or was not there.
        """

    def leftovers(self, before: datetime, *, remove: bool) -> dict[str, int]:
        """Bytes of what writers who were killed before a moment left half written, by name; removed if asked."""

    def delete(self, digest: str) -> None:
        """Forget it; nothing happens when it is not there."""

    def digests(self) -> Iterator[str]:
        """All that is kept, in no order."""
