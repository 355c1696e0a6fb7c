"""Audits: prove that nothing on the record was edited, whenever an auditor asks.

`verify` walks what must hold together: the journal's chain; the records of decisions against the entries that announced
them; the blobs that those records name; and the sealed segments of the prediction log against the roots that the journal
holds. It reads everything and changes nothing. Without a head kept elsewhere a chain that was rewritten from its first
entry would hold, too: hence "consistent, not anchored".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from instar.core import ids, journal
from instar.core.database import Transaction
from instar.core.errors import BadInput, Damaged, NotFound
from instar.core.journal import Entry
from instar.core.store import Store
from instar.data.versions import table_version
from instar.evaluate.evaluation import evaluation_table
from instar.operate import anchoring
from instar.operate.anchoring import Anchor
from instar.release.approval import approval_table
from instar.release.registry import version_table
from instar.serve.log import catalogue, verification
from instar.serve.traffic.routing import policy_revision
from instar.train import bundle

SHOWN_FAULTS = 20

# Kind of entry -> the table of its subject, and which of its columns the body repeats under which name.
ANNOUNCED: dict[str, tuple[sa.Table, Mapping[str, str]]] = {
    "policy revision": (policy_revision, {"policy": "policy", "bundles": "bundles"}),
    "table version": (table_version, {"content": "content", "state": "state", "rows": "rows", "table": "table"}),
    "model version": (version_table, {"bundle": "bundle", "origin": "origin", "refit_of": "refit_of"}),
    "approval asked": (approval_table, {"bundle": "bundle", "evidence": "evidence"}),
    "approval": (approval_table, {"bundle": "bundle", "evidence": "evidence", "approved_by": "approved_by"}),
    "evaluation": (evaluation_table, {"bundle": "bundle", "report": "report_json", "verdict": "state"}),
}
# Bodies whose values under these names are digests of blobs.
BLOBS = ("state", "bundle", "report", "evidence")


@dataclass(frozen=True)
class Check:
    """One thing that must hold: how many were looked at, and the first faults found."""

    name: str
    looked_at: int
    faults: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return not self.faults


@dataclass(frozen=True)
class Audit:
    """What an audit of one project found; `head` is the digest that an anchor keeps elsewhere, `anchored` how far some reach."""

    project: str
    head: str
    entries: int
    checks: tuple[Check, ...]
    anchored: str = "not anchored"

    @property
    def consistent(self) -> bool:
        return all(check.holds for check in self.checks)

    @property
    def words(self) -> str:
        return f"consistent, {self.anchored}" if self.consistent else "NOT consistent"


def verify(
    store: Store,
    project: str,
    *,
    since: datetime | None = None,
    sample: float = 1.0,
    progress: verification.Progress | None = None,
    anchors: Sequence[Anchor] | None = None,
    public_key: Path | None = None,
) -> Audit:
    """Audit one project.

    Args:
        since: Of sealed calls, open only files with an event time from then on.
        sample: Of these files, open only this share, drawn anew each time.
        progress: Called with how many predictions were looked at, and of how many.
        anchors: Heads that were kept elsewhere: the chain has to lead through them.
        public_key: Who has to have signed each of them.
    """
    if not 0 <= sample <= 1:
        raise BadInput("that is no share", found=sample, asked="0 to 1")
    with store.database.read() as tx:
        chain = journal.verify(tx, project)
        entries = journal.entries(tx, project)
        broken = () if chain.consistent else (f"entry {chain.broken_at}: {chain.reason}",)
        checks = [Check("journal chain", chain.entries, broken), _records(tx, project, entries)]
    checks += [_blobs(store, entries), _segments(store, project, since, sample, progress)]
    if anchors is None:
        return Audit(project, chain.head, chain.entries, tuple(checks))
    own = [one for one in anchors if one.project == project]
    checks.append(
        Check("anchors", len(own), tuple(anchoring.check(store, project, anchors, public_key)[:SHOWN_FAULTS]))
    )
    signed = ", signed" if public_key is not None else ", signatures not looked at"
    reach = max((one.number for one in own), default=0)
    return Audit(project, chain.head, chain.entries, tuple(checks), f"anchored up to entry {reach}{signed}")


def _records(tx: Transaction, project: str, entries: Sequence[Entry]) -> Check:
    announced = {entry.subject: entry for entry in entries if entry.kind in ANNOUNCED}
    faults: list[str] = []
    rows: dict[str, sa.Row[Any]] = {}
    for table in dict.fromkeys(table for table, _ in ANNOUNCED.values()):
        found = tx.execute(sa.select(table).where(table.c.project == project))
        rows |= {row.id: row for row in found}
    for name, entry in announced.items():
        faults += _differences(entry, rows.get(name), ANNOUNCED[entry.kind][1])
    faults += [f"{name}: no entry of the journal announced it" for name in rows if name not in announced]
    return Check("records against the journal", len(announced), tuple(faults[:SHOWN_FAULTS]))


def _differences(entry: Entry, row: sa.Row[Any] | None, columns: Mapping[str, str]) -> Iterator[str]:
    name = f"{entry.kind} {entry.subject}"
    if row is None:
        yield f"{name}: the record is gone"
        return
    for said, column in columns.items():
        if said in entry.body and entry.body[said] != row._mapping[column]:
            yield f"{name}: {column} is {row._mapping[column]!r}, the journal says {entry.body[said]!r}"


def _blobs(store: Store, entries: Sequence[Entry]) -> Check:
    named: dict[str, str] = {}
    bundles: set[str] = set()
    for entry in entries:
        for name in BLOBS if entry.kind in ANNOUNCED else ():
            digest = str(entry.body.get(name, ""))
            if digest.startswith("b3:"):
                named[digest] = f"{entry.kind} {entry.subject}"
                bundles |= {digest} if name == "bundle" else set()
    faults = []
    for digest, owner in named.items():
        try:
            data = store.blobs.get(digest)
            if digest in bundles:
                faults += [f"{fault} of {owner}" for fault in _parts(store, bundle.decode(data, owner))]
        except (NotFound, Damaged) as error:
            faults.append(f"blob {digest[:15]}… of {owner}: {error.what}")
    return Check("blobs that the journal names", len(named), tuple(faults[:SHOWN_FAULTS]))


def _parts(store: Store, manifest: bundle.Manifest) -> Iterator[str]:
    """Files of a bundle that are gone, or are not what its manifest says."""
    for part, digest in bundle.parts(manifest).items():
        if not store.blobs.has(digest):
            yield f"{part} ({digest[:15]}…) is missing"
        elif ids.digest_of_file(store.blobs.path(digest)) != digest:  # not read whole: a model may be large
            yield f"{part} ({digest[:15]}…) was changed"


def _segments(
    store: Store, project: str, since: datetime | None, sample: float, progress: verification.Progress | None
) -> Check:
    found = verification.verify(store, project=project, since=since, sample=sample, progress=progress)
    sealed = [one for one in catalogue.segments(store).values() if one.project == project]
    faults = tuple(f"segment {fault.segment}: {fault.reason}" for fault in found[:SHOWN_FAULTS])
    whole = since is None and sample == 1
    name = "sealed segments of the prediction log" + ("" if whole else ", opened in part")
    return Check(name, len(sealed), faults)
