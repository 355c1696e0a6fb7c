"""Delivery: whatever is cut, lost, repeated, or done twice at once, the store gets each record once and in its order."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.core.errors import Unavailable
from instar.train import delivery, spool
from instar.train.delivery import Batch, Delivery
from instar.train.spool import MAIN, About, Writer
from instar.train.spool_records import Artifact, encode

RUN = "run_01J9ZZZZZZ000001000000000A"


class Played:
    """A store in memory, as `intake` is one; what it should do next is dealt to it."""

    def __init__(self, deal: list[str] | None = None) -> None:
        self.kept: dict[str, list[bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.lasts = 0
        self.asked = 0
        self._deal = deal or []

    def apply(self, batch: Batch) -> int:
        card = self._deal.pop() if self._deal else "ok"
        self.asked += 1
        if card == "away":
            raise Unavailable("not now")
        kept = self.kept.setdefault(batch.writer, [])
        if card == "restored":  # from a backup of some time ago
            del kept[len(kept) // 2 :]
        if batch.first <= len(kept):
            new = list(batch.frames)[len(kept) - batch.first :]
            kept += new[: len(new) // 2] if card == "part" else new
        self.lasts += batch.last
        if card == "mute":  # applied, but the answer is lost
            raise Unavailable("the line is cut")
        return len(kept)

    def put(self, project: str, run: str, digest: str, file: Path) -> None:
        self.blobs[digest] = file.read_bytes()

    def close(self) -> None:
        pass


def made(folder: Path, writers: dict[str, list[bytes]]) -> Path:
    run = spool.create(folder, About(RUN, "p", None, 0.0))
    for name, payloads in writers.items():
        writer = Writer(run, name)
        for payload in payloads:
            writer.append(payload)
        writer.close()
    return run


CARDS = st.lists(st.sampled_from(["ok", "away", "mute", "part", "restored"]), max_size=40)
PAYLOADS = st.lists(st.binary(min_size=1, max_size=6), max_size=25)


@settings(deadline=None)
@given(main=PAYLOADS, part=PAYLOADS, cards=CARDS, size=st.integers(1, 9), turns=st.lists(st.booleans(), max_size=40))
def test_any_interleaving_of_trouble_and_two_deliverers_keeps_each_record_once_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    main: list[bytes],
    part: list[bytes],
    cards: list[str],
    size: int,
    turns: list[bool],
) -> None:
    folder = made(tmp_path_factory.mktemp("spool"), {MAIN: main, "part": part})
    store = Played(cards)
    before, delivery.BATCH_FRAMES = delivery.BATCH_FRAMES, size
    try:
        two = [Delivery(folder, store), Delivery(folder, store)]
        for which in turns:
            try:
                two[which].turn()
            except Unavailable:
                two[which] = Delivery(folder, store)  # as after a restart
        store._deal.clear()
        last = Delivery(folder, store)
        last.turn()
    finally:
        delivery.BATCH_FRAMES = before
    assert store.kept.get(MAIN, []) == main
    assert store.kept.get("part", []) == part
    assert last.settled()
    assert store.lasts  # the process is dead, and the store was told


def test_a_living_run_is_delivered_as_it_grows_and_is_not_declared_dead(tmp_path: Path) -> None:
    folder, store = made(tmp_path, {}), Played()
    writer, going = Writer(folder, MAIN), Delivery(folder, store)
    writer.append(b"1")
    assert going.turn() == 1
    assert (going.turn(), store.lasts, going.settled()) == (0, 0, False)
    asked = store.asked
    going.turn(greet=True)
    assert store.asked == asked + 1
    writer.append(b"2")
    writer.close()
    assert going.turn() == 1
    assert going.settled()
    assert store.kept[MAIN] == [b"1", b"2"]


def test_a_child_that_outlives_its_parent_is_waited_for(tmp_path: Path) -> None:
    folder, store = made(tmp_path, {MAIN: [b"1"]}), Played()
    child, going = Writer(folder, "part"), Delivery(folder, store)
    going.turn()
    assert not going.settled()
    child.append(b"late")
    child.close()
    going.turn()
    assert going.settled()
    assert store.kept["part"] == [b"late"]


def test_content_goes_before_the_record_that_names_it(tmp_path: Path) -> None:
    digest = "b3:" + "ab" * 32
    folder, store = made(tmp_path, {MAIN: [encode(Artifact("a.txt", digest, 4))]}), Played()
    staged = spool.staged(folder, digest)
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"text")
    Delivery(folder, store).turn()
    assert store.blobs == {digest: b"text"}


def test_what_waits_in_memory_is_delivered_and_counted_once_when_the_disk_has_room_again(tmp_path: Path) -> None:
    folder, store = made(tmp_path, {MAIN: [b"on disk"]}), Played()
    held: list[bytes] = [b"held 1"]
    going = Delivery(folder, store, waiting=lambda: {MAIN: (1, held)})
    going.turn()
    held.append(b"held 2")
    going.turn()
    assert going.settled()
    assert store.kept[MAIN] == [b"on disk", b"held 1", b"held 2"]
    asked = store.asked
    Delivery(folder, store, waiting=lambda: {MAIN: (1, held)}).turn()
    assert store.kept[MAIN] == [b"on disk", b"held 1", b"held 2"]
    assert store.asked > asked
