from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.core import frames
from instar.core.errors import Damaged
from instar.core.ids import call_id
from instar.serve.log import record, segments
from instar.serve.log.segments import MAGIC, BootLock, SegmentName

payloads = st.lists(st.binary(min_size=1, max_size=60), max_size=8)


def written(parts: list[bytes]) -> bytes:
    return MAGIC + b"".join(map(frames.pack, parts))


@settings(max_examples=60, deadline=None)
@given(payloads, st.data())
def test_a_torn_tail_loses_only_frames_that_were_not_whole(parts: list[bytes], data: st.DataObject) -> None:
    whole = written(parts)
    cut = data.draw(st.integers(len(MAGIC), len(whole)))
    kept, end = frames.unpack(whole[:cut], len(MAGIC))
    ends = [len(written(parts[:count])) for count in range(len(parts) + 1)]
    count = sum(1 for at in ends[1:] if at <= cut)
    assert [bytes(part) for part in kept] == parts[:count]
    assert end == ends[count]


@settings(max_examples=60, deadline=None)
@given(payloads.filter(bool), st.data())
def test_a_flipped_bit_ends_the_reading_before_it(parts: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(written(parts))
    at = data.draw(st.integers(len(MAGIC), len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    kept, end = frames.unpack(bytes(whole), len(MAGIC))
    assert [bytes(part) for part in kept] == parts[: len(kept)]
    assert end <= at


def recorded(count: int) -> list[bytes]:
    """Frames as a gateway numbers them."""
    return [
        frames.pack(record.encode_frame(n, record.encode_entry(record.Later(f"call {n}", n, [])))) for n in range(count)
    ]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 8), st.binary(max_size=7) | st.integers(8, 64).map(bytes))
def test_a_torn_tail_is_no_damage(tmp_path_factory: pytest.TempPathFactory, count: int, torn: bytes) -> None:
    path = tmp_path_factory.mktemp("torn") / "one.seg"
    path.write_bytes(MAGIC + b"".join(recorded(count)) + torn)
    found = segments.salvage(path)
    assert [frame.sequence for frame in found.frames] == list(range(count))
    assert (found.gaps, found.torn) == ((), len(torn))


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 8), st.data())
def test_damage_between_good_frames_is_told_from_a_torn_tail(
    tmp_path_factory: pytest.TempPathFactory, count: int, data: st.DataObject
) -> None:
    parts = recorded(count)
    hit = data.draw(st.integers(0, count - 2))
    start = len(MAGIC) + sum(map(len, parts[:hit]))
    whole = bytearray(MAGIC + b"".join(parts))
    whole[data.draw(st.integers(start, start + len(parts[hit]) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("damaged") / "one.seg"
    path.write_bytes(whole)
    found = segments.salvage(path)
    assert [frame.sequence for frame in found.frames] == [n for n in range(count) if n != hit]
    assert found.gaps == ((hit, hit + 1),)


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "one.seg"
    path.write_bytes(written([b"first"]))
    first, end = segments.read(path)
    with path.open("ab") as file:
        file.write(frames.pack(b"second"))
    second, last = segments.read(path, end)
    assert [bytes(p) for p in (*first, *second)] == [b"first", b"second"]
    assert last == path.stat().st_size


def test_a_file_of_something_else_is_damage_and_an_unborn_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "one.seg"
    path.write_bytes(b"PAR1 and more")
    with pytest.raises(Damaged):
        segments.read(path)
    path.write_bytes(MAGIC[:3])
    assert segments.read(path) == ([], 0)


def test_names_tell_the_place_and_match_call_ids(tmp_path: Path) -> None:
    name = SegmentName("delay", 123_456_789, 7)
    name.path(tmp_path).parent.mkdir()
    name.path(tmp_path).touch()
    (tmp_path / "delay" / "other.txt").touch()
    assert segments.list_segments(tmp_path) == segments.list_segments(tmp_path, "delay") == [name]
    assert segments.boot_letters(name.boot) == call_id(1, name.boot, 1)[15:21]


def test_a_gateway_is_alive_while_it_holds_its_lock(tmp_path: Path) -> None:
    lock = BootLock(tmp_path, 42)
    assert segments.is_alive(tmp_path, 42)
    assert segments.alive_boots(tmp_path) == [segments.boot_letters(42)]
    lock.release()
    assert not segments.is_alive(tmp_path, 42)
    (tmp_path / ".gateways" / "AAAAAA.lock").touch()  # left by a gateway that was killed
    assert segments.alive_boots(tmp_path) == []
