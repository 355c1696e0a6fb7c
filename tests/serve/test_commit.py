from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from instar.serve import commit, record, segments
from instar.serve.commit import Committer, EndpointLog
from instar.serve.record import End, Head, Later, Schema


def entries(calls: Path) -> list[list[record.Entry]]:
    found = []
    for name in segments.list_segments(calls):
        frames = [record.decode_frame(payload) for payload in segments.read(name.path(calls))[0]]
        assert [frame.sequence for frame in frames] == list(range(len(frames)))
        found.append([record.decode_entry(frame.metadata) for frame in frames])
    return found


def later(n: int) -> bytes:
    return record.encode_later(f"call {n}", n, record.NO_ANSWERS)


def test_what_is_told_is_on_the_disk_in_order(tmp_path: Path) -> None:
    async def write() -> None:
        loop = asyncio.get_running_loop()
        committer = Committer(loop)
        log = EndpointLog(committer, tmp_path, "delay", 5, lambda: 1)
        for group in range(3):
            told = [loop.create_future() for _ in range(50)]
            for n, future in enumerate(told):
                log.append(log.current(), later(group * 50 + n), future.set_result)
            await asyncio.gather(*told)
            # Read while the log is open: all that was told is there.
            assert len(entries(tmp_path)[0]) == 1 + (group + 1) * 50
        assert committer.groups < 100
        log.close()
        await loop.run_in_executor(None, committer.close)

    asyncio.run(write())
    (found,) = entries(tmp_path)
    assert isinstance(found[0], Head)
    assert isinstance(found[-1], End)
    assert [entry.recorded for entry in found[1:-1] if isinstance(entry, Later)] == list(range(150))


def test_a_rolled_segment_closes_when_its_shadows_have_answered(tmp_path: Path) -> None:
    async def write() -> None:
        loop = asyncio.get_running_loop()
        committer = Committer(loop)
        log = EndpointLog(committer, tmp_path, "delay", 5, lambda: 1)
        first = log.current()
        log.schema(first, Schema(0, ()))
        log.schema(first, Schema(0, ()))
        first.waiting = 1
        log.roll()
        log.tick()
        second = log.current()
        assert second is not first
        assert log.waiting
        log.later(first, later(1))
        first.waiting = 0
        log.tick()
        log.later(first, later(2))  # too late: the segment is closed
        told = loop.create_future()
        log.append(second, later(3), told.set_result)
        assert await told is None
        log.close()
        await loop.run_in_executor(None, committer.close)

    asyncio.run(write())
    one, two = entries(tmp_path)
    assert [type(entry) for entry in one] == [Head, Schema, Later, End]
    assert [type(entry) for entry in two] == [Head, Later, End]


@pytest.mark.parametrize("limit", ["ROLL_BYTES", "ROLL_SECONDS"])
def test_segments_roll_by_size_and_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(commit, limit, 0)

    async def write() -> None:
        loop = asyncio.get_running_loop()
        committer = Committer(loop)
        log = EndpointLog(committer, tmp_path, "delay", 5, lambda: 1)
        for n in range(3):
            told = loop.create_future()
            log.append(log.current(), later(n), told.set_result)
            assert await told is None
        log.close()
        await loop.run_in_executor(None, committer.close)

    asyncio.run(write())
    assert len(entries(tmp_path)) == 3


def test_a_disk_that_fails_fails_the_call_and_closes_the_segment_for_good(tmp_path: Path) -> None:
    async def write() -> None:
        loop = asyncio.get_running_loop()
        committer = Committer(loop)
        (tmp_path / "delay").write_text("no folder can be made here")
        log = EndpointLog(committer, tmp_path, "delay", 5, lambda: 1)
        broken = log.current()
        told = loop.create_future()
        log.append(broken, later(1), told.set_result)
        assert "FileExistsError" in str(await told)
        (tmp_path / "delay").unlink()
        segment = log.current()
        assert segment is not broken
        told = loop.create_future()
        log.append(segment, later(2), told.set_result)
        assert await told is None
        log.close()
        await loop.run_in_executor(None, committer.close)

    asyncio.run(write())
    (found,) = entries(tmp_path)
    assert [type(entry) for entry in found] == [Head, Later, End]
