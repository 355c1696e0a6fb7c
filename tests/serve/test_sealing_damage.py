"""Sealing when something is wrong: a damaged segment is told and kept, and what is away for a while loses nothing."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instar.core import frames, journal
from instar.core.errors import StoreBusy
from instar.core.store import Store
from instar.serve.log import catalogue, layout, sealing, segments, verification
from instar.serve.log.calls import CallLog
from tests.serve.filled import HOUR, fill
from tests.serve.writing import BEGIN, Segment


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def ends(path: Path) -> list[int]:
    """Where the frames of a segment end."""
    data, at, found = path.read_bytes(), len(segments.MAGIC), []
    while at < len(data):
        at += frames.HEADER.size + frames.HEADER.unpack_from(data, at)[0]
        found.append(at)
    return found


def test_a_damaged_frame_costs_that_frame_and_is_told(store: Store) -> None:
    (segment,) = fill(store, 1)
    flip(segment.path, ends(segment.path)[3] + 30)
    done = sealing.look(store)
    ((name, reason),) = done.damaged
    assert (name, "1 frames cannot be read, at 4" in reason) == (segment.name, True)
    (sealed,) = done.sealed
    assert sealed.gaps == ((4, 5),)
    assert verification.verify(store) == []
    assert CallLog(store).read("delay").height == 7
    with store.database.read() as tx:
        (entry,) = journal.entries(tx, "flights", kind="segment sealed")
    assert entry.body["damaged"] == reason
    sealing.seal(store, grace_seconds=-1)
    assert (store.folder / "calls" / ".damaged" / f"{segment.name.id}.seg").exists()
    assert not segment.path.exists()


def test_a_log_that_had_read_up_to_the_damage_reads_past_it_when_it_is_sealed(store: Store) -> None:
    (segment,) = fill(store, 1)
    flip(segment.path, ends(segment.path)[3] + 30)
    log = CallLog(store)
    assert log.read("delay").height == 1
    sealing.seal(store)
    assert log.read("delay").height == 7


def test_a_segment_whose_columns_nobody_describes_is_set_aside_and_told(store: Store) -> None:
    (segment,) = fill(store, 1)
    flip(segment.path, ends(segment.path)[0] + 20)  # the description of the columns
    done = sealing.look(store)
    assert done.sealed == ()
    ((name, _),) = done.damaged
    assert name == segment.name
    assert sealing.look(store).damaged == ()
    with store.database.read() as tx:
        (entry,) = journal.entries(tx, "flights", kind="segment damaged")
    assert (store.folder / entry.body["kept_at"]).exists()


def test_a_damaged_segment_holds_up_none_of_those_after_it(store: Store) -> None:
    made = fill(store, 3)
    flip(made[0].path, ends(made[0].path)[0] + 20)
    assert [one.number for one in sealing.seal(store)] == [1, 2]
    assert verification.verify(store) == []


def test_damage_in_a_segment_that_a_living_gateway_closed_is_found_too(store: Store) -> None:
    (segment,) = fill(store, 1)
    flip(segment.path, ends(segment.path)[3] + 30)
    lock = segments.BootLock(store.folder / "calls", segment.name.boot)
    assert len(sealing.look(store).damaged) == 1
    lock.release()


def away_database(store: Store, patch: pytest.MonkeyPatch) -> None:
    def busy(*_: Any, **__: Any) -> Any:
        raise StoreBusy("somebody holds it", subject="store")

    patch.setattr(store.database, "write", busy)


def full_disk(store: Store, patch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    patch.setattr(layout, "_write", full)


@pytest.mark.parametrize("away", [away_database, full_disk])
def test_what_is_away_loses_nothing_and_sealing_catches_up_in_order(
    store: Store, away: Callable[[Store, pytest.MonkeyPatch], None]
) -> None:
    fill(store, 2)
    before = CallLog(store).read("delay")
    for number in range(2, 5):
        with pytest.MonkeyPatch.context() as patch:
            away(store, patch)
            with pytest.raises((StoreBusy, OSError)):
                sealing.seal(store, grace_seconds=-1)
        assert CallLog(store).read("delay").height == before.height + number - 2
        more = Segment(store.folder, number=number)
        more.schema()
        more.call(BEGIN + number * HOUR)
        more.end()
    assert [one.number for one in sealing.seal(store, grace_seconds=-1)] == [0, 1, 2, 3, 4]
    assert verification.verify(store) == []
    assert CallLog(store).read("delay").height == before.height + 3


def test_segments_that_piled_up_are_sealed_one_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        segment = Segment(store.folder, number=number)
        segment.schema()
        segment.call(BEGIN)
        segment.end()
    held = []
    real = segments.salvage
    monkeypatch.setattr(segments, "salvage", lambda *given: held.append(len(catalogue.segments(store))) or real(*given))
    sealing.seal(store)
    assert held == list(range(12))  # each is named before the next one is read
