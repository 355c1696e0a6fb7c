"""Models brought over HTTP: a file as it is, or a folder as a zip archive, becomes a version in one request."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import cast

from instar.core import ids
from instar.core.errors import BadInput, UnsafeModel
from instar.core.identity import Permission
from instar.core.limits import read_named
from instar.interfaces.api import bodies
from instar.interfaces.api.routes import Reply, Request, Route
from instar.release.archives import is_archive
from instar.release.brought import Terms, bring, bring_archive
from instar.serve.traffic.policy_check import check_name
from instar.train.file_bundle import SUFFIXES, Batch

ARCHIVE = "application/zip"


def bring_model(request: Request) -> Reply:
    """Bring a model as a version: the body is its file (`?file=model.onnx` names it), or a folder as `application/zip`.

    `?digest=` is that of the body. Of a file, `?form=`, `?batch=`, `?personal=` and `?limit=` are as in `instar models import`.
    """
    assert request.upload is not None
    project, name, query = request.path["project"], request.path["model"], request.query_lists
    check_name(name)
    _prove(request)
    terms = Terms(
        request.query.get("form"), cast(Batch, request.query.get("batch", "auto")), tuple(query.get("personal", ())),
        read_named(query.get("limit", ())),
    )  # fmt: skip
    store = request.app.store
    try:
        if request.headers.get("content-type", "").split(";")[0].strip().lower() == ARCHIVE:
            with request.upload.open("rb") as file:
                if not is_archive(file.read(4)):
                    raise UnsafeModel(
                        "that is no zip archive", subject=f"model {name}", asked="a folder as a zip archive"
                    )
            found = bring_archive(store, project, name, request.upload, terms)
        else:
            found = bring(store, project, name, request.upload, _with_form(terms, request.query.get("file", "")))
    except OSError as problem:
        if not bodies.is_full(problem):
            raise
        raise bodies.full(problem, "the model cannot be unpacked") from None
    return Reply(found.document(), status=201)


def _prove(request: Request) -> None:
    """Raises BadInput unless the body is what its digest says."""
    asked = request.query.get("digest", "")
    assert request.upload is not None
    found = ids.digest_of_file(request.upload)
    if found != asked:
        raise BadInput(
            "the content is not what its digest says" if asked else "the digest of the content is not given",
            subject="?digest=", found=found, asked=asked or "BLAKE3 of the body, as in b3:…",
            next_step="Send it again: it may have been cut off." if asked else "`instar models import --url` sends it.",
        )  # fmt: skip


def _with_form(terms: Terms, file: str) -> Terms:
    form = terms.form or SUFFIXES.get(PurePosixPath(file).suffix.lower())
    if form is None:
        raise BadInput("its name does not say what it is", subject="?file=", found=repr(file[:100]),
                       asked="?form=onnx, xgboost or lightgbm")  # fmt: skip
    return Terms(form, terms.batch, terms.personal, terms.limits)


routes = [
    Route("POST", "/api/projects/{project}/models/{model}/versions", Permission.RELEASE, bring_model, upload=True),
]
