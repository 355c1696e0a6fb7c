"""Calls that are only counted on the record, told when somebody looks: refused in overload, or while a disk failed.

Gateways write one entry for many such calls (`record.Skipped`). While its segment is open it is read from there; sealing puts
what a segment counted into the journal, as one entry, since the rows of a table have no place for what was no call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from instar.core import journal
from instar.core.database import Transaction
from instar.core.store import Store
from instar.serve.log.calls import CallLog
from instar.serve.log.record import Skipped
from instar.serve.log.segments import SegmentName

KIND = "calls not recorded one by one"


@dataclass(frozen=True)
class Counted:
    """Calls of an endpoint for which there is one number.

    Attributes:
        since, until: Wall times of the first and the last.
        answered: Were answered though nothing could be kept of them.
        refused: Heard an error and were not worked on.
        reason: Why, as the first of them heard it.
    """

    endpoint: str
    since: datetime
    until: datetime
    answered: int
    refused: int
    reason: str

    def __str__(self) -> str:
        counts = [
            f"{count:,} {what}" for count, what in ((self.refused, "refused"), (self.answered, "answered")) if count
        ]
        span = f"{self.since:%Y-%m-%d %H:%M:%S}Z to {self.until:%Y-%m-%d %H:%M:%S}Z"
        return f"calls of {self.endpoint} that are only counted: {' and '.join(counts)}, {span}: {self.reason}"


def put_on_record(tx: Transaction, store: Store, project: str, name: SegmentName, entries: Sequence[Skipped]) -> None:
    """Journal what a segment counted, once; nothing counted is said, too, where a segment goes without being sealed."""
    if journal.entries(tx, project, kind=KIND, subject=name.id):
        return
    counted = [
        {"since": one.since.isoformat(), "until": one.until.isoformat(), "answered": one.answered,
         "refused": one.refused, "reason": one.reason}
        for one in together(_of(name.endpoint, entry) for entry in entries)
    ]  # fmt: skip
    journal.append(
        tx, store.clock, store.actor, project, KIND, name.id, {"endpoint": name.endpoint, "counted": counted}
    )


def search(
    store: Store,
    log: CallLog,
    project: str,
    endpoint: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Counted]:
    """What was counted in [since, until), by endpoint and kind of reason; of one endpoint, if asked."""
    # Open segments first: what is sealed in between is then in the journal, too, and stands under the same segment.
    open_ones = {
        name.id: [_of(name.endpoint, entry) for entry in entries]
        for one in ([endpoint] if endpoint is not None else log.endpoints_of(project))
        for name, entries in log.skipped(one)
    }
    with store.database.read() as tx:
        sealed = journal.entries(tx, project, kind=KIND)
    found = [one for entry in sealed for one in _told(entry.body)]
    known = {entry.subject for entry in sealed}
    found += [one for name, counted in open_ones.items() if name not in known for one in counted]
    return together(
        one
        for one in found
        if endpoint in (None, one.endpoint)
        and (since is None or one.until >= since)
        and (until is None or one.since < until)
    )


def together(counted: Iterable[Counted]) -> list[Counted]:
    """Those of one endpoint and one kind of reason as one."""
    whole: dict[tuple[str, str], Counted] = {}
    for one in counted:
        kind = (one.endpoint, one.reason.partition(":")[0])
        known = whole.get(kind)
        whole[kind] = one if known is None else replace(
            known, since=min(known.since, one.since), until=max(known.until, one.until),
            answered=known.answered + one.answered, refused=known.refused + one.refused,
        )  # fmt: skip
    return list(whole.values())


def _of(endpoint: str, entry: Skipped) -> Counted:
    return Counted(endpoint, _moment(entry.since), _moment(entry.until), entry.answered, entry.refused, entry.reason)


def _told(body: dict[str, Any]) -> list[Counted]:
    return [
        Counted(
            body["endpoint"],
            datetime.fromisoformat(one["since"]),
            datetime.fromisoformat(one["until"]),
            one["answered"],
            one["refused"],
            one["reason"],
        )
        for one in body["counted"]
    ]


def _moment(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC)
