"""Files of rows: what `instar predict --rows` reads, row by row, and what it writes of the answers.

Read are CSV, JSON (a list of objects), JSON lines, Parquet and Arrow (files and streams), told apart by how they begin; written
are CSV, JSON lines and Parquet, told apart by the file's name. A line that cannot be read is a row with a fault, and no end.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from instar.core.errors import BadInput

Read = tuple[dict[str, Any], str]  # a row's values, and what is wrong with it

BEGINNING = 6  # bytes that tell a file's kind
WRITTEN_AT_ONCE = 5_000  # rows of a Parquet file's row group
LINE_KEPT = 2_000  # letters of a line that cannot be read, told beside the reason
OUTPUTS = (".csv", ".jsonl", ".parquet")

_KINDS = "CSV, a JSON list of objects, JSON lines, Parquet or Arrow"


def read_rows(file: IO[bytes]) -> Iterator[Read]:
    """Rows of a file.

    Raises:
        BadInput: It is of no kind that is read, or has no rows.
    """
    whole: Any = file if hasattr(file, "peek") else io.BufferedReader(io.BytesIO(file.read()))
    start: bytes = whole.peek(BEGINNING)[:BEGINNING]
    if start[:4] == b"PAR1" or start[:6] == b"ARROW1" or start[:4] == b"\xff\xff\xff\xff":
        rows = _columnar(io.BytesIO(whole.read()) if not whole.seekable() else whole, start)
    else:
        rows = _text(whole)
    first = next(rows, None)
    if first is None:
        raise BadInput("the file has no rows", asked=_KINDS)
    return itertools.chain([first], rows)


def _text(given: IO[bytes]) -> Iterator[Read]:
    file = (line.decode("utf-8-sig" if at == 0 else "utf-8") for at, line in enumerate(given))
    try:
        line = next((line for line in file if line.strip()), "")
        start = line.lstrip()[:1]
        if start == "[":
            for row in json.loads(line + "".join(file)):
                yield (row, "") if isinstance(row, dict) else ({}, f"a row is no object: {json.dumps(row)[:80]}")
        elif start == "{":
            for text in itertools.chain([line], file):
                if text.strip():
                    yield _line(text)
        elif line:
            yield from _csv(itertools.chain([line], file))
    except (ValueError, csv.Error) as problem:
        raise BadInput(f"the rows cannot be read: {problem}", asked=_KINDS) from None


def _line(text: str) -> Read:
    try:
        row = json.loads(text)
    except ValueError as problem:
        return {"line": text.rstrip("\n")[:LINE_KEPT]}, f"the line is no JSON: {problem}"
    return (
        (row, "") if isinstance(row, dict) else ({"line": text.rstrip("\n")[:LINE_KEPT]}, "the line is no JSON object")
    )


def _csv(lines: Iterator[str]) -> Iterator[Read]:
    reader = csv.reader(lines, strict=True)
    names = next(reader)
    if len(set(names)) != len(names):
        raise BadInput("a column comes twice", found=", ".join(names)[:200])
    for fields in reader:
        if len(fields) == len(names):
            yield dict(zip(names, fields, strict=True)), ""
        elif fields:
            why = f"the line has {len(fields)} fields, and the first has {len(names)}"
            yield {"line": ",".join(fields)[:LINE_KEPT]}, why


def _columnar(file: IO[bytes], start: bytes) -> Iterator[Read]:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        if start[:4] == b"PAR1":
            batches = pyarrow.parquet.ParquetFile(file).iter_batches(WRITTEN_AT_ONCE)
        elif start == b"ARROW1":
            opened = pa.ipc.open_file(file)
            batches = (opened.get_batch(at) for at in range(opened.num_record_batches))
        else:
            batches = iter(pa.ipc.open_stream(file))
        for batch in batches:
            for row in batch.to_pylist():
                yield row, ""
    except (pa.ArrowException, OSError) as problem:
        raise BadInput(f"the rows cannot be read: {str(problem)[:200]}", asked=_KINDS) from None


class Writer(Protocol):
    """A file of answers, written as they come; whole only once it is closed."""

    def write(self, row: dict[str, Any]) -> None:
        """One more row."""

    def close(self) -> None:
        """It is whole now."""


def open_writer(path: Path) -> Writer:
    """A file of answers: what was there is replaced when it is whole.

    Raises:
        BadInput: Its name does not say of what kind it is.
    """
    kinds: dict[str, type[_Csv] | type[_Lines] | type[_Parquet]] = {
        ".csv": _Csv,
        ".jsonl": _Lines,
        ".parquet": _Parquet,
    }
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise BadInput("its name does not say what it is", subject=str(path), asked=", ".join(OUTPUTS))
    made: Writer = kind(path)
    return made


class _File:
    """A file that takes its place when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_name(path.name + ".part")
        self._file = self._part.open("w", encoding="utf-8", newline="")

    def close(self) -> None:
        self._file.close()
        self._part.replace(self._path)


class _Lines(_File):
    def write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


class _Csv(_File):
    """With the columns of the first row that was answered; nested values get a column each."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._lines = csv.writer(self._file)
        self._names: list[str] = []
        self._held: list[dict[str, Any]] = []  # refused rows that come before it

    def write(self, row: dict[str, Any]) -> None:
        flat = dict(_flat(row))
        if not self._names and flat.get("error"):
            self._held.append(flat)
            return
        if not self._names:
            self._begin(list(flat))
        _prove_form(flat, self._names, self._path)
        self._line(flat)

    def close(self) -> None:
        if self._held:
            self._begin(list(self._held[0]))
        super().close()

    def _begin(self, names: list[str]) -> None:
        self._names = names
        self._lines.writerow(names)
        held, self._held = self._held, []
        for flat in held:
            self._line(flat)

    def _line(self, flat: dict[str, Any]) -> None:
        self._lines.writerow([_field(flat.get(name)) for name in self._names])


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_name(path.name + ".part")
        self._rows: list[dict[str, Any]] = []
        self._file: Any = None
        self._known = False  # what an answered row has
        self._part.touch()

    def write(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._known = self._known or not row.get("error")
        if len(self._rows) >= WRITTEN_AT_ONCE and self._known:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        names = list(dict.fromkeys(name for row in self._rows for name in row))
        table = pa.table({name: [row.get(name) for row in self._rows] for name in names})
        if self._file is None:
            # What was never seen among the first rows may come later: an error is a text, a decision a number.
            later = {"error": pa.string(), "prediction": pa.string(), "version": pa.int64(), "decision": pa.int64()}
            schema = pa.schema([
                pa.field(one.name, later.get(one.name, pa.float64()) if pa.types.is_null(one.type) else one.type)
                for one in table.schema
            ])  # fmt: skip
            self._file = pyarrow.parquet.ParquetWriter(self._part, schema)
        for row in self._rows:
            _prove_form(row, self._file.schema.names, self._path)
        self._file.write_table(pa.Table.from_pylist(self._rows, self._file.schema))
        self._rows = []

    def close(self) -> None:
        if self._rows or self._file is None:
            self._flush()
        self._file.close()
        self._part.replace(self._path)


def _prove_form(row: dict[str, Any], names: list[str], path: Path) -> None:
    """Raises BadInput where a row would lose something."""
    lost = row.keys() - set(names)
    if lost:
        raise BadInput(
            "an answer has another form than those before it", subject=str(path), found=min(lost),
            next_step="Write JSON lines: --output NAME.jsonl.",
        )  # fmt: skip


def _flat(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, list):
            yield from _flat({f"{name}[{at}]": one for at, one in enumerate(value)})
        else:
            yield name, value


def _field(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).lower() if isinstance(value, bool) else value
