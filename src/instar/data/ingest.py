"""Ingest: whatever arrives lands in a bronze table as it came, with where it came from and when, the moment it arrives.

A source may promise columns and types; a delivery that breaks the promise is refused whole, with the column and the first
value at fault, and nothing is written. Every landed row carries `_source` (the delivery's name), `_row` (its place in the
delivery, from 0) and `_landed_at`.

    land(store, "flights", step, [Delivery("march.csv", Path("march.csv"), landed_at)], partition="2013-03")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from instar.core.errors import EmptySource, MissingColumn, SourceError, WrongType
from instar.core.store import Store
from instar.data import tables
from instar.data.checks import Check
from instar.data.tables import TableVersion
from instar.plan.pipeline import Step

SOURCE, ROW, LANDED_AT = "_source", "_row", "_landed_at"
ADDED = (SOURCE, ROW, LANDED_AT)
READERS = {".csv": "CSV", ".parquet": "Parquet", ".jsonl": "JSON lines", ".ndjson": "JSON lines"}


@dataclass(frozen=True)
class Delivery:
    """What arrived.

    Attributes:
        name: Where it came from: a file name, a feed's name.
        data: The rows, or a file of them (CSV, Parquet, JSON lines).
        landed_at: When it became known, an aware time.
    """

    name: str
    data: pl.DataFrame | Path
    landed_at: datetime


def land(
    store: Store,
    project: str,
    step: Step,
    deliveries: Sequence[Delivery],
    partition: str | None = None,
    cause: str = "user",
    *,
    mode: str | None = None,
    execution: str | None = None,
    transaction: str | None = None,
    checks: Sequence[Check] = (),
) -> TableVersion:
    """Land deliveries in the bronze table of a source, all of them or none, as one version.

    Args:
        step: The source, with what it promises.
        deliveries: In the order of their rows.
        partition: The partition that these are the whole of, e.g. `"2013-03"`: replaces what landed as it before. Without
            one the rows are added; a delivery that has landed already, just so, changes nothing.
        cause: Who or what brought them.
        mode: `"overwrite"` when these are the whole table; None for the rule above.
        execution, transaction, checks: As of `tables.write_version`.

    Raises:
        EmptySource: There is no delivery, or one has no rows.
        MissingColumn: A promised column is not there.
        WrongType: A promised column cannot be read as its type, or a column has another type than in the table.
        SourceError: A file cannot be read, or a delivery uses a name that landing needs.
    """
    if not deliveries:
        raise EmptySource(
            "nothing was delivered", subject=f"source {step.name}", next_step="Give at least one delivery."
        )
    parts = [_accept(step, delivery) for delivery in deliveries]
    try:
        rows = pl.concat(parts, how="diagonal")
    except pl.exceptions.PolarsError as error:
        raise WrongType(
            "the deliveries have different types",
            subject=f"source {step.name}",
            found=str(error).split("\n")[0],
            next_step="Promise the column's type in the source, or land the deliveries one by one.",
        ) from error
    names = ", ".join(delivery.name for delivery in deliveries[:3]) + (", …" if len(deliveries) > 3 else "")
    chosen = mode or ("append" if partition is None else "replace_partition")
    return tables.write_version(
        store,
        project,
        step.name,
        "bronze",
        rows,
        mode=chosen,
        partition=partition,
        key=step.options.get("key"),
        order=(),  # as it came
        execution=execution,
        transaction=transaction,
        cause=f"{cause}: {names}",
        checks=checks,
        once=chosen == "append",
    )


def read(path: Path, columns: Mapping[str, Any] | None = None) -> pl.DataFrame:
    """The rows of a file, by its ending: .csv, .parquet, .jsonl or .ndjson.

    Args:
        columns: Promised columns: promised text is not guessed to be numbers, so `007` stays `007`.

    Raises:
        EmptySource: The file has no rows.
        SourceError: It is not there, cannot be read, or has an ending we do not know.
    """
    subject = f"file {path.name}"
    ending = path.suffix.lower()
    if ending not in READERS:
        raise SourceError(
            "we cannot tell how to read it",
            subject=subject,
            found=ending or "no ending",
            asked=", ".join(READERS),
            next_step="Convert the file, or read it yourself and land the frame.",
        )
    if not path.is_file():
        raise SourceError("it is not there", subject=subject, asked=f"a file at {path}")
    if path.stat().st_size == 0:
        raise EmptySource("it is empty", subject=subject, found="0 bytes", asked="a header and rows")
    try:
        if ending == ".csv":
            text = {
                name: pl.String for name, promised in (columns or {}).items() if _promised(promised, name) == pl.String
            }
            return pl.read_csv(path, infer_schema_length=None, schema_overrides=text, try_parse_dates=True)
        if ending == ".parquet":
            return pl.read_parquet(path)
        return pl.read_ndjson(path, infer_schema_length=None)
    except pl.exceptions.NoDataError as error:
        raise EmptySource("it has no rows", subject=subject, asked="a header and rows") from error
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        first = str(error).split("\n")[0]
        raise SourceError(f"it cannot be read as {READERS[ending]}", subject=subject, found=first) from error


def _accept(step: Step, delivery: Delivery) -> pl.DataFrame:
    """The rows of a delivery that keeps the source's promise, with the columns that landing adds."""
    subject = f"source {step.name}, delivery {delivery.name}"
    promised: Mapping[str, Any] = step.options.get("columns") or {}
    rows = read(delivery.data, promised) if isinstance(delivery.data, Path) else delivery.data
    if delivery.landed_at.tzinfo is None:
        raise SourceError("its time of landing has no time zone", subject=subject, found=delivery.landed_at.isoformat())
    if not rows.height:
        raise EmptySource("it has no rows", subject=subject, found="0 rows", asked="at least 1")
    taken = [name for name in ADDED if name in rows.columns]
    if taken:
        raise SourceError(
            "it uses names that landing adds", subject=subject, found=", ".join(taken), next_step="Rename the columns."
        )
    absent = [name for name in [*promised, *(step.options.get("key") or ())] if name not in rows.columns]
    if absent:
        raise MissingColumn(
            "promised columns are not there; nothing was landed",
            subject=subject,
            found=", ".join(rows.columns),
            asked=", ".join(dict.fromkeys(absent)),
            next_step="Ask the supplier for them, or change the promise in the source.",
        )
    casts = [_as_promised(rows[name], _promised(kind, name), subject) for name, kind in promised.items()]
    return rows.with_columns(
        *casts,
        pl.lit(delivery.name).alias(SOURCE),
        pl.int_range(pl.len(), dtype=pl.Int64).alias(ROW),
        pl.lit(delivery.landed_at.astimezone(UTC), dtype=pl.Datetime("us", "UTC")).alias(LANDED_AT),
    )


def _as_promised(column: pl.Series, wanted: pl.DataType, subject: str) -> pl.Series:
    if column.dtype == wanted:
        return column
    if column.null_count() == len(column):
        return column.cast(pl.Null).cast(wanted)
    try:
        cast = _parsed(column, wanted)
    except pl.exceptions.PolarsError:
        cast = None
    lost = None if cast is None else column.is_not_null() & cast.is_null()
    if cast is not None and lost is not None and column.dtype.is_float() and wanted.is_integer():
        lost = lost | (column != cast.cast(pl.Float64)).fill_null(False)  # 1.5 is no whole number
    if cast is None or lost is None or lost.any():
        row = int(lost.arg_max() or 0) if lost is not None else 0
        raise WrongType(
            f"column {column.name} cannot be read as promised; nothing was landed",
            subject=subject,
            found=f"{column[row]!r} in row {row} ({column.dtype})",
            asked=str(wanted),
            next_step="Mend the delivery, or change the type in the source.",
        )
    return cast


def _parsed(column: pl.Series, wanted: pl.DataType) -> pl.Series:
    if column.dtype == pl.String and isinstance(wanted, pl.Datetime):
        parsed = column.str.to_datetime(time_unit=wanted.time_unit, time_zone=wanted.time_zone, strict=False)
        return parsed.cast(wanted)
    if column.dtype == pl.String and wanted == pl.Date:
        return column.str.to_date(strict=False)
    if column.dtype == pl.String and wanted == pl.Boolean:
        words = {"true": True, "1": True, "false": False, "0": False}
        return column.str.to_lowercase().replace_strict(words, default=None, return_dtype=pl.Boolean)
    if isinstance(column.dtype, pl.Datetime) and isinstance(wanted, pl.Datetime):
        # A time without a zone is not silently taken to be in the promised one, except for UTC, as ISO text means it.
        if column.dtype.time_zone is None and wanted.time_zone is not None:
            return column.dt.replace_time_zone("UTC").cast(wanted)
        return column.cast(wanted)
    return column.cast(wanted, strict=False)


_PROMISES: dict[Any, pl.DataType] = {
    int: pl.Int64(),
    float: pl.Float64(),
    str: pl.String(),
    bool: pl.Boolean(),
    date: pl.Date(),
    datetime: pl.Datetime("us", "UTC"),
    "int64": pl.Int64(),
    "int32": pl.Int32(),
    "float64": pl.Float64(),
    "text": pl.String(),
    "boolean": pl.Boolean(),
    "date": pl.Date(),
    "timestamp": pl.Datetime("us", "UTC"),
}


def _promised(kind: Any, column: str) -> pl.DataType:
    """A promised type, given as a Polars type, a Python type or a word."""
    if isinstance(kind, pl.DataType):
        return kind
    if isinstance(kind, type) and issubclass(kind, pl.DataType):
        return kind()
    if kind in _PROMISES:
        return _PROMISES[kind]
    raise WrongType(
        "a source cannot promise this type",
        subject=f"column {column}",
        found=repr(kind),
        asked="a Polars type, int, float, str, bool, date, datetime, or "
        + ", ".join(k for k in _PROMISES if isinstance(k, str)),
    )
