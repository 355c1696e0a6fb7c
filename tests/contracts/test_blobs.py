"""The contract of the blobs port, over the folder and the memory fake."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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


class TestMemoryBlobs(BlobsContract):
    @pytest.fixture
    def blobs(self) -> Blobs:
        return MemoryBlobs()
