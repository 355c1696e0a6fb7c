"""Leases: one holder at a time, and the dead hold nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import timedelta

import pytest
import sqlalchemy as sa

from instar.core.errors import Conflict, Unavailable
from instar.core.store import Store
from instar.plan import leases


def change(store: Store, **values: object) -> None:
    store.database.write(lambda tx: tx.execute(leases.lease.update().values(**values)))


def row(store: Store):
    with store.database.read() as tx:
        return tx.execute(sa.select(leases.lease)).one()


def test_is_held_once_and_free_afterwards(store: Store) -> None:
    with leases.hold(store, "pipeline/a") as first:
        waited: list[leases.Holder] = []
        with pytest.raises(Unavailable, match="ada holds it"):
            leases.hold(store, "pipeline/a", on_wait=waited.append, timeout_seconds=0.2).__enter__()
        assert [holder.actor for holder in waited] == ["ada"]
        with leases.hold(store, "pipeline/b", timeout_seconds=0):
            pass
    with leases.hold(store, "pipeline/a", timeout_seconds=0) as second:
        assert second.fence == first.fence + 1
    assert row_holders(store) == {None}


def row_holders(store: Store) -> set[str | None]:
    with store.database.read() as tx:
        return set(tx.execute(sa.select(leases.lease.c.holder)).scalars())


def test_is_given_back_when_the_body_raises(store: Store) -> None:
    with pytest.raises(RuntimeError), leases.hold(store, "x"):
        raise RuntimeError
    with leases.hold(store, "x", timeout_seconds=0):
        pass


def test_threads_take_turns(store: Store) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with leases.hold(store, "x"):
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert row(store).fence == 4


def test_a_dead_process_holds_nothing(store: Store) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with leases.hold(store, "x") as held:
        change(store, pid=dead.pid)
        lost = pytest.raises(Conflict, match="another process took the lease")
        with leases.hold(store, "x", timeout_seconds=0), store.database.read() as tx, lost:
            leases.confirm(tx, held)


def test_a_living_process_with_the_number_of_a_dead_one_holds_nothing(store: Store) -> None:
    with leases.hold(store, "x"):
        change(store, born="1")
        with leases.hold(store, "x", timeout_seconds=0):
            pass


def test_a_silent_holder_on_another_machine_is_given_up_a_speaking_one_is_not(store: Store) -> None:
    with leases.hold(store, "x"):
        change(store, host="elsewhere", heartbeat=store.clock.wall())
        with pytest.raises(Unavailable):
            leases.hold(store, "x", timeout_seconds=0).__enter__()
        change(store, heartbeat=store.clock.wall() - leases.LOST_AFTER - timedelta(seconds=1))
        with leases.hold(store, "x", timeout_seconds=0):
            pass


def test_the_heartbeat_beats(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.01)
    with leases.hold(store, "x"):
        before = row(store).heartbeat
        waiting = threading.Event()
        for _ in range(500):
            if row(store).heartbeat > before:
                break
            waiting.wait(0.01)
        assert row(store).heartbeat > before
