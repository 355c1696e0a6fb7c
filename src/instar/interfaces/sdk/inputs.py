"""What a run says that it reads: a table version by its name, or something outside the store with a digest of its content."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from instar.core.errors import BadInput
from instar.train.spool_records import Input

TABLE = "instar"
_VERSION = re.compile(r"(?:[^\s/@]+@\d+|tver_[0-9A-HJKMNP-TV-Z]{26})\Z")


def input_of(data: Any, *, name: str = "", context: str = "") -> Input:
    """The record of an input.

    Args:
        data: `"features@3"` or a version's id, the path of a file, an address, or a frame of Polars or pandas.
        name: What it is called, for files, addresses and frames.
        context: What it is for.

    Raises:
        BadInput: It is none of these.
    """
    if isinstance(data, Input):
        return data
    if isinstance(data, str) and _VERSION.fullmatch(data):
        return Input(data, source_type=TABLE, context=context)
    if isinstance(data, str) and "://" in data:
        from instar.core.ids import digest

        return Input(name or data.rsplit("/", 1)[-1], data, "url", digest(data.encode())[3:35], context)
    if isinstance(data, str | Path) and Path(data).is_file():
        return _file(Path(data), name, context)
    if hasattr(data, "columns") and hasattr(data, "shape"):
        return _frame(data, name, context)
    raise BadInput(
        "that is no input", found=repr(data)[:100],
        asked="a table version such as features@3, a file, an address, or a frame",
    )  # fmt: skip


def _file(path: Path, name: str, context: str) -> Input:
    from blake3 import blake3

    found = blake3().update_mmap(path).hexdigest()
    profile = json.dumps({"bytes": path.stat().st_size})
    return Input(name or path.name, str(path.absolute()), "local", found[:32], context, profile=profile)


def _frame(data: Any, name: str, context: str) -> Input:
    """A frame in memory: its digest is of its values, so that equal frames are one data set."""
    from blake3 import blake3

    if hasattr(data, "collect_schema") and hasattr(data, "write_ipc"):  # Polars
        import io

        buffer = io.BytesIO()
        data.write_ipc(buffer, compression="uncompressed")
        content = buffer.getvalue()
        types = {str(column): str(kind) for column, kind in data.schema.items()}
    else:
        content = data.to_csv(index=False).encode()
        types = {str(column): str(kind) for column, kind in data.dtypes.items()}
    return Input(
        name or "frame", source_type="memory", digest=blake3(content).hexdigest()[:32], context=context,
        schema=json.dumps(types), profile=json.dumps({"rows": int(data.shape[0])}),
    )  # fmt: skip
