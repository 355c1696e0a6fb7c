"""The contract of the blobs port, over the folder and the memory fake."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instar.adapters import blobs_folder
from instar.adapters.blobs_folder import FolderBlobs
from instar.core.blobs import Blobs
from instar.core.errors import Damaged
from instar.testing import BlobsContract, MemoryBlobs


class TestFolderBlobs(BlobsContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> Blobs:
        return FolderBlobs(tmp_path / "blobs")

    def test_changed_content_is_noticed(self, blobs: Blobs) -> None:
        digest = blobs.put(b"as it was")
        file = blobs.path(digest)
        file.write_bytes(b"as it is not")
        with pytest.raises(Damaged):
            blobs.get(digest)

    def test_putting_again_renews_the_grace(self, blobs: Blobs) -> None:
        digest = blobs.put(b"kept")
        os.utime(blobs.path(digest), (1, 1))
        blobs.put(b"kept")
        assert blobs.path(digest).stat().st_mtime > 1

    def test_its_name_is_on_the_disk_when_it_is_put(
        self, blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[tuple[Path, list[str]]] = []

        def note(folder: Path) -> None:
            synced.append((folder, [file.name for file in folder.iterdir()]))

        monkeypatch.setattr(blobs_folder, "sync_folder", note)
        place = blobs.path(blobs.put(b"kept"))
        assert [folder for folder, _ in synced] == [place.parent, tmp_path / "blobs"]
        assert place.name in synced[0][1]
        assert place.parent.name in synced[1][1]


class TestMemoryBlobs(BlobsContract):
    @pytest.fixture
    def blobs(self) -> Blobs:
        return MemoryBlobs()
