"""Finding calls on the record by what they were: who called, which version answered, when, and what was asked and answered.

    found = search(store, log, "flights", Query(caller="ada", inputs=(condition("carrier=UA"),)))
    found.rows, found.cursor          # newest first; the cursor asks for the next page

The catalogue leaves few files to look at; of a file only the columns are read that are asked about, newest rows first, and of
those only groups whose lowest and highest values can fit; whole rows are read of what was found alone. Proofs are never opened.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from instar.core.errors import BadInput, NotFound
from instar.core.ids import parse_prediction_id
from instar.core.store import Store
from instar.serve.log import catalogue, erasing, layout, skipped
from instar.serve.log.calls import CallLog
from instar.serve.log.catalogue import Unit
from instar.serve.log.skipped import Counted

MOST = 1000  # predictions of one page
PLAIN = ("caller", "version", "status", "reason", "key", "entity", "request_id")
_CONDITION = re.compile(r"\s*(.*?)\s*(!=|>=|<=|=|>|<)\s*(.*?)\s*\Z", re.DOTALL)
_WINDOWS = (1, 4, 16, 64)  # row groups read at once, the newest first

OPERATORS: dict[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "=": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
    ">": lambda column, value: column > value,
    "<": lambda column, value: column < value,
    ">=": lambda column, value: column >= value,
    "<=": lambda column, value: column <= value,
}


@dataclass(frozen=True)
class Condition:
    """A comparison of a column with a value that is still text: the column's type reads it."""

    column: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.column}{self.operator}{self.value}"


@dataclass(frozen=True)
class Query:
    """What to look for; what is null is not asked.

    Attributes:
        since, until: Event times, from `since` on and before `until`.
        inputs: Conditions on inputs, all of which hold.
        score: Conditions on the score.
        limit: Predictions of one page, `MOST` at most.
        cursor: Where the page before ended.
    """

    endpoint: str | None = None
    caller: str | None = None
    version: int | None = None
    status: int | None = None
    reason: str | None = None
    key: str | None = None
    entity: str | None = None
    request_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    inputs: tuple[Condition, ...] = ()
    score: tuple[Condition, ...] = ()
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True)
class Found:
    """A page of predictions, newest first, as mappings of the log's columns; of erased ones `erased` says when and why.

    Attributes:
        cursor: Asks for the next page; null on the last.
        files: Files of sealed calls that were opened.
        counted: Calls of that time that have no entry of their own, but are counted; with the first page.
    """

    rows: list[dict[str, Any]]
    cursor: str | None
    files: int
    counted: tuple[Counted, ...] = ()


def condition(text: str, column: str | None = None) -> Condition:
    """`carrier=UA`, `distance>1000`; with `column` the comparison alone, `>0.5`.

    Raises:
        BadInput: It is no comparison.
    """
    match = _CONDITION.match(text)
    if match is None or (not match.group(1) and column is None) or (column is not None and match.group(1)):
        asked = "a comparison such as carrier=UA or distance>1000" if column is None else "a comparison such as >0.5"
        raise BadInput("that is no condition", found=repr(text), asked=asked)
    return Condition(column or match.group(1), match.group(2), match.group(3))


def search(store: Store, log: CallLog, project: str, query: Query, *, among: Set[str] | None = None) -> Found:
    """A page of the predictions of a project that a query describes, newest call first.

    Args:
        among: The only endpoints that are looked at; None for all of the project.

    Raises:
        BadInput: No endpoint has an input of that name, a value is not of the input's type, or the limit is out of range.
        NotFound: The project has no such endpoint.
    """
    if not 1 <= query.limit <= MOST:
        raise BadInput("the limit is no such number", found=query.limit, asked=f"1 to {MOST}")
    before = parse_prediction_id(query.cursor) if query.cursor else None
    endpoints = [one for one in log.endpoints_of(project) if among is None or one in among]
    if query.endpoint is not None:
        if query.endpoint not in endpoints:
            raise NotFound(
                "no call of such an endpoint is on the record", subject=query.endpoint, found=", ".join(endpoints)
            )
        endpoints = [query.endpoint]
    walk = _Walk(store, query, before)
    for endpoint in endpoints:
        walk.fresh(endpoint, log.unsealed(endpoint, query.since, query.until))
    walk.sealed([one for one in _units(store, project, query) if one.endpoint in endpoints])
    walk.prove_names()
    page, more = walk.rows[: query.limit], len(walk.rows) > query.limit
    cursor = page[-1]["prediction"] if more else None
    counted = skipped.search(store, log, project, query.endpoint, query.since, query.until) if before is None else ()
    return Found(_told(store, page), cursor, walk.files, tuple(counted))


def _units(store: Store, project: str, query: Query) -> list[Unit]:
    found = catalogue.units(store, project=project, endpoint=query.endpoint, since=query.since, until=query.until)
    return [one for one in found if _may_hold(one, query)]


def _may_hold(unit: Unit, query: Query) -> bool:
    """Do the values that the catalogue lists leave it open?"""
    for name in layout.LISTED:
        asked = getattr(query, name)
        if asked is not None and name in unit.listed and asked not in unit.listed[name]:
            return False
    return query.cursor is None or unit.first_call <= query.cursor


class _Walk:
    """Gathers what fits, newest first, and stops when nothing newer can come."""

    def __init__(self, store: Store, query: Query, before: tuple[str, int] | None) -> None:
        self._store = store
        self._query = query
        self._before = before
        self._inputs: set[str] = set()
        self._asked = False
        self.rows: list[dict[str, Any]] = []
        self.files = 0

    def fresh(self, endpoint: str, frames: Iterable[pl.DataFrame]) -> None:
        """Look through rows that are not sealed yet."""
        for frame in frames:
            which = self._which(frame.schema)
            if which is not None:
                self._keep(frame.filter(which), endpoint)

    def sealed(self, units: Sequence[Unit]) -> None:
        """Look through units, those with the newest calls first."""
        for unit in sorted(units, key=lambda one: one.last_call, reverse=True):
            if self._full() and self.rows[self._query.limit]["call"] > unit.last_call:
                return
            self._unit(unit)

    def prove_names(self) -> None:
        """An input that no row has is a mistake in the question, not an empty answer."""
        unknown = [one.column for one in self._query.inputs if one.column not in self._inputs]
        if self._asked and unknown and not self.rows:
            near = difflib.get_close_matches(unknown[0], self._inputs, 1)
            raise BadInput(
                "no call has such an input", found=unknown[0], asked=", ".join(sorted(self._inputs)) or "an endpoint with inputs",
                next_step=f"Did you mean {near[0]}?" if near else "",
            )  # fmt: skip

    def _full(self) -> bool:
        return len(self.rows) > self._query.limit

    def _unit(self, unit: Unit) -> None:
        path = catalogue.tables_folder(self._store.folder, unit.project) / unit.rows_path
        self.files += 1
        with pq.ParquetFile(path) as file:
            schema = pl.read_parquet_schema(path)
            which = self._which(schema)
            if which is None:
                return
            stored = {name: kept for name, (kept, _) in layout.fields_of(schema.get("inputs")).items()}
            columns = self._columns(stored)
            newest = len(self.rows)
            for groups in self._windows(file, stored):
                fits = _table(file, groups, columns).with_row_index("_place").filter(which)
                if fits.height:
                    places = fits["_place"].tail(self._query.limit + 1)
                    self._keep(_whole_rows(file, groups, places), unit.endpoint)
                if len(self.rows) - newest > self._query.limit:
                    return  # groups are in order of their calls: all that follow are older

    def _windows(self, file: pq.ParquetFile, stored: Mapping[str, str]) -> Iterator[list[int]]:
        """Groups of a file that can hold what is asked, a growing number at once, the newest first."""
        left = list(self._fits(file, stored))
        at = 0
        while left:
            take = _WINDOWS[min(at, len(_WINDOWS) - 1)]
            left, now = left[:-take], left[-take:]
            at += 1
            yield now

    def _fits(self, file: pq.ParquetFile, stored: Mapping[str, str]) -> Iterator[int]:
        """Groups whose lowest and highest values leave it open that they hold what is asked."""
        query = self._query
        checks = [(f"inputs.{stored[one.column]}", one) for one in query.inputs] + [
            ("score", one) for one in query.score
        ]
        wanted = {"at", "call", *(path for path, _ in checks)}
        places = {
            file.schema.column(n).path: n for n in range(len(file.schema)) if file.schema.column(n).path in wanted
        }
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            bounds = {path: group.column(n).statistics for path, n in places.items()}
            if self._in_time(bounds) and all(_possible(bounds.get(path), one) for path, one in checks):
                yield number

    def _in_time(self, bounds: Mapping[str, Any]) -> bool:
        query, at, call = self._query, bounds.get("at"), bounds.get("call")
        if at is not None and at.has_min_max:
            if query.since is not None and at.max < query.since:
                return False
            if query.until is not None and at.min >= query.until:
                return False
        return self._before is None or call is None or not call.has_min_max or call.min <= self._before[0]

    def _columns(self, stored: Mapping[str, str]) -> list[str]:
        """Paths of the columns that the question is about."""
        query = self._query
        names = ["call", "row"] + [name for name in PLAIN if getattr(query, name) is not None]
        names += ["at"] if query.since is not None or query.until is not None else []
        names += ["score"] if query.score else []
        if not query.inputs:
            return names
        # A column whose name has a dot in it cannot be told from a path: then all inputs are read.
        dotted = any("." in one.column for one in query.inputs)
        return [*names, *(["inputs"] if dotted else [f"inputs.{stored[one.column]}" for one in query.inputs])]

    def _which(self, schema: Mapping[str, pl.DataType]) -> pl.Expr | None:
        """What rows of such columns have to fulfil; null where they cannot."""
        query = self._query
        parts = [pl.col(name) == getattr(query, name) for name in PLAIN if getattr(query, name) is not None]
        parts += [pl.col("at") >= query.since] if query.since is not None else []
        parts += [pl.col("at") < query.until] if query.until is not None else []
        parts += [_compared(pl.col("score"), one, pl.Float64()) for one in query.score]
        if self._before is not None:
            call, row = self._before
            parts.append((pl.col("call") < call) | ((pl.col("call") == call) & (pl.col("row") < row)))
        if query.inputs:
            fields = layout.fields_of(schema.get("inputs"))
            self._asked = True
            self._inputs |= fields.keys()
            for one in query.inputs:
                if one.column not in fields:
                    return None
                parts.append(self._input(one, *fields[one.column]))
        return pl.all_horizontal(parts) if parts else pl.lit(True)

    def _input(self, one: Condition, stored: str, dtype: pl.DataType) -> pl.Expr:
        value = pl.col("inputs").struct.field(stored)
        masks = erasing.masked(self._store, one.column, one.value) if dtype == pl.String and one.operator == "=" else []
        return value.is_in([one.value, *masks]) if masks else _compared(value, one, dtype)

    def _keep(self, rows: pl.DataFrame, endpoint: str) -> None:
        if not rows.height:
            return
        newest = rows.sort("call", "row").tail(self._query.limit + 1)
        found = layout.logged(newest, endpoint, erased=True).to_dicts()
        whole = sorted([*self.rows, *found], key=lambda one: (one["call"], one["row"]), reverse=True)
        self.rows = whole[: self._query.limit + 1]


def _table(file: pq.ParquetFile, groups: list[int], columns: list[str]) -> pl.DataFrame:
    found = pl.from_arrow(file.read_row_groups(groups, columns=columns))
    assert isinstance(found, pl.DataFrame)
    return found


def _whole_rows(file: pq.ParquetFile, groups: list[int], places: pl.Series) -> pl.DataFrame:
    """All columns of the rows at some places of some groups, reading only the groups in which they lie."""
    names = [name for name in file.schema_arrow.names if name not in ("frames", *layout.DERIVED)]
    parts, start = [], 0
    for group in groups:
        count = file.metadata.row_group(group).num_rows
        here = places.filter((places >= start) & (places < start + count)) - start
        if here.len():
            parts.append(_table(file, [group], names)[here.to_list()])
        start += count
    return pl.concat(parts)


def _compared(column: pl.Expr, one: Condition, dtype: pl.DataType) -> pl.Expr:
    return OPERATORS[one.operator](
        column, pl.lit(_read(one, dtype), dtype=pl.Float64() if dtype.is_numeric() else dtype)
    )


def _read(one: Condition, dtype: pl.DataType) -> Any:
    """The value of a condition as a column's type reads it."""
    if dtype == pl.String:
        return one.value
    if dtype == pl.Boolean and one.value.lower() in ("true", "false"):
        return one.value.lower() == "true"
    if dtype.is_numeric():
        try:
            return float(one.value)
        except ValueError:
            pass
    if isinstance(dtype, pl.Struct):
        raise BadInput("a tensor cannot be compared with a value", found=str(one), asked="a column of a table model")
    kind = "true or false" if dtype == pl.Boolean else "a number"
    raise BadInput(
        "the value is not of the column's type", subject=f"condition {one}", found=repr(one.value), asked=kind
    )


def _possible(bounds: Any, one: Condition) -> bool:
    """Can a group whose lowest and highest values are these hold what a condition asks for?"""
    if bounds is None or not bounds.has_min_max or isinstance(bounds.min, str | bytes | bool):
        return True
    try:
        value = float(one.value)
    except ValueError:
        return True  # said clearly when the values themselves are compared
    low, high = float(bounds.min), float(bounds.max)
    fits = {
        "=": low <= value <= high, ">": high > value, ">=": high >= value, "<": low < value, "<=": low <= value,
    }  # fmt: skip
    return fits.get(one.operator, True)


def _told(store: Store, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose `erased` says when and why, instead of the id alone."""
    names = {row["erased"] for row in rows if row["erased"]}
    known = {name: erasing.get(store, name) for name in names}
    for row in rows:
        one = known.get(row["erased"])
        row["erased"] = None if one is None else {"id": one.id, "at": one.done_at or one.asked_at, "why": one.why}
    return rows
