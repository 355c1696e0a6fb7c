"""Uploads in parts over MLflow's protocol: begun, sent part by part to signed addresses, completed or given up.

A client does so with `MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD=true` for files over a size. The parts come from many threads at
once, in any order, to the addresses that it was handed; the ETag of each answer is how completing names that part.
"""

from __future__ import annotations

import ntpath
import posixpath
from pathlib import Path
from typing import Any

from instar.core.errors import BadInput, NotFound
from instar.core.identity import Permission
from instar.core.settings import read_settings
from instar.interfaces.api.routes import Reply
from instar.interfaces.mlflow import artifacts, signed
from instar.interfaces.mlflow.errors import invalid
from instar.interfaces.mlflow.frame import Call, Message, Operation, required
from instar.interfaces.mlflow.messages import Int64
from instar.interfaces.mlflow.places import Place
from instar.train import part_uploads
from instar.train.part_uploads import PartUpload


class Create(Message):
    path: str | None = None  # of the file on the client's machine: its last part is the artifact's name
    num_parts: Int64 | None = None


class SentPart(Message):
    part_number: Int64 | None = None
    etag: str | None = None
    url: str | None = None


class OfUpload(Message):
    """Names an upload; completing it, its parts, too."""

    path: str | None = None
    upload_id: str | None = None
    parts: list[SentPart] | None = None


def create(call: Call, asked: Create) -> dict[str, Any]:
    """Begin an upload in parts; the answer has an address for each part."""
    place = _place(call, asked.path)
    count = 1 if asked.num_parts is None else asked.num_parts
    upload = part_uploads.begin(call.store, call.project, place.owner, place.path, count)
    parts = [
        {"url": _address(call, upload, number), "part_number": number, "headers": {}} for number in range(1, count + 1)
    ]
    return {"upload_id": upload.id, "credentials": parts}


def is_part(call: Call) -> None:
    """Raises Refusal unless the address of a part proves itself."""
    signed.prove(call.store, call.request.query, "part", call.path["upload"], call.path["number"])


def send_part(call: Call, asked: None) -> Reply:
    """One part of an upload, to an address that was handed out; the answer's ETag names it."""
    id, number = call.path["upload"], call.path["number"]
    if call.request.upload is None:
        raise BadInput("the part has no body", subject=f"part {number}")
    upload = part_uploads.get(call.store, id)
    tag = part_uploads.keep_part(call.store, upload, int(number), call.request.upload)
    return Reply({}, headers={"etag": f'"{tag}"'})


def complete(call: Call, asked: OfUpload) -> dict[str, str]:
    """Lay the parts of an upload together, as a file; asked again, nothing more happens."""
    place, upload = _upload(call, asked)
    named = [
        (_number(one, where), (one.etag or "").removeprefix("W/").strip('"'))
        for where, one in enumerate(asked.parts or ())
    ]

    def settle(file: Path) -> None:
        artifacts.keep(call, place, file)

    part_uploads.complete(call.store, upload, named, settle, read_settings().upload_limit_bytes)
    return {}


def abort(call: Call, asked: OfUpload) -> dict[str, str]:
    """Give an upload up; what is not there any more is no error."""
    try:
        _, upload = _upload(call, asked)
    except NotFound:
        return {}
    part_uploads.abort(call.store, upload)
    return {}


def _place(call: Call, local_path: str | None) -> Place:
    """Where the file of a client goes: under its own name in the folder that the address names."""
    path = required(local_path, "path")
    windows = "\\" in path and ("/" not in path or path[1:2] == ":")
    name = ntpath.basename(path) if windows else posixpath.basename(path)
    return artifacts.file_place(call, f"{call.path['path'].strip('/')}/{name}")


def _upload(call: Call, asked: OfUpload) -> tuple[Place, PartUpload]:
    place = _place(call, asked.path)
    upload = part_uploads.get(call.store, required(asked.upload_id, "upload_id"))
    if (upload.project, upload.owner, upload.path) != (call.project, place.owner, place.path):
        raise NotFound("there is no such upload of that file", subject=upload.id, found=place.path)
    return place, upload


def _address(call: Call, upload: PartUpload, number: int) -> str:
    return signed.address(call, f"mpu/parts/{upload.id}/{number}", "part", upload.id, number, until=upload.expires)


def _number(part: SentPart, where: int) -> int:
    if part.part_number is None:
        raise invalid(f"Missing value for required parameter 'parts[{where}].part_number'.")
    return part.part_number


_PROXY = "mlflow-artifacts"
operations = [
    Operation("POST", "mpu/create/{path:path}", Permission.TRAIN, create, Create, root=_PROXY),
    Operation(
        "PUT", "mpu/parts/{upload}/{number}", Permission.PUBLIC, send_part, root=_PROXY, upload=True, proof=is_part
    ),
    Operation("POST", "mpu/complete/{path:path}", Permission.TRAIN, complete, OfUpload, root=_PROXY),
    Operation("POST", "mpu/abort/{path:path}", Permission.TRAIN, abort, OfUpload, root=_PROXY),
]
