"""The spool: what was appended is there after any end, torn tails are cut, a full disk is survived, forks keep apart."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.core import frames
from instar.core.errors import Damaged
from instar.train import spool
from instar.train.spool import MAGIC, MAIN, About, Reader, Writer

RUN = "run_01J9ZZZZZZ000001000000000A"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return spool.create(tmp_path / "spool", About(RUN, "p", None, 0.0))


@pytest.fixture
def writer(folder: Path) -> Iterator[Writer]:
    made = Writer(folder, MAIN)
    yield made
    made.close()


def told(reader: Reader) -> list[bytes]:
    found = []
    while True:
        some, end = reader.peek()
        if not some:
            return found
        found += [bytes(frame) for frame in some]
        reader.advance(len(some), end)


def test_a_reader_beside_a_living_writer_sees_all_that_was_appended(folder: Path, writer: Writer) -> None:
    reader = Reader(folder, MAIN)
    assert told(reader) == []
    writer.append(b"one")
    assert told(reader) == [b"one"]
    writer.append(b"two")
    writer.append(b"x" * 100)
    assert told(reader) == [b"two", b"x" * 100]
    assert reader.index == 3
    assert spool.is_alive(folder, MAIN)


def test_a_frame_larger_than_one_reading_is_read(folder: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "READ_BYTES", 10)
    parts = [b"a", b"b" * 1000, b"d", b"c" * 9]
    for part in parts:
        writer.append(part)
    assert told(Reader(folder, MAIN)) == parts


@given(parts=st.lists(st.binary(min_size=1, max_size=30), max_size=8), data=st.data())
def test_any_cut_of_the_tail_leaves_a_prefix_of_the_records(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    whole = MAGIC + b"".join(map(frames.pack, parts))
    cut = data.draw(st.integers(0, len(whole)))
    file = folder / f"{MAIN}.frames"
    file.write_bytes(
        whole[:cut] + data.draw(st.binary(max_size=7) | st.integers(8, 64).map(bytes))
    )  # and what a lost block may hold
    kept = told(Reader(folder, MAIN)) if cut >= len(MAGIC) else []
    ends = [len(MAGIC) + sum(len(part) + 8 for part in parts[:n]) for n in range(len(parts) + 1)]
    if cut >= len(MAGIC):
        assert kept[: sum(end <= cut for end in ends) - 1] == parts[: sum(end <= cut for end in ends) - 1]
        spool.cut_tail(folder, MAIN)
        assert told(Reader(folder, MAIN)) == kept


@given(parts=st.lists(st.binary(min_size=1, max_size=30), max_size=8), there=st.integers(0, 9), back=st.integers(0, 9))
def test_a_reader_finds_any_frame_by_its_number(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], there: int, back: int
) -> None:
    folder = tmp_path_factory.mktemp("seek")
    (folder / f"{MAIN}.frames").write_bytes(MAGIC + b"".join(map(frames.pack, parts)))
    reader = Reader(folder, MAIN)
    for index in (there, back):
        reader.seek(index)
        assert reader.index == min(index, len(parts))
    assert told(reader) == parts[back:]


def test_a_file_of_something_else_is_damage(folder: Path) -> None:
    (folder / f"{MAIN}.frames").write_bytes(b"PAR1 and more")
    with pytest.raises(Damaged):
        Reader(folder, MAIN).peek()


def test_what_append_returned_for_outlives_a_killed_process(folder: Path) -> None:
    child = os.fork()
    if child == 0:
        writer = Writer(folder, MAIN)
        for number in range(100):
            writer.append(b"%d" % number)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert told(Reader(folder, MAIN)) == [b"%d" % number for number in range(100)]
    assert not spool.is_alive(folder, MAIN)


def test_a_full_disk_holds_records_in_memory_then_loses_and_counts(
    folder: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.append(b"before")
    real, room = os.write, 5

    def full(file: int, data: bytes) -> int:  # a part of the first record still fits
        nonlocal room
        written = real(file, data[:room]) if room else 0
        room = 0
        if not written:
            raise OSError(28, "No space left on device")
        return written

    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(spool, "HELD_BYTES", 30)
    assert [writer.append(b"%d" % number * 5) for number in range(4)] == [False] * 4
    assert writer.lost == 2
    assert writer.unwritten() == (1, [b"00000", b"11111"])
    assert told(Reader(folder, MAIN)) == [b"before"]
    writer.append(b"the end", always=True)
    monkeypatch.setattr(os, "write", real)
    assert writer.append(b"after")
    assert told(Reader(folder, MAIN)) == [b"before", b"00000", b"11111", b"the end", b"after"]
    assert writer.unwritten() == (5, [])


def test_a_closed_writer_never_writes_into_another_file(folder: Path, tmp_path: Path) -> None:
    writer = Writer(folder, MAIN)
    writer.close()
    other = (tmp_path / "other").open("wb", buffering=0)  # takes the number that is free now
    assert not writer.append(b"late")
    other.close()
    assert (tmp_path / "other").read_bytes() == b""


def test_only_one_delivers_and_only_delivered_spools_are_swept(folder: Path) -> None:
    with spool.delivering(folder) as mine, spool.delivering(folder) as yours:
        assert (mine, yours) == (True, False)
    assert spool.sweep(folder.parent, 0) == []
    spool.mark_delivered(folder)
    assert spool.sweep(folder.parent) == []
    assert spool.sweep(folder.parent, 0) == [RUN]
    assert not folder.exists()
