"""The board: nothing begins before its inputs, each once, at most so many at once, and one job walks in the given order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instar.plan.board import Board

GRAPHS = st.integers(1, 12).flatmap(
    lambda size: st.tuples(
        st.just(size), st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=30)
    )
)


def needs_of(graph: tuple[int, list[tuple[int, int]]]) -> dict[int, list[int]]:
    size, edges = graph
    return {unit: sorted({low for low, high in edges if high == unit and low < unit}) for unit in range(size)}


@given(GRAPHS, st.integers(1, 5), st.randoms(use_true_random=False), st.data())
def test_every_unit_begins_once_after_its_inputs_and_at_most_jobs_at_once(graph, jobs, chance, data) -> None:  # type: ignore[no-untyped-def]
    needs = needs_of(graph)
    board: Board[int] = Board(needs, jobs)
    begun: list[int] = []
    done: set[int] = set()
    rested: set[int] = set()
    while not board.finished():
        unit = board.take()
        if unit is not None:
            assert set(needs[unit]) <= done
            assert len(board.running) <= jobs
            if unit not in rested:
                begun.append(unit)
            continue
        if board.running:
            ended = chance.choice(sorted(board.running))
            if ended not in rested and data.draw(st.booleans()):  # it fails once, and is tried again later
                rested.add(ended)
                board.rest(ended)
            else:
                board.done(ended)
                done.add(ended)
        else:
            board.wake(chance.choice(sorted(board.resting)))
    assert sorted(begun) == sorted(needs)
    assert done == set(needs)
    assert board.left() == []


@given(GRAPHS)
def test_one_job_walks_in_the_given_order(graph) -> None:  # type: ignore[no-untyped-def]
    needs = needs_of(graph)
    board: Board[int] = Board(needs)
    order = []
    while (unit := board.take()) is not None:
        order.append(unit)
        board.done(unit)
    assert order == list(needs)


@given(GRAPHS, st.integers(1, 4), st.booleans(), st.data())
def test_after_a_failure_nothing_that_depends_on_it_begins(graph, jobs, keep_going, data) -> None:  # type: ignore[no-untyped-def]
    needs = needs_of(graph)
    board: Board[int] = Board(needs, jobs, keep_going)
    bad = data.draw(st.sampled_from(sorted(needs)))
    begun, failed, lost = set(), False, []
    while not board.finished():
        unit = board.take()
        if unit is not None:
            assert keep_going or not failed, "it begins nothing more, unless told to keep going"
            begun.add(unit)
            continue
        ended = min(board.running)
        if ended == bad:
            lost, failed = board.fail(ended), True
        else:
            board.done(ended)
    after = {bad}
    for unit in needs:
        if after & set(needs[unit]):
            after.add(unit)
    assert set(lost) == after - {bad}
    assert not begun & set(lost)
    if keep_going:
        assert begun == set(needs) - set(lost)


def test_a_unit_that_is_split_begins_again_after_its_parts() -> None:
    board: Board[str] = Board({"a": [], "b": ["a"], "c": []}, jobs=2)
    assert board.take() == "a"
    board.split("a", ["a1", "a2", "a3"])
    assert [board.take(), board.take(), board.take()] == ["a1", "a2", None]
    board.done("a2")
    assert board.take() == "a3"
    board.done("a1")
    board.done("a3")
    assert board.take() == "a"
    board.done("a")
    assert sorted([board.take(), board.take()]) == ["b", "c"]


def test_a_part_that_fails_loses_the_whole_and_what_reads_it() -> None:
    board: Board[str] = Board({"a": [], "b": ["a"]}, keep_going=True)
    board.take()
    board.split("a", ["a1", "a2"])
    assert board.take() == "a1"
    assert board.fail("a1") == ["a", "b"]
    assert board.take() == "a2", "its other parts may still be of use the next time"
    board.done("a2")
    assert board.finished()
