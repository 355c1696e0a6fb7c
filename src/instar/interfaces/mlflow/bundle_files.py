"""A bundle as a folder of files, as MLflow's clients load it: listed and sent, never written."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping

from instar.core.errors import NotFound
from instar.core.store import Store
from instar.interfaces.api.routes import Reply
from instar.train import mlmodel_writing
from instar.train.artifacts import Entry
from instar.train.bundle import MANIFEST_FILE, Manifest, encode, files, load_manifest


def entries(store: Store, digest: str, path: str) -> list[Entry]:
    """Files and folders directly under a path of a bundle, by name."""
    manifest = load_manifest(store.blobs, digest)
    sizes = {name: len(text) for name, text in _texts(manifest, digest).items()}
    prefix = f"{path}/" if path else ""
    found: dict[str, Entry] = {}
    for name, blob in {**_blobs(manifest), **dict.fromkeys(sizes, "")}.items():
        if name.startswith(prefix):
            first, *deeper = name[len(prefix) :].split("/", 1)
            full = prefix + first
            size = sizes[name] if name in sizes else store.blobs.path(blob).stat().st_size
            found[full] = Entry(full, True) if deeper else Entry(full, False, size, blob or None)
    return [found[name] for name in sorted(found)]


def send(store: Store, digest: str, path: str, headers: Mapping[str, str]) -> Reply:
    """The reply with one file of a bundle.

    Raises:
        NotFound: It has no such file.
    """
    manifest = load_manifest(store.blobs, digest)
    media = mimetypes.guess_type(path)[0] or "application/octet-stream"
    text = _texts(manifest, digest).get(path)
    if text is not None:
        return Reply(text, media_type=media, headers=headers)
    blob = _blobs(manifest).get(path)
    if blob is None:
        raise _absent(digest, path)
    return Reply(file=store.blobs.path(blob), media_type=media, headers=headers)


def blob_of(store: Store, digest: str, path: str) -> str | None:
    """The blob of one file of a bundle; None for a text that is made when somebody asks.

    Raises:
        NotFound: It has no such file.
    """
    manifest = load_manifest(store.blobs, digest)
    if path in _texts(manifest, digest):
        return None
    blob = _blobs(manifest).get(path)
    if blob is None:
        raise _absent(digest, path)
    return blob


def _absent(digest: str, path: str) -> NotFound:
    return NotFound("it has no such file", subject=f"bundle {digest}", found=path[:200])


def _blobs(manifest: Manifest) -> dict[str, str]:
    """Blobs by path: a logged model's folder as it came, or the files of a bundle of our own."""
    return manifest.folder.files if manifest.folder is not None else files(manifest)


def _texts(manifest: Manifest, digest: str) -> dict[str, bytes]:
    if manifest.folder is not None:
        return {}
    return {MANIFEST_FILE: encode(manifest), **mlmodel_writing.texts(manifest, digest)}
