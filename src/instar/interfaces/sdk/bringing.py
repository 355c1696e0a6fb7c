"""A model that is here becomes a version on a server, when somebody brings it: a file as it is, a folder as an archive."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from instar.core import ids
from instar.core.errors import BadInput
from instar.interfaces.sdk.connection import Connection
from instar.interfaces.wire import error_of

SECONDS = 900.0  # for an upload, and for what the server finds out of it
BLOCK_BYTES = 1024 * 1024


class Bringing(Connection):
    """The part of a client that brings models."""

    def import_model(
        self,
        path: str | Path,
        name: str,
        *,
        form: str | None = None,
        batch: str = "auto",
        personal: Sequence[str] = (),
        limits: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Bring a model's file, or the folder of a program or a class, as a version of model `name`.

        Args:
            path: An ONNX graph, trees of XGBoost or LightGBM, or a folder with `model.toml`.
            form, batch, personal: Of a file, as `instar models import` has them.
            limits: What a call may send for an input, as in `"distance=0..10000"` or `"carrier=AA,UA"`.

        Returns:
            `version`, `bundle`, `form`, `tensors` or `columns`, and why calls are answered one by one.

        Raises:
            NotAllowed: The caller may not release in the project.
            BadInput, Blocked, UnsafeModel: The server refuses the model, and says why.
        """
        given = Path(path)
        if not given.exists():
            raise BadInput("there is no such file or folder", subject=str(given))
        query: dict[str, Any] = {"form": form, "personal": list(personal), "limit": list(limits)}
        query |= {"batch": batch if batch != "auto" else None}
        if given.is_file():
            return self._bring(given, name, {**query, "file": given.name}, "application/octet-stream")
        with tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch) / "model.zip"
            pack(given, archive)
            return self._bring(archive, name, query, "application/zip")

    def _bring(self, file: Path, name: str, query: dict[str, Any], media: str) -> dict[str, Any]:
        asked = {key: value for key, value in query.items() if value} | {"digest": ids.digest_of_file(file)}
        path = f"/api/projects/{quote(self.project, safe='')}/models/{quote(name, safe='')}/versions"
        headers = {"content-type": media, "content-length": str(file.stat().st_size), "accept": "application/json"}
        with self._reached(), file.open("rb") as content:
            blocks = iter(lambda: content.read(BLOCK_BYTES), b"")
            reply = self._http.post(path, params=asked, headers=headers, content=blocks, timeout=SECONDS)
        if reply.status_code >= 400:
            raise error_of(reply.status_code, reply.content)
        return dict(msgspec.json.decode(reply.content))


def pack(folder: Path, archive: Path) -> None:
    """A folder's files as a zip archive: all but hidden ones, and what Python keeps of compiling.

    Raises:
        BadInput: The folder holds a link, or something that is no plain file.
    """
    # Not compressed: weights hardly shrink, and what unpacks to far more than it is would be refused.
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED, strict_timestamps=False) as packed:
        for file in _files(folder):
            packed.write(file, file.relative_to(folder).as_posix())


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(one for one in folders if not one.startswith(".") and one != "__pycache__")
        for name in sorted(one for one in names if not one.startswith(".")):
            file = Path(root) / name
            if file.is_symlink() or not file.is_file():
                raise BadInput("a link, or no plain file, cannot be kept", subject=str(file))
            yield file
