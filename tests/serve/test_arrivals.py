"""Bodies that are still coming: many slow ones together hold no more than they may, and whoever is quick goes on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.serve.gateway.arrivals import HURRIED_PACE_BYTES, LARGE_BYTES, PACE_BYTES, PART_BYTES, Arrivals
from instar.serve.processes import measuring
from instar.serve.root.process import ServerTree
from tests.serve import fakes
from tests.serve.conftest import acknowledged, start, wait_for
from tests.serve.raw import BODY, URL, answers, connect, request, to_the_end
from tests.serve.test_door import process_of

MOST = 16 * 1024**2
UPLOAD = 10 * 1000**2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerTree]:
    folder = tmp_path_factory.mktemp("arrivals") / ".instar"
    number = fakes.route(folder, [fakes.version(folder, 1)])
    with start(folder, environment={"INSTAR_MOST_ARRIVING": "16MiB"}) as running:
        acknowledged(folder, number)
        yield running


def refused(server: ServerTree) -> int:
    text = httpx2.get(server.url + "/metrics").text
    lines = [line for line in text.splitlines() if line.startswith('instar_calls_total{endpoint="delay",status="503"}')]
    return int(float(lines[0].split()[-1])) if lines else 0


def test_many_slow_uploads_hold_no_more_than_they_may_and_others_go_on(server: ServerTree) -> None:
    gateway = process_of(server, "instar.serve.gateway.gateway")
    before = measuring.memory_bytes(gateway)
    slow = [connect(server) for _ in range(40)]
    try:
        for one in slow:
            one.setblocking(False)
            one.sendall(request(b"", f"Content-Length: {UPLOAD}"))
        heads = [b""] * len(slow)
        left = [UPLOAD - 1000] * len(slow)

        def told() -> bool:
            """Send on, as far as each is read, and see who was told not to."""
            for place, one in enumerate(slow):
                try:
                    while left[place] > 0 and not heads[place]:
                        left[place] -= one.send(bytes(min(left[place], 1 << 20)))
                except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                    pass
                with contextlib.suppress(BlockingIOError, ConnectionResetError):
                    heads[place] += one.recv(65536)
            return (
                sum(map(bool, heads)) >= 38
            )  # one of 10 MB fits into what large bodies may hold, and a part of another

        wait_for(told)
        turned_away = [head for head in heads if head]
        assert all(head.startswith(b"HTTP/1.1 503 ") and b"retry-after: 5\r\n" in head for head in turned_away)
        assert refused(server) >= len(turned_away)
        assert measuring.memory_bytes(gateway) - before < 3 * MOST  # and not 40 times 10 MB
        with connect(server) as quick:
            for cut in (0, 200, len(request()) - 10):  # at once, and in two pieces
                quick.sendall(request()[:cut])
                quick.sendall(request()[cut:])
                assert [status for status, _ in answers(quick, 1)] == [200]
    finally:
        for one in slow:
            one.close()
    # When they are gone, there is room again, also for a large one.
    rows = 60_000
    inputs = [{**one, "shape": [rows], "data": one["data"] * rows} for one in fakes.body(1000.25)["inputs"]]
    body = json.dumps({"inputs": inputs}).encode()
    assert len(body) > 1_000_000

    def large_is_answered() -> bool:
        reply = httpx2.post(server.url + URL, content=body, timeout=30)
        assert reply.status_code in (200, 503), reply.text
        return reply.status_code == 200

    wait_for(large_is_answered)


def test_what_nobody_may_ask_is_not_waited_for(server: ServerTree) -> None:
    with connect(server) as raw:
        raw.sendall(request(b"x" * 1000, f"Content-Length: {UPLOAD}", path="/v2/models/nothing/infer"))
        assert raw.recv(20).startswith(b"HTTP/1.1 404 ")


def test_chunks_are_held_to_it_too(server: ServerTree) -> None:
    with connect(server) as raw:
        raw.sendall(request(b"", "Transfer-Encoding: chunked"))
        part = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        try:
            for _ in range(14):
                raw.sendall(part)
        except OSError:
            pass
        assert to_the_end(raw).startswith(b"HTTP/1.1 503 ")
    with connect(server) as raw:
        raw.sendall(request(b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY), "Transfer-Encoding: chunked"))
        assert [status for status, _ in answers(raw, 1)] == [200]


def test_large_bodies_leave_room_for_small_ones_and_time_is_short_when_it_is_half_full() -> None:
    room = Arrivals(1024 * 1024)
    assert room.pace == PACE_BYTES
    assert room.hold(0, 700 * 1024)
    assert room.pace == HURRIED_PACE_BYTES
    assert not room.hold(LARGE_BYTES, 100 * 1024)
    assert room.hold(0, 60 * 1024)
    room.release(700 * 1024)
    assert room.pace == PACE_BYTES


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 200_000)), max_size=60))
def test_no_more_is_held_than_may_be_and_all_is_given_back(steps: list[tuple[int, int]]) -> None:
    room, held = Arrivals(1_000_000), dict.fromkeys(range(6), 0)
    for body, size in steps:
        if room.hold(held[body], size + PART_BYTES):
            held[body] += size + PART_BYTES
        else:
            room.release(held[body])
            held[body] = 0
        assert room.bytes == sum(held.values()) <= 1_000_000
