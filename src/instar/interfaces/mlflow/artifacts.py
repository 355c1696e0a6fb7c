"""Artifacts over MLflow's protocol: listed, read, written and deleted through the server, while a run or a model is logged.

Files stream in and out, so that their size costs no memory. An uploaded file that would run code when it is loaded is kept
like any other, and flagged.
"""

from __future__ import annotations

import mimetypes
from pathlib import Path

from instar.core.errors import BadInput, NotFound
from instar.core.identity import Permission
from instar.interfaces.api.routes import Reply
from instar.interfaces.mlflow import bundle_files, places
from instar.interfaces.mlflow.errors import invalid
from instar.interfaces.mlflow.frame import Call, Message, Operation, required
from instar.interfaces.mlflow.messages import OfRun
from instar.interfaces.mlflow.places import SCHEME, Place
from instar.interfaces.mlflow.runs import find
from instar.release import scan_files
from instar.train import artifacts
from instar.train.artifacts import Entry
from instar.train.run_fields import artifact_uri


class FileInfo(Message):
    path: str
    is_dir: bool
    file_size: int | None = None


class ListFiles(Message):
    path: str | None = None


class ListOfRun(OfRun):
    path: str | None = None
    page_token: str | None = None


class Files(Message):
    files: list[FileInfo]
    root_uri: str | None = None


def list_files(call: Call, asked: ListFiles) -> Files:
    """Files and folders directly under a path of the proxy; their paths are relative to it."""
    if not (asked.path or "").strip("/"):
        raise invalid("The root of all artifacts is not listed: name an experiment's run or model.")
    place = places.parse(asked.path or "")
    found = entries(call, place)
    return Files(files=[_info(one, one.path.rsplit("/", 1)[-1]) for one in found])


def list_of_run(call: Call, asked: ListOfRun) -> Files:
    """Files and folders directly under a path of a run; their paths are relative to the run."""
    run = find(call, asked)
    path = places.safe_path((asked.path or "").strip("/"))
    found = artifacts.list_artifacts(call.store, run.id, path)
    return Files(root_uri=artifact_uri(run.experiment_id, run.id), files=[_info(one, one.path) for one in found])


def download(call: Call, asked: None) -> Reply:
    """A file, as a stream."""
    return send(call, places.parse(call.path["path"]))


def upload(call: Call, asked: None) -> dict[str, str]:
    """Keep a file under a path; what was there before is replaced."""
    place = file_place(call, call.path["path"])
    keep(call, place, call.request.upload)
    return {}


def remove(call: Call, asked: None) -> dict[str, str]:
    """Delete a file, or a folder with all in it."""
    place = places.parse(call.path["path"])
    places.require(call, place, write=True)
    if not place.path:
        for one in artifacts.list_artifacts(call.store, place.owner):
            artifacts.delete(call.store, place.owner, one.path)
    else:
        artifacts.delete(call.store, place.owner, place.path)
    return {}


class GetFile(OfRun):
    path: str | None = None


def file_of_run(call: Call, asked: GetFile) -> Reply:
    """A file of a run, as a stream."""
    run = find(call, asked)
    path = places.safe_path(required(asked.path, "path").strip("/"))
    return send(
        call,
        Place(artifact_uri(run.experiment_id, run.id).removeprefix(SCHEME), run=run.id, path=path),
        attachment=True,
    )


def upload_to_run(call: Call, asked: None) -> dict[str, str]:
    """Keep a file of a run, named by the query as MLflow's console does it."""
    query = call.request.query
    run = find(call, OfRun(run_id=query.get("run_id"), run_uuid=query.get("run_uuid")))
    path = places.safe_path(required(query.get("path"), "path").strip("/"))
    place = Place(artifact_uri(run.experiment_id, run.id).removeprefix(SCHEME), run=run.id, path=path)
    places.require(call, place, write=True)
    keep(call, place, call.request.upload)
    return {}


def file_place(call: Call, address: str) -> Place:
    """The place of a file that is to be written.

    Raises:
        Refusal: It is a folder, leads elsewhere, or its owner takes no files.
    """
    place = places.parse(address)
    if not place.path:
        raise invalid(f"Invalid path: {address[:200]!r} names a folder; a file is uploaded under its own name.")
    places.require(call, place, write=True)
    return place


def keep(call: Call, place: Place, file: Path | None) -> None:
    """Inspect an uploaded file and take it as the file of a place."""
    if file is None:
        raise BadInput("the upload has no body", subject=place.path)
    found = scan_files.inspect_file(file, place.path)
    scan_files.note(call.store, artifacts.log_artifact(call.store, place.owner, place.path, file, take=True), found)


def entries(call: Call, place: Place) -> list[Entry]:
    """Files and folders directly under a place."""
    places.require(call, place)
    if place.bundle:
        return bundle_files.entries(call.store, place.bundle, place.path)
    return artifacts.list_artifacts(call.store, place.owner, place.path)


def send(call: Call, place: Place, *, attachment: bool = False) -> Reply:
    """The reply that streams a place's file.

    Raises:
        NotFound: There is none.
    """
    places.require(call, place)
    if not place.path:
        raise NotFound("that is a folder", subject=place.root, next_step="List it, and ask for one of its files.")
    if place.bundle:
        return bundle_files.send(call.store, place.bundle, place.path, _headers(place.path, attachment))
    return reply(artifacts.open(call.store, place.owner, place.path), place.path, attachment=attachment)


def reply(file: Path, path: str, *, attachment: bool = False) -> Reply:
    """The reply that streams a file which somebody uploaded under a path."""
    media = mimetypes.guess_type(path)[0] or "application/octet-stream"
    return Reply(file=file, media_type=media, headers=_headers(path, attachment))


def _headers(path: str, attachment: bool) -> dict[str, str]:
    as_file = attachment or mimetypes.guess_type(path)[0] in (None, "text/html", "image/svg+xml")
    return {
        "x-content-type-options": "nosniff",
        # A page that somebody uploaded must not act as this server's own in a browser.
        "content-security-policy": "sandbox; default-src 'none'",
        "content-disposition": "attachment" if as_file else "inline",
    }


def _info(entry: Entry, path: str) -> FileInfo:
    return FileInfo(path=path, is_dir=entry.is_folder, file_size=None if entry.is_folder else entry.size)


_PROXY = "mlflow-artifacts"
operations = [
    Operation("GET", "artifacts", Permission.READ, list_files, ListFiles, root=_PROXY),
    Operation("GET", "artifacts/{path:path}", Permission.READ, download, root=_PROXY),
    Operation("PUT", "artifacts/{path:path}", Permission.TRAIN, upload, root=_PROXY, upload=True),
    Operation("DELETE", "artifacts/{path:path}", Permission.TRAIN, remove, root=_PROXY),
    Operation("GET", "artifacts/list", Permission.READ, list_of_run, ListOfRun),
    Operation("GET", "get-artifact", Permission.READ, file_of_run, GetFile),
    Operation("GET", "get-artifact", Permission.READ, file_of_run, GetFile, root=""),
    Operation("POST", "upload-artifact", Permission.TRAIN, upload_to_run, upload=True),
]
