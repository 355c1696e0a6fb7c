from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar import testing
from instar.core.errors import Conflict, MalformedRequest
from instar.core.ids import call_id
from instar.core.store import Store
from instar.operate.outcomes import Item, find, join, post, settle_parked

CALLS = [call_id(1_700_000_000_000 + second, boot=3, sequence=second) for second in range(5)]


def always(_: str) -> bool:
    return True


def never(_: str) -> bool:
    return False


def joined(store: Store, calls: list[str] = CALLS) -> list[float | None]:
    frame = pl.DataFrame({"prediction": [f"{call}/0" for call in calls]})
    return join(store, frame)["truth"].to_list()


def test_outcomes_join_their_predictions_in_the_frames_order(store: Store) -> None:
    post(store, "flights", [Item(f"{CALLS[3]}/0", True), Item(f"{CALLS[1]}/0", 0)], always)
    assert joined(store) == [None, 0.0, None, 1.0, None]
    assert joined(store, CALLS[::-1]) == [None, 1.0, None, 0.0, None]


def test_the_same_outcome_again_has_no_effect(store: Store) -> None:
    first = post(store, "flights", [Item(f"{CALLS[0]}/0", True)], always)
    again = post(store, "flights", [Item(f"{CALLS[0]}/0", 1.0)], always)
    assert [receipt.state for receipt in (*first.receipts, *again.receipts)] == ["recorded", "unchanged"]
    assert again.receipts[0].outcome == first.receipts[0].outcome
    assert len(find(store, f"{CALLS[0]}/0")) == 1


def test_another_value_is_a_conflict_and_nothing_of_the_posting_stays(store: Store) -> None:
    post(store, "flights", [Item(f"{CALLS[0]}/0", True)], always)
    with pytest.raises(Conflict, match="corrects"):
        post(store, "flights", [Item(f"{CALLS[1]}/0", True), Item(f"{CALLS[0]}/0", False)], always)
    assert joined(store) == [1.0, None, None, None, None]


def test_two_values_in_one_posting_are_a_conflict(store: Store) -> None:
    with pytest.raises(Conflict):
        post(store, "flights", [Item(f"{CALLS[0]}/0", True), Item(f"{CALLS[0]}/0", False)], always)
    assert joined(store) == [None] * 5


def test_a_correction_names_what_it_corrects_and_keeps_it(store: Store) -> None:
    old = post(store, "flights", [Item(f"{CALLS[0]}/0", True)], always).receipts[0]
    correction = Item(f"{CALLS[0]}/0", False, corrects=old.outcome)
    new = post(store, "flights", [correction], always).receipts[0]
    assert new.state == "corrected"
    assert joined(store)[0] == 0.0
    assert [(row["value"], row["corrected_by"]) for row in find(store, f"{CALLS[0]}/0")] == [
        (1.0, new.outcome),
        (0.0, None),
    ]
    # A client that retries its correction is told that it holds.
    assert post(store, "flights", [correction], always).receipts[0].state == "unchanged"


@pytest.mark.parametrize("known", [True, False])
def test_a_correction_of_something_else_is_a_conflict(store: Store, known: bool) -> None:
    if known:
        post(store, "flights", [Item(f"{CALLS[0]}/0", True)], always)
    with pytest.raises(Conflict, match="does not hold"):
        post(store, "flights", [Item(f"{CALLS[0]}/0", False, corrects="outc_other/0")], always)


def test_truth_and_reaction_stand_side_by_side(store: Store) -> None:
    post(store, "flights", [Item(f"{CALLS[0]}/0", True), Item(f"{CALLS[0]}/0", "rebooked", "reaction")], always)
    assert joined(store)[0] == 1.0
    assert join(store, pl.DataFrame({"prediction": [f"{CALLS[0]}/0"]}), "reaction")["outcome"][0] is not None


def test_unseen_calls_are_parked_and_joined_when_they_are_seen(store: Store) -> None:
    posted = post(store, "flights", [Item(f"{CALLS[0]}/0", 1), Item(f"{CALLS[1]}/0", 0)], CALLS[1].__eq__)
    assert [receipt.state for receipt in posted.receipts] == ["parked", "recorded"]
    assert settle_parked(store, "flights", never, timedelta(days=1)).waiting == 1
    settled = settle_parked(store, "flights", always, timedelta(days=1))
    assert (settled.joined, settled.waiting) == (1, 0)
    assert joined(store)[:2] == [1.0, 0.0]
    assert settle_parked(store, "flights", never, timedelta(days=1)).waiting == 0


def test_parked_outcomes_are_overdue_after_the_horizon_and_stay(store: Store) -> None:
    post(store, "flights", [Item(f"{CALLS[0]}/0", 1)], never)
    store.clock.advance_to(store.clock.event() + timedelta(days=2))  # type: ignore[attr-defined]
    settled = settle_parked(store, "flights", never, timedelta(days=1))
    assert settled.overdue == (f"{CALLS[0]}/0",)
    assert settled.waiting == 1


@pytest.mark.parametrize(
    "item",
    [
        Item("call_1/0", 1),
        Item(CALLS[0], 1),
        Item(f"{CALLS[0]}/-1", 1),
        Item(f"{CALLS[0]}/00", 1),
        Item(f"{CALLS[0]}/0", float("nan")),
        Item(f"{CALLS[0]}/0", float("inf")),
        Item(f"{CALLS[0]}/0", 2),
        Item(f"{CALLS[0]}/0", "yes"),
        Item(f"{CALLS[0]}/0", 1, "opinion"),
        Item(f"{CALLS[0]}/0", "", "reaction"),
        Item(f"{CALLS[0]}/0", "x" * 201, "reaction"),
    ],
)
def test_malformed_outcomes_are_refused_whole(store: Store, item: Item) -> None:
    with pytest.raises(MalformedRequest):
        post(store, "flights", [Item(f"{CALLS[1]}/0", 1), item], always, frozenset({0.0, 1.0}))
    assert joined(store) == [None] * 5


def test_joining_no_predictions_gives_the_columns(store: Store) -> None:
    frame = join(store, pl.DataFrame({"prediction": []}, schema={"prediction": pl.String}))
    assert frame.columns == ["prediction", "outcome", "truth", "observed_at"]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=12))
def test_whatever_is_posted_the_first_value_of_each_prediction_holds(posts: list[tuple[int, bool]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store = testing.memory_store(Path(folder))
        first: dict[int, bool] = {}
        for place, value in posts:
            holds = first.setdefault(place, value)
            item = Item(f"{CALLS[place]}/0", value)
            if holds == value:
                post(store, "flights", [item], always)
            else:
                with pytest.raises(Conflict):
                    post(store, "flights", [item], always)
        assert joined(store)[:3] == [None if place not in first else float(first[place]) for place in range(3)]
        store.database.close()
