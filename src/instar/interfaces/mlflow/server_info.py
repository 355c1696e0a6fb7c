"""What a client asks about the server itself, before its first run: is it there, which version, what can it do."""

from __future__ import annotations

from typing import Any

from instar.core import journal
from instar.core.identity import Permission
from instar.interfaces.api.routes import Bound, Reply
from instar.interfaces.mlflow.errors import Refusal
from instar.interfaces.mlflow.frame import Call, Operation
from instar.serve.protocol.forms.invocations import MLFLOW_VERSION


def health(call: Call, asked: None) -> Reply:
    """The server is there."""
    return Reply(b"OK", media_type="text/plain")


def version(call: Call, asked: None) -> Reply:
    """The version of MLflow whose protocol is spoken."""
    return Reply(MLFLOW_VERSION.encode(), media_type="text/plain")


def server_info(call: Call, asked: None) -> dict[str, Any]:
    """What the server can do, in the words of clients of 3.x."""
    return {
        "store_type": "InstarStore",
        "workspaces_enabled": True,  # a workspace is a project
        "trace_archival_enabled": False,
        # Both work for who asks for them, and one stream is faster: clients of 3.x take a yes for advice.
        "multipart_uploads_enabled": False,
        "multipart_downloads_enabled": False,
        "presigned_upload_run_id_supported": False,
        "presigned_upload_model_id_supported": False,
        "features_enabled": {"gateway": False},
    }


def workspaces(call: Call, asked: None) -> dict[str, Any]:
    """The projects of the store, which clients of 3.x call workspaces."""
    return {"workspaces": [{"name": name} for name in _projects(call)]}


def workspace(call: Call, asked: None) -> dict[str, Any]:
    """One project of the store."""
    name = call.path["workspace"]
    if name not in _projects(call):
        raise Refusal("RESOURCE_DOES_NOT_EXIST", f"Workspace '{name[:100]}' not found")
    return {"workspace": {"name": name}}


def _projects(call: Call) -> list[str]:
    with call.store.database.read() as tx:
        known = journal.projects(tx)
    caller = call.request.caller
    return sorted(name for name in {*known, call.request.app.project_name} if caller.may(Permission.READ, name))


operations = [
    Operation("GET", "health", Permission.PUBLIC, health, root=""),
    Operation("GET", "version", Permission.PUBLIC, version, root=""),
    Operation("GET", "server-info", Permission.KNOWN, server_info),
    Operation("GET", "server-features", Permission.KNOWN, server_info),
    Operation("GET", "workspaces", Permission.READ, workspaces, bound=Bound.SOMEWHERE),
    Operation("GET", "workspaces/{workspace}", Permission.READ, workspace, bound=Bound.SOMEWHERE),
]
