from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest
import sqlalchemy as sa

from instar.core.journal import journal_entry
from instar.core.store import Store
from instar.data.tables import write_version
from instar.data.versions import table_version
from instar.operate import promotion
from instar.operate.audit import Audit, verify
from instar.release.approval import approval_table
from instar.release.registry import ModelVersion
from instar.serve.log import verification
from instar.serve.traffic.routing import policy_revision
from instar.train.bundle import load_manifest, parts


@pytest.fixture
def record(store: Store, make_version: Callable[..., ModelVersion]) -> Store:
    write_version(store, "flights", "clean", "silver", pl.DataFrame({"a": [1, 2]}), key=["a"])
    version = make_version("one", approved=False)
    allow(store, version)
    promotion.promote(store, "flights", "delay", version, "the first", publish=lambda _store: None)
    return store


def allow(store: Store, version: ModelVersion) -> None:
    """An approval whose entry is in the journal, as `approval.decide` leaves it."""
    from instar.core import ids, journal
    from instar.release.approval import Approval

    now = store.clock.event()
    evidence = store.blobs.put(b"report")
    given = Approval(
        ids.new_id("appr"), "flights", version.id, version.bundle, "eval_1", evidence, "b3:contract", "automatic",
        "approved", "ada", "bob", "all gates passed", None, now, now,
    )  # fmt: skip
    body = {"bundle": given.bundle, "evidence": evidence, "approved_by": "bob"}

    def work(tx: sa.Connection) -> None:
        tx.execute(approval_table.insert().values(**vars(given)))
        journal.append(tx, store.clock, store.actor, "flights", "approval", given.id, body)

    store.database.write(work)


def tamper(store: Store, statement: sa.Executable) -> None:
    store.database.write(lambda tx: tx.execute(statement))


def faults(found: Audit) -> list[str]:
    assert not found.consistent
    assert found.words == "NOT consistent"
    return [fault for check in found.checks for fault in check.faults]


def test_an_untouched_record_is_consistent_and_says_that_nobody_anchored_it(record: Store) -> None:
    found = verify(record, "flights")
    assert found.consistent
    assert found.words == "consistent, not anchored"
    assert found.entries > 3
    assert found.head.startswith("b3:")
    assert [check.looked_at > 0 for check in found.checks] == [True, True, True, False]  # nothing is sealed yet


def test_an_edited_journal_is_found(record: Store) -> None:
    tamper(record, journal_entry.update().where(journal_entry.c.number == 2).values(actor="mallory"))
    assert any("entry 2" in fault for fault in faults(verify(record, "flights")))


def test_an_edited_decision_is_found_although_the_journal_holds(record: Store) -> None:
    tamper(record, approval_table.update().values(approved_by="mallory"))
    (fault,) = faults(verify(record, "flights"))
    assert "'mallory', the journal says 'bob'" in fault


def test_an_edited_policy_is_found(record: Store) -> None:
    tamper(record, policy_revision.update().values(policy={"champion": 7, "canary": None, "shadows": []}))
    assert any("policy" in fault for fault in faults(verify(record, "flights")))


def test_a_removed_record_is_found(record: Store) -> None:
    tamper(record, policy_revision.delete())
    assert any("the record is gone" in fault for fault in faults(verify(record, "flights")))


def test_a_record_smuggled_in_is_found(record: Store) -> None:
    with record.database.read() as tx:
        row = dict(tx.execute(sa.select(table_version)).one()._mapping)
    tamper(record, table_version.insert().values(**{**row, "id": "tver_smuggled", "number": 2}))
    assert any("tver_smuggled: no entry" in fault for fault in faults(verify(record, "flights")))


def test_a_lost_blob_is_found(record: Store) -> None:
    with record.database.read() as tx:
        manifest = tx.execute(sa.select(table_version.c.state)).scalar_one()
    record.blobs.delete(manifest)
    assert any(manifest[:15] in fault for fault in faults(verify(record, "flights")))


def test_a_file_of_a_bundle_that_was_swapped_is_found(record: Store) -> None:
    with record.database.read() as tx:
        manifest = load_manifest(record.blobs, tx.execute(sa.select(approval_table.c.bundle)).scalar_one())
    part, digest = next(iter(parts(manifest).items()))
    file = record.blobs.path(digest)
    kept = file.read_bytes()
    file.chmod(0o600)
    file.write_bytes(kept + b" ")
    assert any(f"{part} ({digest[:15]}…) was changed" in fault for fault in faults(verify(record, "flights")))
    record.blobs.delete(digest)
    assert any(f"{part} ({digest[:15]}…) is missing" in fault for fault in faults(verify(record, "flights")))


def test_faults_of_sealed_segments_are_the_audits(record: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = verification.Fault("7-3", "another root")
    monkeypatch.setattr(verification, "verify", lambda _store, **_: [fault])
    assert faults(verify(record, "flights")) == ["segment 7-3: another root"]
