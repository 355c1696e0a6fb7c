"""How many processes a version has: rules over what was measured."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from instar.serve.traffic.capacity import DEFAULT, Standing, Terms, to_give_up, together, wants_more

BUSY = Standing("native-a", copies=1, flying=3, oldest_seconds=0.2, used=10.0, bytes=100)


def test_another_process_comes_where_calls_wait_and_a_core_is_free() -> None:
    assert wants_more(BUSY, busy=1, cores=2, most=2)
    assert not wants_more(BUSY, busy=2, cores=2, most=2)
    assert not wants_more(BUSY, busy=1, cores=2, most=1)
    assert not wants_more(replace(BUSY, oldest_seconds=0.01), busy=1, cores=2, most=2)
    # One slow call alone is no queue, and a worker that has not begun needs no second.
    assert not wants_more(replace(BUSY, flying=1), busy=1, cores=2, most=2)
    assert not wants_more(replace(BUSY, copies=0), busy=0, cores=2, most=2)


@given(
    st.lists(
        st.builds(
            Standing,
            st.uuids().map(str),
            st.integers(0, 3),
            st.integers(0, 2),
            st.just(0.0),
            st.floats(0, 100),
            st.integers(0, 1000),
            st.booleans(),
        )
    ),
    st.integers(0, 3000),
)
def test_what_is_used_or_kept_stays_and_the_rest_goes_oldest_first(standings: list[Standing], budget: int) -> None:
    by_name = {one.worker: one for one in standings}
    given_up = to_give_up(standings, budget)
    for name in given_up:
        assert by_name[name].copies
        assert not by_name[name].flying
        assert not by_name[name].kept
    assert [by_name[name].used for name in given_up] == sorted(by_name[name].used for name in given_up)
    left = sum(one.bytes for one in standings if one.worker not in given_up)
    may_go = [one for one in standings if one.copies and not one.flying and not one.kept and one.worker not in given_up]
    assert left <= budget or not may_go


def test_endpoints_that_share_a_process_get_the_most_that_one_of_them_asks() -> None:
    assert together([]) == DEFAULT
    one = Terms(reserve=True, idle_seconds=10, most=1, memory_bytes=100, retry=True)
    other = Terms(idle_seconds=20, most=3, memory_bytes=50, retry=False)
    assert together([one, other]) == Terms(True, 20, 3, 100, False)
    assert together([one, DEFAULT]) == Terms(True, None, None, None, True)
