"""What lies in a spool: delivered wherever it can be, left and said why where it cannot; silent runs are abandoned."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from instar.core import ids
from instar.core.errors import Unavailable
from instar.core.store import Store
from instar.testing import NOON
from instar.train import intake, runs, spool, syncing
from instar.train.delivery import Batch
from instar.train.intake import StoreSink
from instar.train.spool import MAIN, About, Writer
from instar.train.spool_records import End, Points, Start, encode

NOW = 1_767_268_800_000_000


def left(root: Path, *, points: int = 3, ended: bool = True, url: str | None = None) -> str:
    """A spool that a dead process left."""
    run = ids.new_id("run")
    writer = Writer(spool.create(root, About(run, "birds", url, time.time())), MAIN)
    writer.append(encode(Start("birds", "songs", NOW)))
    for step in range(points):
        writer.append(encode(Points(NOW + step, step, {"a": 1.0})))
    if ended:
        writer.append(encode(End("finished", NOW + 9)))
    writer.close()
    return run


class Away:
    """A server that does not answer."""

    def apply(self, batch: Batch) -> int:
        raise Unavailable("the server cannot be reached")

    def put(self, project: str, run: str, digest: str, file: Path) -> None:
        raise Unavailable("the server cannot be reached")

    def close(self) -> None:
        pass


def states(found: list[syncing.Synced]) -> dict[str, str]:
    return {one.run: one.state for one in found}


def test_every_spool_goes_where_it_can_and_the_others_say_why(store: Store, tmp_path: Path) -> None:
    root, sink = tmp_path / "spool", StoreSink(store)
    good, dead, far, nowhere = (
        left(root, ended=name != "dead", url=name) for name in ("good", "dead", "far", "nowhere")
    )
    broken = left(root, url="good")
    (root / broken / "about.json").write_text("{")
    damaged = left(root, url="good")
    (root / damaged / "main.frames").write_bytes(b"something else")
    ways = {"good": sink, "dead": sink, "far": Away()}
    found = syncing.sync(root, lambda about: ways.get(about.url or ""))
    assert states(found) == {
        good: "delivered", dead: "delivered", far: "waiting", nowhere: "waiting", broken: "waiting", damaged: "waiting",
    }  # fmt: skip
    why = {one.run: one.why for one in found}
    assert "cannot be reached" in why[far]
    assert "--url" in why[nowhere]
    assert "about.json" in why[broken]
    assert "does not begin" in why[damaged]
    assert (runs.get_run(store, good).state, runs.get_run(store, dead).state) == ("finished", "abandoned")
    again = {one.run: one.sent for one in syncing.sync(root, lambda about: ways.get(about.url or ""))}
    assert again[good] == again[dead] == 0
    assert len(runs.metric_history(store, good, "a")) == 3


def test_a_server_that_was_put_back_to_a_backup_gets_again_what_is_still_in_the_grace(
    store: Store, tmp_path: Path
) -> None:
    root = tmp_path / "spool"
    run = left(root)
    syncing.sync(root, lambda about: StoreSink(store))
    store.database.write(lambda tx: tx.execute(intake.spool_position.position_table.delete()))
    store.database.write(lambda tx: tx.exec_driver_sql("DELETE FROM run_metric"))
    assert syncing.sync(root, lambda about: StoreSink(store))[0].sent == 5
    assert len(runs.metric_history(store, run, "a")) == 3


def test_delivered_spools_go_after_the_grace_and_no_others(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "spool"
    delivered, waiting = left(root, url="good"), left(root)
    syncing.sync(root, lambda about: StoreSink(store) if about.url else None)
    long_ago = time.time() - spool.GRACE_SECONDS - 1
    os.utime(root / delivered / "delivered", (long_ago, long_ago))
    assert states(syncing.sync(root, lambda about: None)) == {waiting: "waiting"}


def test_a_run_whose_process_died_on_this_machine_is_abandoned_at_once(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "spool"
    run = ids.new_id("run")
    writer = Writer(spool.create(root, About(run, "birds", None, 0.0)), MAIN)
    intake.apply(store, Batch("birds", run, MAIN, 0, [encode(Start("birds", "songs", NOW))], syncing.told(root)))
    assert syncing.abandon_silent(store, "birds") == []
    writer.close()
    assert syncing.abandon_silent(store, "elsewhere") == []
    assert syncing.abandon_silent(store, "birds") == [run]
    assert (runs.get_run(store, run).state, runs.get_run(store, run).error) == ("abandoned", intake.DIED)


@pytest.mark.parametrize("place", ["far-away:/spool", "", "no place"])
def test_a_run_of_another_machine_is_abandoned_when_it_is_silent_for_long(
    store: Store, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ids.new_id("run")
    intake.apply(store, Batch("birds", run, MAIN, 0, [encode(Start("birds", "songs", NOW))], place))
    assert syncing.abandon_silent(store, "birds") == []
    now = store.clock.wall()
    monkeypatch.setattr(type(store.clock), "wall", lambda clock: now + timedelta(seconds=syncing.SILENT_SECONDS + 1))
    assert syncing.abandon_silent(store, "birds") == [run]
    assert "nothing was heard" in str(runs.get_run(store, run).error)
    assert runs.get_run(store, run).ended != NOON
