"""The cut is by time alone: nothing of a later part is in an earlier one, and equal rows give equal digests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.core.errors import ContractError
from instar.evaluate.split import cut
from instar.plan.project import Split

SPLIT = Split(decide=timedelta(days=14), judge=timedelta(days=14))
FIRST = datetime(2013, 1, 1, tzinfo=UTC)


def table(days: int = 60, zone: str | None = "UTC") -> pl.DataFrame:
    times = [FIRST + timedelta(hours=6 * i) for i in range(4 * days)]
    frame = pl.DataFrame({"at": times, "x": range(4 * days)})
    return frame.with_columns(
        pl.col("at").dt.convert_time_zone(zone) if zone else pl.col("at").dt.replace_time_zone(None)
    )


def test_the_latest_rows_judge() -> None:
    parts = cut(table(), SPLIT, "at", until=FIRST + timedelta(days=60))
    assert [part.rows.height for part in parts.parts] == [32 * 4, 14 * 4, 14 * 4]
    assert parts.fit["x"].to_list() == list(range(128))
    assert parts.judge["at"].min() == FIRST + timedelta(days=46)


def test_rows_after_until_are_in_no_part() -> None:
    parts = cut(table(), SPLIT, "at", until=FIRST + timedelta(days=50))
    assert parts.judge["at"].max() == FIRST + timedelta(days=50) - timedelta(hours=6)
    assert sum(part.rows.height for part in parts.parts) == 200


def test_without_until_all_rows_are_taken() -> None:
    parts = cut(table(), SPLIT, "at")
    assert sum(part.rows.height for part in parts.parts) == 240
    assert parts.judge["at"].max() == table()["at"].max()


def test_bounds_and_digests_are_on_the_record() -> None:
    described = cut(table(), SPLIT, "at", until=FIRST + timedelta(days=60)).describe()
    assert described["fit"]["since"] is None
    assert described["fit"]["until"] == described["decide"]["since"] == "2013-02-02T00:00:00+00:00"
    assert described["judge"]["rows"] == 56
    assert all(part["digest"].startswith("b3:") for part in described.values())


def test_a_change_of_one_judge_row_changes_the_judge_digest_only() -> None:
    changed = table().with_columns(pl.when(pl.col("x") == 230).then(-1).otherwise(pl.col("x")).alias("x"))
    before, after = cut(table(), SPLIT, "at").digests, cut(changed, SPLIT, "at").digests
    assert {name for name in before if before[name] != after[name]} == {"judge"}


def test_more_history_leaves_the_judge_digest_alone() -> None:
    until = FIRST + timedelta(days=60)
    longer = pl.concat([table().with_columns(pl.col("at") - timedelta(days=60)), table()])
    before, after = cut(table(), SPLIT, "at", until).digests, cut(longer, SPLIT, "at", until).digests
    assert before["judge"] == after["judge"]
    assert before["fit"] != after["fit"]


@pytest.mark.parametrize("zone", [None, "America/New_York"])
def test_zones_do_not_move_the_cut(zone: str | None) -> None:
    until = FIRST + timedelta(days=60)
    assert (
        cut(table(zone=zone), SPLIT, "at", until).judge["x"].to_list()
        == cut(table(), SPLIT, "at", until).judge["x"].to_list()
    )


def test_dates_are_times() -> None:
    frame = table().with_columns(pl.col("at").dt.date())
    assert cut(frame, SPLIT, "at", FIRST + timedelta(days=60)).judge.height == 56


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (table(days=20), "no row is left to fit on"),
        (table().clear(), "no rows to cut"),
        (table().rename({"at": "then"}), "no such column"),
        (table().with_columns(at=pl.col("x")), "holds no times"),
        (table().with_columns(at=pl.when(pl.col("x") > 3).then("at")), "rows without a time"),
    ],
)
def test_a_table_that_cannot_be_cut_says_why(frame: pl.DataFrame, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        cut(frame, SPLIT, "at")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 80 * 24), min_size=30, max_size=120), st.integers(40, 90))
def test_parts_follow_each_other_and_lose_nothing(hours: list[int], day: int) -> None:
    times = [FIRST + timedelta(hours=hour) for hour in hours]
    until = FIRST + timedelta(days=day)
    frame = pl.DataFrame({"at": times, "row": range(len(times))})
    try:
        parts = cut(frame, SPLIT, "at", until)
    except ContractError:
        return  # a part would be empty
    assert parts.fit["at"].max() < parts.decide["at"].min() <= parts.decide["at"].max() < parts.judge["at"].min()
    assert sum(part.rows.height for part in parts.parts) == sum(time < until for time in times)
