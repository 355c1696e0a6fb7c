"""Checks: one query, by row or once, and quarantine with the reason."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from instar.core.errors import BadInput, CheckFailed, MissingColumn
from instar.data import checks
from instar.data.checks import Check, CheckResult

FRAME = pl.DataFrame({"a": [1, -2, None, 4], "k": ["x", "y", "y", None]})


def test_by_row_and_once_for_the_table() -> None:
    asked = [
        Check("positive", pl.col("a") > 0),
        Check("enough", pl.len() >= 3, "warn"),
        Check("mean", pl.col("a").mean() > 5),
    ]
    assert checks.run_checks(FRAME, asked) == [
        CheckResult("positive", "error", False, 1, 4),  # a null passes, as in SQL
        CheckResult("enough", "warn", True, None, 4),
        CheckResult("mean", "error", False, None, 4),
    ]


def test_all_checks_are_one_query(monkeypatch: pytest.MonkeyPatch) -> None:
    queries = []
    collect = pl.LazyFrame.collect

    def counted(self: pl.LazyFrame, *args: Any, **options: Any) -> Any:
        queries.append(self)
        return collect(self, *args, **options)

    monkeypatch.setattr(pl.LazyFrame, "collect", counted)
    results = checks.run_checks(FRAME.lazy(), [Check(f"check {place}", pl.col("a") > -place) for place in range(20)])
    assert len(results) == 20
    assert len(queries) == 1


def test_an_empty_table_breaks_no_check_by_row() -> None:
    [result] = checks.run_checks(FRAME.clear(), [Check("positive", pl.col("a") > 0)])
    assert (result.passed, result.failing_rows, result.rows) == (True, 0, 0)


def test_unique_refuses_doubles_and_nulls() -> None:
    [result] = checks.run_checks(FRAME, [checks.unique(["k"])])
    assert (result.passed, result.failing_rows) == (False, 3)


def test_a_failed_error_stops_and_a_failed_warning_does_not() -> None:
    warned = CheckResult("few nulls", "warn", False, 2, 4)
    checks.require([warned], "flights")
    with pytest.raises(CheckFailed, match=r"table flights.*positive \(fails on 1 of 4 rows\)"):
        checks.require([warned, CheckResult("positive", "error", False, 1, 4)], "flights")


@pytest.mark.parametrize(
    ("expression", "error", "words"),
    [
        (pl.col("nope") > 0, MissingColumn, "nope"),
        (pl.col("a") + 1, BadInput, "asked for Boolean"),
        (pl.col("a") > pl.col("k").str.to_datetime("%Y").dt.year().str.to_lowercase(), BadInput, "cannot be computed"),
    ],
)
def test_unusable_checks_name_themselves(expression: pl.Expr, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        checks.run_checks(FRAME, [Check("fine", pl.col("a") > 0), Check("bad one", expression)])
    assert "check bad one" in str(caught.value)


def test_severities_are_known() -> None:
    with pytest.raises(BadInput, match="error or warn"):
        Check("x", pl.lit(True), "fatal")


def test_quarantine_gives_the_first_reason_and_keeps_earlier_ones() -> None:
    marked = checks.quarantine(FRAME, negative=pl.col("a") < 0, no_key=pl.col("k").is_null())
    assert marked["_reason"].to_list() == [None, "negative", None, "no_key"]
    again = checks.quarantine(marked.lazy(), small=pl.col("a") < 2).collect()
    assert again["_reason"].to_list() == ["small", "negative", None, "no_key"]
    clean, bad = checks.split_quarantine(again)
    assert clean.columns == ["a", "k"]
    assert clean.height == 1
    assert bad is not None
    assert bad["_reason"].to_list() == ["small", "negative", "no_key"]


def test_frames_without_marks_are_clean() -> None:
    clean, bad = checks.split_quarantine(FRAME)
    assert clean is FRAME
    assert bad is None
    with pytest.raises(BadInput, match="at least one reason"):
        checks.quarantine(FRAME)
