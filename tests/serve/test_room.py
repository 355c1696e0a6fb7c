"""Overload by a logical clock: the queue stays bounded, and what is worked on is answered in time."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.core.errors import TooManyCalls, Unavailable
from instar.serve.gateway.room import ALWAYS, LONGEST_SECONDS, Room


def flood(room: Room, rate: float, service: float, deadline: float | None, seconds: float) -> tuple[int, int, int]:
    """Open-loop calls at `rate` against a model that takes `service` seconds a call.

    Returns:
        Calls answered in time, answered too late, and the most that flew at once.
    """
    now, free, most = 0.0, 0.0, 0
    flying: list[tuple[float, float, int]] = []  # when it is answered, when it came, how many flew
    good = late = 0
    while now < seconds:
        now += 1 / rate
        while flying and flying[0][0] <= now:
            answered, came, ahead = heapq.heappop(flying)
            in_time = deadline is None or answered - came <= deadline
            good, late = good + in_time, late + (not in_time)
            room.leave("a", 10, ahead, answered - came)
        if room.refusal("a", 10, deadline) is None:
            ahead = room.enter("a", 10)
            free = max(free, now) + service
            heapq.heappush(flying, (free, now, ahead))
            most = max(most, len(flying))
    return good, late, most


@pytest.mark.parametrize("times", [0.5, 1.0, 2.0, 10.0, 50.0])
@pytest.mark.parametrize("deadline", [0.5, None])
def test_goodput_holds_far_beyond_the_capacity(times: float, deadline: float | None) -> None:
    service, seconds = 0.01, 60.0 if times <= 10 else 30.0
    room = Room(calls=2000, queue_seconds=1.0)
    good, late, most = flood(room, times / service, service, deadline, seconds)
    possible = min(times, 1.0) * seconds / service
    assert good >= 0.8 * possible
    assert late <= 0.05 * good
    assert most <= 1.2 * (deadline or 1.0) / service  # the queue is as long as can be worked in time


def test_a_model_that_gets_slow_is_known_by_the_calls_that_it_does_not_answer() -> None:
    room = Room(calls=1000)
    for _ in range(50):
        room.leave("a", 0, room.enter("a", 0), 0.001)
    flying = [room.enter("a", 0) for _ in range(40)]
    assert room.refusal("a", 0, 0.5) is None
    for ahead in flying:  # none of them is answered in its time
        room.leave("a", 0, ahead, 0.5, late=True)
    flying = [room.enter("a", 0) for _ in range(40)]
    assert isinstance(room.refusal("a", 0, 0.5), TooManyCalls)
    for ahead in flying:  # one that gave little time says nothing of others
        room.leave("a", 0, ahead, 0.0001, late=True)
    assert room.refusal("a", 0, 0.5) is None
    for _ in range(40):
        room.enter("a", 0)
    assert isinstance(room.refusal("a", 0, 0.5), TooManyCalls)


def test_a_slow_model_is_never_shut_out_by_its_estimate() -> None:
    room = Room(calls=100, queue_seconds=0.1)
    for _ in range(20):
        room.leave("a", 0, room.enter("a", 0), 5.0)
    assert room.refusal("a", 0, 0.5) is None
    for _ in range(ALWAYS):
        room.enter("a", 0)
    problem = room.refusal("a", 0, 0.5)
    assert isinstance(problem, TooManyCalls)
    assert problem.retry_after == round(5.0 * ALWAYS / 2)
    for _ in range(200):  # it became quick
        room.leave("a", 0, ALWAYS, 0.01)
        room.enter("a", 0)
    assert room.refusal("a", 0, 0.5) is None


def test_the_flood_of_one_endpoint_leaves_room_for_others() -> None:
    room = Room(calls=100)
    while room.refusal("flood", 1, None) is None:
        room.enter("flood", 1)
    assert room.flying == 50
    assert isinstance(room.refusal("flood", 1, None), TooManyCalls)
    assert room.refusal("other", 1, None) is None
    while room.refusal("other", 1, None) is None:
        room.enter("other", 1)
    assert room.flying == 100
    assert isinstance(room.refusal("third", 1, None), Unavailable)


def test_bytes_are_bounded() -> None:
    room = Room(calls=100, calls_bytes=1000)
    room.enter("a", 900)
    assert isinstance(room.refusal("b", 101, None), Unavailable)
    assert room.refusal("b", 100, None) is None


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 300), st.floats(0.0, 1e6), st.booleans()), max_size=80)
)
def test_what_entered_leaves_and_nobody_waits_for_ever(steps: list[tuple[str, int, float, bool]]) -> None:
    room = Room(calls=20, calls_bytes=1000)
    inside: list[tuple[str, int, int]] = []
    for name, size, seconds, leaves in steps:
        if leaves and inside:
            endpoint, held, ahead = inside.pop(0)
            room.leave(endpoint, held, ahead, seconds)
        elif room.refusal(name, size, None) is None:
            inside.append((name, size, room.enter(name, size)))
        assert room.flying == len(inside) <= 20
        assert room.bytes == sum(size for _, size, _ in inside) <= 1000
        assert 1 <= room.wait(name) <= LONGEST_SECONDS
