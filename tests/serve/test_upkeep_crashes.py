"""A process that seals, merges or erases is killed at each of its steps; the next one finishes: nothing is lost or double."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from instar.core.store import Store
from instar.serve.log import catalogue, erasing, merging, retention, sealed_table, sealing, verification
from instar.serve.log.calls import CallLog
from instar.testing import memory_store
from tests.serve.filled import fill
from tests.serve.writing import BEGIN

BEGIN_AGAIN = BEGIN + timedelta(days=2)


class Killed(BaseException):
    """The process is gone; nothing after this line of it ever runs."""


class Killer:
    """Kills before the n-th step that changes the disk or the database, and lets nothing happen afterwards."""

    STEPS = (
        (os, "replace"), (os, "link"), (os, "unlink"), (Path, "unlink"),
    )  # fmt: skip

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.count = 0
        self.at = at
        self.dead = False
        for owner, name in self.STEPS:
            monkeypatch.setattr(owner, name, self._deadly(getattr(owner, name)))
        monkeypatch.setattr(store.database, "write", self._deadly(store.database.write))

    def _deadly(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            self._moment()
            return real(*args, **kwargs)

        return step

    def _moment(self) -> None:
        if self.dead or self.count == self.at:
            self.dead = True
            raise Killed
        self.count += 1


def seal(store: Store) -> None:
    sealing.seal(store, grace_seconds=-1)


def merge(store: Store) -> None:
    merging.merge(store)
    sealing.seal(store, grace_seconds=-1)


def erase(store: Store) -> None:
    erasing.carry_out(store)
    sealing.seal(store, grace_seconds=-1)


def drop(store: Store) -> None:
    retention.expire(store, "flights", {"delay": retention.Terms(keep=store.clock.event() - BEGIN_AGAIN)})


def thin(store: Store) -> None:
    retention.expire(store, "flights", {"delay": retention.Terms(inputs=store.clock.event() - BEGIN_AGAIN)})


BEGIN_AGAIN = BEGIN + timedelta(days=2)


def prepared(folder: Path, work: Callable[[Store], None]) -> Store:
    store = memory_store(folder)
    fill(store, 1 if work in (erase, thin) else 2)
    if work is not seal:
        seal(store)
    if work is erase:
        erasing.ask(store, "flights", erasing.Selector("entity", "E1"), "asked for")
    return store


def state(store: Store) -> list[dict[str, Any]]:
    assert verification.verify(store) == []
    return CallLog(store).read("delay").to_dicts()


@pytest.mark.parametrize("work", [seal, merge, erase, thin, drop], ids=lambda work: work.__name__)
def test_killed_at_each_step_it_ends_as_if_it_had_not_been(tmp_path: Path, work: Callable[[Store], None]) -> None:
    whole = prepared(tmp_path / "whole", work)
    work(whole)
    expected = state(whole)
    prepared(tmp_path / "before", work).database.close()
    at = 0
    while True:
        shutil.copytree(tmp_path / "before", tmp_path / str(at))
        store = memory_store(tmp_path / str(at))
        with pytest.MonkeyPatch.context() as patched:
            killer = Killer(store, patched, at)
            with contextlib.suppress(Killed):
                work(store)
        work(store)
        assert state(store) == expected
        for project, endpoint in catalogue.tables(store):
            sealed_table.repair(store, project, endpoint)
            sealed_table.sweep(store, project, endpoint)
            assert sealed_table.active(store, project, endpoint) == {
                one.rows_path.split("/", 1)[1] for one in catalogue.units(store)
            }
        store.database.close()
        if not killer.dead:
            break
        at += 1
    assert at > 3
