"""What a client asks about the server itself, before its first run: is it there, which version, what can it do."""

from __future__ import annotations

from typing import Any

from instar.core.identity import Permission
from instar.interfaces.api.routes import Reply
from instar.interfaces.mlflow.frame import Call, Operation

# The version of MLflow whose protocol is spoken: clients ask it before they use what is new.
PROTOCOL_VERSION = "3.17.2"


def health(call: Call, asked: None) -> Reply:
    """The server is there."""
    return Reply(b"OK", media_type="text/plain")


def version(call: Call, asked: None) -> Reply:
    """The version of MLflow whose protocol is spoken."""
    return Reply(PROTOCOL_VERSION.encode(), media_type="text/plain")


def server_info(call: Call, asked: None) -> dict[str, Any]:
    """What the server can do, in the words of clients of 3.x."""
    return {
        "store_type": "InstarStore",
        "workspaces_enabled": True,  # a workspace is a project
        "trace_archival_enabled": False,
        "multipart_uploads_enabled": False,
        "multipart_downloads_enabled": False,
        "presigned_upload_run_id_supported": False,
        "presigned_upload_model_id_supported": False,
        "features_enabled": {"gateway": False},
    }


operations = [
    Operation("GET", "health", Permission.READ, health, root=""),
    Operation("GET", "version", Permission.READ, version, root=""),
    Operation("GET", "server-info", Permission.READ, server_info),
    Operation("GET", "server-features", Permission.READ, server_info),
]
