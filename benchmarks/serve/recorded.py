"""How many predictions of an endpoint are on the record, counted frame by frame: a benchmark makes more than is read as rows."""

from __future__ import annotations

from instar.core.store import Store
from instar.serve.log import calls, record, segments


def predictions(store: Store, endpoint: str) -> int:
    """Rows of all answered calls in segments that are not sealed."""
    folder, found = calls.calls_folder(store.folder), 0
    for name in segments.list_segments(folder, endpoint):
        for payload in segments.read(name.path(folder))[0]:
            entry = record.decode_entry(record.decode_frame(payload).metadata)
            if isinstance(entry, record.Call) and entry.work is not None:
                found += entry.work.rows
    return found
