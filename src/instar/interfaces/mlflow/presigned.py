"""Signed addresses over MLflow's protocol: of one content, to read in ranges from several threads, and of one file to write.

A client asks for one to download a large file with `MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD=true`. The address names the content,
not the path: all ranges are of one file, even when another one takes its place meanwhile.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from instar.core.errors import NotFound
from instar.core.identity import Permission
from instar.interfaces.api.routes import Reply
from instar.interfaces.mlflow import artifacts, bundle_files, places, signed
from instar.interfaces.mlflow.errors import invalid
from instar.interfaces.mlflow.frame import Call, Message, Operation, required
from instar.interfaces.mlflow.messages import Int64
from instar.interfaces.mlflow.places import Place, model_root
from instar.train import artifacts as files
from instar.train import logged_models
from instar.train.run_fields import artifact_uri

DOWNLOAD_SECONDS, UPLOAD_SECONDS = 300, 900  # MLflow's own
LONGEST_SECONDS = 7 * 86_400


class OfFile(Message):
    """Names a file of a run or a logged model, and how many seconds the address is to hold."""

    run_id: str | None = None
    model_id: str | None = None
    path: str | None = None
    expiration: Int64 | None = None


def for_client(call: Call, asked: None) -> dict[str, Any]:
    """A signed address of a file, with its size, for a client that reads it in ranges."""
    place = places.parse(call.path["path"])
    blob, size = _content(call, place)
    if not blob:  # without a size, a client reads in one stream
        return {"url": signed.root(call) + f"artifacts/{quote(_whole(place))}", "headers": {}}
    return {"url": _to_read(call, place, blob, _until(call, None, DOWNLOAD_SECONDS)), "headers": {}, "file_size": size}


def to_read(call: Call, asked: OfFile) -> dict[str, Any]:
    """A signed address of a run's file, to read it."""
    run = places.run_of(call, required(asked.run_id, "run_id"))
    place = places.parse(f"{artifact_uri(run.experiment_id, run.id).removeprefix(places.SCHEME)}/{_path(asked)}")
    until = _until(call, asked.expiration, DOWNLOAD_SECONDS)
    blob, size = _content(call, place)
    return {"presigned_url": _to_read(call, place, blob, until), "headers": {}, "file_size": size}


def to_write(call: Call, asked: OfFile) -> dict[str, Any]:
    """A signed address to which a file of a run or of a logged model is put."""
    if bool(asked.run_id) == bool(asked.model_id):
        raise invalid("Exactly one of run_id and model_id must be provided.")
    if asked.run_id:
        run = places.run_of(call, asked.run_id)
        root = artifact_uri(run.experiment_id, run.id).removeprefix(places.SCHEME)
    else:
        model = logged_models.get(call.store, asked.model_id or "", project=call.project)
        root = model_root(model.experiment, model.id)
    path = f"{root}/{_path(asked)}"
    artifacts.file_place(call, path)
    until = _until(call, asked.expiration, UPLOAD_SECONDS)
    address = signed.address(call, f"signed/{path}", "write", call.project, path, until=until)
    return {"presigned_url": address, "headers": {}}


def is_readable(call: Call) -> None:
    """Raises Refusal unless the address of a content proves itself."""
    path, blob = call.path["path"], call.request.query.get("blob", "")
    signed.prove(call.store, call.request.query, "read", call.project, path, blob)


def is_writable(call: Call) -> None:
    """Raises Refusal unless the address of a file to write proves itself."""
    signed.prove(call.store, call.request.query, "write", call.project, call.path["path"])


def read(call: Call, asked: None) -> Reply:
    """The content of a signed address, whole or the range that is asked for."""
    path, blob = call.path["path"], call.request.query.get("blob", "")
    return artifacts.reply(call.store.blobs.path(blob), path, attachment=True)


def write(call: Call, asked: None) -> dict[str, str]:
    """Keep the file that is put to a signed address."""
    path = call.path["path"]
    artifacts.keep(call, artifacts.file_place(call, path), call.request.upload)
    return {}


def _content(call: Call, place: Place) -> tuple[str, int]:
    """Blob and size of a file; without a blob it is a small text, made when somebody asks.

    Raises:
        NotFound: There is no such file.
    """
    places.require(call, place)
    if not place.path:
        raise NotFound("that is a folder", subject=place.root, next_step="List it, and ask for one of its files.")
    if place.bundle:
        blob = bundle_files.blob_of(call.store, place.bundle, place.path) or ""
        return blob, call.store.blobs.path(blob).stat().st_size if blob else 0
    found = files.find(call.store, place.owner, place.path)
    return found.blob or "", found.size or 0


def _to_read(call: Call, place: Place, blob: str, until: datetime) -> str:
    path = _whole(place)
    return signed.address(call, f"signed/{path}", "read", call.project, path, blob, until=until, blob=blob)


def _whole(place: Place) -> str:
    return f"{place.root}/{place.path}"


def _until(call: Call, seconds: int | None, default: int) -> datetime:
    seconds = default if seconds is None else seconds
    if not 1 <= seconds <= LONGEST_SECONDS:
        raise invalid(f"expiration must be between 1 and {LONGEST_SECONDS} seconds (got {seconds}).")
    return call.store.clock.wall() + timedelta(seconds=seconds)


def _path(asked: OfFile) -> str:
    return places.safe_path(required(asked.path, "path").strip("/"))


_PROXY = "mlflow-artifacts"
# A signed address proves itself, and only who may read or write the file is given one.
operations = [
    Operation("GET", "presigned/{path:path}", Permission.READ, for_client, root=_PROXY),
    Operation("POST", "artifacts/presigned-download-url", Permission.READ, to_read, OfFile),
    Operation("POST", "artifacts/presigned-upload-url", Permission.TRAIN, to_write, OfFile),
    Operation("GET", "signed/{path:path}", Permission.PUBLIC, read, root=_PROXY, proof=is_readable),
    Operation("PUT", "signed/{path:path}", Permission.PUBLIC, write, root=_PROXY, upload=True, proof=is_writable),
]
