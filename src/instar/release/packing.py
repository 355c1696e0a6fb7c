"""From uploaded files to a bundle on the record: when a logged model is ready, and when a version is registered from a path."""

from __future__ import annotations

from instar.core.store import Store
from instar.release import scan_files
from instar.train import artifacts, bundles, logged_models
from instar.train.bundle import load_manifest
from instar.train.folder_bundle import pack_folder
from instar.train.logged_models import READY, LoggedModel


def pack_logged(store: Store, model: LoggedModel) -> LoggedModel:
    """Close a logged model as ready, its folder packed; closing it again packs what is there now."""
    digest = pack_path(
        store, model.project, model.id, "", name=model.name, run=model.run, parameters=dict(model.parameters)
    )
    folder = load_manifest(store.blobs, digest).folder
    reason = folder.unservable if folder is not None else ""
    return logged_models.finalize(store, model.id, READY, bundle=digest, reason=reason)


def close(store: Store, model: str) -> None:
    """Close the logged model of that id as ready, its folder packed: what an intake of spools does with a model."""
    pack_logged(store, logged_models.get(store, model))


def pack_path(
    store: Store, project: str, owner: str, path: str, *, name: str, run: str, parameters: dict[str, str] | None = None
) -> str:
    """Pack the files of a run or a logged model under a path, and put the bundle on the record; returns its digest."""
    prefix = f"{path}/" if path else ""
    files = {
        one.path.removeprefix(prefix): one.blob
        for one in artifacts.all_artifacts(store, owner)
        if one.path.startswith(prefix) and one.blob is not None
    }
    digest = pack_folder(
        store,
        files,
        name=name,
        run=run or owner,
        parameters=parameters,
        inspect=lambda found, own: scan_files.inspect_folder(store, found, own),
    )
    manifest = load_manifest(store.blobs, digest)
    store.database.write(lambda tx: bundles.record(tx, store, project, digest, manifest, fit_key=digest), durable=True)
    return digest
