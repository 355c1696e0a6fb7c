"""The commands of operating, as a person types them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from rich.console import Console

from instar.core import errors, journal
from instar.core.store import Store
from instar.interfaces.cli.operate import tree_of
from instar.interfaces.moments import moment_of
from instar.operate.trace_records import Hop
from instar.release.registry import ModelVersion
from instar.serve.traffic import routing


def test_promote_live_rollback(
    run: Callable[..., Result], store: Store, make_version: Callable[..., ModelVersion]
) -> None:
    assert "nothing answers yet" in run("live").output
    make_version("one")
    make_version("two")
    assert "delay@1 answers at delay" in run("promote", "delay@1", "--reason", "the first").output
    run("promote", "delay@2")
    (live,) = json.loads(run("live", "--json").output)
    assert [one["version"] for one in live["answering"]] == ["delay@2"]
    assert "delay@1 answers (policy 3): it smells" in run("rollback", "delay", "--reason", "it smells").output
    text = run("live", "delay").output
    assert "because: rollback: it smells" in text
    assert "100 % of the calls" in text
    assert run("live", "--at", "2020-01-01").output == "nothing answered then\n"
    revision = routing.current(store, "delay")
    assert revision is not None
    assert revision.policy.champion == 1


def test_trace_as_a_tree_and_as_json(
    run: Callable[..., Result], log: Any, make_version: Callable[..., ModelVersion], store: Store
) -> None:
    make_version("one")
    run("promote", "delay@1")
    name = log.add(store.clock.event(), {1: 0.9})
    text = run("trace", name).output
    assert f"prediction {name} (row)" in text
    assert "answered by model version delay@1" in text
    assert "(version only)" in text
    assert json.loads(run("trace", name, "--json").output)["facts"]["score"] == 0.9
    assert "1 predictions of delay" in run("trace", "delay@1", "--forward").output


def test_a_long_branch_is_cut_on_the_terminal_only() -> None:
    hop = Hop("table version", "tver_1", "flights@1").to(*(Hop("predictions", "", f"[{n}]") for n in range(30)))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(tree_of(hop))
    text = console.export_text()
    assert "[11]" in text  # brackets of a name are no markup
    assert "[12]" not in text
    assert "and 18 more" in text
    assert len(hop.as_json()["hops"]) == 30


def test_audit_verify_says_what_holds_and_fails_when_something_does_not(
    run: Callable[..., Result], store: Store
) -> None:
    store.database.write(lambda tx: journal.append(tx, store.clock, store.actor, "flights", "note", "x", {"a": 1}))
    good = run("audit", "verify")
    assert good.exit_code == 0
    assert "flights: consistent, not anchored, 1 entries" in good.output
    store.database.write(lambda tx: tx.execute(journal.journal_entry.update().values(actor="mallory")))
    bad = run("audit", "verify", "--json")
    assert bad.exit_code == 1
    assert json.loads(bad.output)["checks"][0]["faults"] == ["entry 1: its content was changed"]


def test_apply_journals_the_contract_and_publishes_the_routes(run: Callable[..., Result], store: Store) -> None:
    first = json.loads(run("apply", "--json").output)
    assert first["contract"].startswith("b3:")
    assert "is in effect" in run("apply").output
    with store.database.read() as tx:
        assert len(journal.entries(tx, "flights", kind="contract revision")) == 1


def test_moments() -> None:
    assert moment_of("2013-06-01").isoformat() == "2013-06-01T00:00:00+00:00"
    assert moment_of("2013-06-01T12:00:00-05:00").isoformat() == "2013-06-01T17:00:00+00:00"
    with pytest.raises(errors.BadInput):
        moment_of("june")
