"""Checks: what must hold of a table before anybody builds on it, all answered in one query when a version is written.

A check is a boolean Polars expression. One value a row: it must hold on every row. One value in all (an aggregate): it
must hold once. A null, unknown, passes as in SQL; ask for `is_not_null()` to refuse it. Rows that are known to be bad
go aside with `quarantine`, which marks each with the reason; the framework then splits them into `<table>__quarantine`.

    clean = quarantine(rows, negative_distance=pl.col("distance") < 0)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import polars as pl

from instar.core.errors import BadInput, CheckFailed, MissingColumn

REASON = "_reason"
SEVERITIES = ("error", "warn")

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)


@dataclass(frozen=True)
class Check:
    """An expectation on a table: `"error"` stops the pipeline, `"warn"` raises an alert."""

    name: str
    expression: pl.Expr
    severity: str = "error"

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise BadInput(
                "a check has no such severity",
                subject=f"check {self.name}",
                found=self.severity,
                asked=" or ".join(SEVERITIES),
            )


@dataclass(frozen=True)
class CheckResult:
    """What a check found; `failing_rows` is None for a check that holds or fails once for the whole table."""

    name: str
    severity: str
    passed: bool
    failing_rows: int | None
    rows: int


def unique(key: Iterable[str]) -> Check:
    """The check that no two rows have the same key and no part of it is null."""
    columns = list(key)
    clean = pl.all_horizontal([pl.col(name).is_not_null() for name in columns])
    return Check(f"key {', '.join(columns)} is unique", pl.struct(columns).is_unique() & clean)


def run_checks(frame: pl.DataFrame | pl.LazyFrame, checks: Iterable[Check]) -> list[CheckResult]:
    """Answer all checks in one lazy query over the frame.

    Raises:
        MissingColumn: A check names a column that the table has not.
        BadInput: A check is not boolean, or cannot be computed on this table.
    """
    asked = list(checks)
    if not asked:
        return []
    lazy = frame.lazy()
    _refuse_unusable(lazy, asked)
    columns = [pl.len().alias("rows")]
    for place, check in enumerate(asked):
        columns.append((~check.expression).sum().alias(f"failing {place}"))
        columns.append(check.expression.len().alias(f"answers {place}"))
    try:
        found = lazy.select(columns).collect().row(0, named=True)
    except pl.exceptions.PolarsError as error:
        raise _unanswerable(lazy, asked, error) from error
    rows = found["rows"]
    results = []
    for place, check in enumerate(asked):
        failing, answers = found[f"failing {place}"], found[f"answers {place}"]
        results.append(
            CheckResult(check.name, check.severity, failing == 0, failing if answers == rows else None, rows)
        )
    return results


def require(results: Iterable[CheckResult], table: str) -> None:
    """Raises CheckFailed when a check of severity `error` did not hold."""
    failed = [result for result in results if not result.passed and result.severity == "error"]
    if not failed:
        return
    words = [
        result.name
        if result.failing_rows is None
        else f"{result.name} (fails on {result.failing_rows} of {result.rows} rows)"
        for result in failed
    ]
    raise CheckFailed(
        "it breaks its checks, so no version was written",
        subject=f"table {table}",
        found="; ".join(words),
        asked="checks of severity error hold",
        next_step="Send bad rows to quarantine in the step that makes the table, or mend the source.",
    )


def quarantine(frame: Frame, **reasons: pl.Expr) -> Frame:
    """Mark the rows for which an expression is true with its name as the reason, in the column `_reason`.

    The first reason that holds counts, earlier marks stay, and a null expression does not hold.

    Raises:
        BadInput: No reason is given.
    """
    if not reasons:
        raise BadInput(
            "quarantine needs at least one reason",
            subject="quarantine",
            next_step="Give each as name=expression, e.g. quarantine(rows, no_price=pl.col('price').is_null()).",
        )
    marks: list[Any] = [pl.when(expression.fill_null(False)).then(pl.lit(name)) for name, expression in reasons.items()]
    schema = frame.collect_schema() if isinstance(frame, pl.LazyFrame) else frame.schema
    earlier: list[Any] = [pl.col(REASON)] if REASON in schema else []
    return frame.with_columns(pl.coalesce([*earlier, *marks]).cast(pl.String).alias(REASON))


def split_quarantine(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """The clean rows without `_reason`, and the bad ones with it; None when the frame marks none at all."""
    if REASON not in frame.columns:
        return frame, None
    bad = pl.col(REASON).is_not_null()
    return frame.filter(~bad).drop(REASON), frame.filter(bad)


def from_records(records: Iterable[Mapping[str, Any]]) -> list[CheckResult]:
    """Results as they were kept."""
    return [CheckResult(**record) for record in records]


def _refuse_unusable(lazy: pl.LazyFrame, checks: list[Check]) -> None:
    # The schema of all checks at once costs nothing; only when it fails are they asked one by one, to name the bad one.
    try:
        types = lazy.select(check.expression.alias(str(place)) for place, check in enumerate(checks)).collect_schema()
    except pl.exceptions.PolarsError as error:
        raise _unanswerable(lazy, checks, error) from error
    for check, found in zip(checks, types.dtypes(), strict=True):
        if found != pl.Boolean:
            raise BadInput("a check must be true or false", subject=f"check {check.name}", found=found, asked="Boolean")


def _unanswerable(lazy: pl.LazyFrame, checks: list[Check], error: pl.exceptions.PolarsError) -> BadInput:
    """The error that names which check cannot be answered, and why."""
    name = ", ".join(check.name for check in checks)
    for check in checks:
        try:
            lazy.select(check.expression.alias("check")).collect()
        except pl.exceptions.PolarsError as cause:
            name, error = check.name, cause
            break
    first_line = str(error).split("\n")[0]
    if isinstance(error, pl.exceptions.ColumnNotFoundError):
        columns = ", ".join(lazy.collect_schema().names())
        return MissingColumn(
            "it asks for a column that the table has not", subject=f"check {name}", found=columns, asked=first_line
        )
    return BadInput("it cannot be computed on this table", subject=f"check {name}", found=first_line)
