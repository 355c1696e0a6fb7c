from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from instar.serve.log import commit, record, segments
from instar.serve.log.commit import Committer, EndpointLog
from instar.serve.log.record import End, Head, Later, Schema


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


def test_segments_roll_at_midnight(tmp_path: Path) -> None:
    """What is sealed of a day holds that day: the first call after midnight (UTC) goes into a new segment."""
    midnight = 20_000 * commit.DAY_US
    now = [midnight - 2]

    async def write() -> None:
        loop = asyncio.get_running_loop()
        committer = Committer(loop, durable=False)
        log = EndpointLog(committer, tmp_path, "delay", 5, lambda: now[0])
        for moment in (midnight - 2, midnight - 1, midnight, midnight + 1):
            now[0] = moment
            log.append(log.current(), later(moment), lambda problem: None)
        log.tick()
        now[0] = midnight + commit.DAY_US
        log.tick()  # nobody calls in the next night: the segment is closed all the same
        log.tick()
        await asyncio.sleep(0)
        assert len(log._retired) == 0
        committer.close()

    asyncio.run(write())
    first, second = entries(tmp_path)
    assert [one.recorded for one in first if isinstance(one, Later)] == [midnight - 2, midnight - 1]
    assert [one.recorded for one in second if isinstance(one, Later)] == [midnight, midnight + 1]
    assert isinstance(second[-1], End)


def test_a_segment_that_never_came_to_be_leaves_no_hole_at_midnight(tmp_path: Path) -> None:
    """Its number is given again, whoever retires it: a number that is missing means that somebody removed a file."""
    now = [commit.DAY_US - 1]

    async def write() -> None:
        loop = asyncio.get_running_loop()
        committer = Committer(loop, durable=False)
        log = EndpointLog(committer, tmp_path, "delay", 5, lambda: now[0])
        (tmp_path / "delay").write_text("no folder can be made here")
        log.append(log.current(), later(0), lambda problem: None)
        await asyncio.sleep(0)
        (tmp_path / "delay").unlink()
        now[0] += 1
        log.tick()
        log.append(log.current(), later(1), lambda problem: None)
        log.close()
        committer.close()

    asyncio.run(write())
    assert [name.number for name in segments.list_segments(tmp_path)] == [0]


def test_a_file_that_is_removed_under_the_writer_is_left_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def write() -> None:
        loop = asyncio.get_running_loop()
        committer = Committer(loop, durable=False)
        log = EndpointLog(committer, tmp_path, "delay", 5, lambda: 1)
        log.append(log.current(), later(0), lambda problem: None)
        await asyncio.sleep(0)
        log.current().path.unlink()
        log.tick()
        log.append(log.current(), later(1), lambda problem: None)
        log.close()
        committer.close()

    asyncio.run(write())
    assert [name.number for name in segments.list_segments(tmp_path)] == [1]
    assert "delay/000005-000000 was removed" in caplog.text


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
            log.tick()
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


class Full:
    """A disk that takes so many bytes more, and then has no room."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._write = os.write

    def write(self, file: int, data: bytes | memoryview) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self._write(file, data[: self.room])
        self.room -= taken
        return taken


@pytest.mark.parametrize("durable", [True, False])
def test_after_a_full_disk_the_log_goes_on_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    monkeypatch.setattr(commit, "AGAIN_SECONDS", 0.0)
    disk = Full(1_000_000)
    monkeypatch.setattr(commit.os, "write", disk.write)

    async def write() -> None:
        loop = asyncio.get_running_loop()
        committer = Committer(loop, durable=durable)
        log = EndpointLog(committer, tmp_path, "delay", 5, lambda: 7)

        async def append(n: int) -> str | None:
            told: asyncio.Future[str | None] = loop.create_future()
            log.append(log.current(), later(n), told.set_result)
            return await told

        assert await append(1) is None
        disk.room = 5  # a torn frame
        assert "No space left" in str(await append(2))
        assert log.failing() is None  # it is time to try again
        log.gap.add("no space", answered=1)
        assert "No space left" in str(await append(3))
        log.gap.add("no space", refused=2)
        disk.room = 1_000_000
        assert await append(4) is None
        log.close()
        await loop.run_in_executor(None, committer.close)

    asyncio.run(write())
    # No number is missing, no torn tail is left, and the gap says how many calls it holds, of both tries.
    assert [name.number for name in segments.list_segments(tmp_path)] == [0, 1]
    for name in segments.list_segments(tmp_path):
        path = name.path(tmp_path)
        assert segments.read(path)[1] == path.stat().st_size
    first, second = entries(tmp_path)
    assert [type(entry) for entry in first] == [Head, Later]
    assert [type(entry) for entry in second] == [Head, record.Skipped, Later, End]
    assert second[1] == record.Skipped(7, 7, 1, 2, "no space")
    assert second[2].recorded == 4  # type: ignore[union-attr]


def test_while_the_disk_fails_no_segment_is_tried_for_each_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "AGAIN_SECONDS", 3600.0)
    monkeypatch.setattr(commit.os, "write", Full(0).write)

    async def write() -> None:
        loop = asyncio.get_running_loop()
        committer = Committer(loop, durable=False)
        log = EndpointLog(committer, tmp_path, "delay", 5, lambda: 7)
        told: asyncio.Future[str | None] = loop.create_future()
        log.append(log.current(), later(1), told.set_result)
        await told
        assert "No space left" in str(log.failing())
        log.tick()
        assert "No space left" in str(log.failing())
        committer.close()

    asyncio.run(write())
    assert len(list((tmp_path / "delay").iterdir())) == 1
