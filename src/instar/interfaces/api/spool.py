"""The intake of spools over HTTP: what a training process recorded while it could, in one request a batch."""

from __future__ import annotations

import msgspec

from instar.core.errors import BadInput, MalformedRequest
from instar.core.identity import Permission
from instar.interfaces.api.routes import Reply, Request, Route
from instar.release import packing
from instar.train import intake
from instar.train.delivery import Batch


class Frames(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST …/spool`, as MessagePack: frames of one writer of a run (see `train/spool_records.py`)."""

    writer: str
    first: int
    frames: list[bytes]
    place: str = ""
    gone: bool = False
    last: bool = False


_decoder = msgspec.msgpack.Decoder(Frames)


def take_frames(request: Request) -> Reply:
    """Apply those frames of a run's spool that are new; says how many of its writer are applied."""
    try:
        body = _decoder.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedRequest(
            "the body cannot be read", found=str(error), asked="MessagePack as documented"
        ) from error
    if body.first < 0 or not body.writer or len(body.writer) > 40 or not body.writer.isprintable():
        raise MalformedRequest("that is no writer's batch", found=f"{body.writer[:40]!r} from {body.first}")
    place = body.place[:1000].replace("\0", "")
    batch = Batch(
        request.path["project"], request.path["run"], body.writer, body.first, body.frames, place, body.gone, body.last
    )
    return Reply({"applied": intake.apply(request.app.store, batch, packing.close, bound=True)})


def take_blob(request: Request) -> Reply:
    """Keep the content of an artifact under its digest, before a frame names it."""
    assert request.upload is not None
    digest = request.app.store.blobs.put_file(request.upload)
    if digest != request.path["digest"]:
        raise BadInput(
            "the content is not what its digest says", found=digest, asked=request.path["digest"],
            next_step="Send it again: it may have been cut off.",
        )  # fmt: skip
    return Reply({"digest": digest})


routes = [
    Route("POST", "/api/projects/{project}/runs/{run}/spool", Permission.TRAIN, take_frames),
    Route("PUT", "/api/projects/{project}/runs/{run}/blobs/{digest}", Permission.TRAIN, take_blob, upload=True),
]
