"""`instar predict`: ask an endpoint, of one row on the command line or of a file of many."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from instar.core.errors import BadInput
from instar.interfaces.moments import moment_of

if TYPE_CHECKING:
    from instar.interfaces.cli.row_files import Read
    from instar.serve.clients.batches import Endpoint, Row, Said

CONNECTIONS = 4
TOLD_SECONDS = 0.5  # between two words on how far it is


@click.command("predict")
@click.argument("endpoint", required=False)
@click.argument("inputs", nargs=-1, metavar="[NAME=VALUE]...")
@click.option(
    "--rows",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=str),
    help="A file of rows: CSV, JSON (a list of objects), JSON lines, Parquet or Arrow; - is standard input.",
)
@click.option(
    "--tensor",
    "tensors",
    multiple=True,
    metavar="NAME=JSON",
    help="A whole tensor of a tensor model, as in x=[[1.5, 2]]; may be given for each.",
)
@click.option("--batch", type=click.IntRange(1, 10_000), help="Rows of one call; default 500.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the answers to this file, .csv, .jsonl or .parquet, instead of printing them.",
)
@click.option(
    "--refused",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write rows that were refused to this file (.jsonl), each with its number and the reason.",
)
@click.option("--stop", is_flag=True, help="End at the first row that is refused; what was answered is kept.")
@click.option(
    "--carry", multiple=True, metavar="COLUMN", help="A column of the file that goes into the answers as it is."
)
@click.option("--entity-column", metavar="COLUMN", help="The column of the file that says what a row is about.")
@click.option(
    "--url", help="Address of the server; default INSTAR_URL, else the one that runs on this project's store."
)
@click.option("--at", "event_time", help="Event time, as in 2013-03-01T08:15:00Z; default now.")
@click.option("--key", help="Routing key: equal keys are answered by the same version.")
@click.option("--entity", help="What the rows are about, for the record.")
@click.option("--table-version", help="Where the rows are from, for the record and their trace, as in features@3.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def predict_command(
    project: str | None,
    endpoint: str | None,
    inputs: tuple[str, ...],
    rows: str | None,
    tensors: tuple[str, ...],
    batch: int | None,
    output: Path | None,
    refused: Path | None,
    stop: bool,
    carry: tuple[str, ...],
    entity_column: str | None,
    url: str | None,
    event_time: str | None,
    key: str | None,
    entity: str | None,
    table_version: str | None,
    as_json: bool,
) -> None:
    """Ask an endpoint for predictions, of one row or of a file of rows; each row is a prediction on the record."""
    from instar.interfaces.cli.row_files import open_writer, read_rows
    from instar.interfaces.sdk.connection import address_here
    from instar.interfaces.sdk.proof import secret_for, store_of
    from instar.serve.clients.batches import ROWS, Batches
    from instar.serve.clients.http_line import HttpLine

    inputs = (*inputs, *tensors)
    if (rows is None) == (not inputs):
        raise BadInput("give one row as NAME=VALUE, or a file with --rows", subject="instar predict")
    if endpoint is None:
        raise BadInput(
            "name the endpoint first", subject="instar predict", asked="instar predict ENDPOINT NAME=VALUE ..."
        )
    if refused is not None and refused.suffix.lower() != ".jsonl":
        raise BadInput(
            "refused rows are written as JSON lines", subject=str(refused), asked="a name that ends in .jsonl"
        )
    headers = _headers(event_time, key)
    place = Path(project) if project else None
    address = url or address_here(place)
    secret = secret_for(address, store_of(place))
    with ExitStack() as opened:
        given: Iterable[Read] = [(_pairs(inputs), "")]
        if rows is not None:
            given = read_rows(sys.stdin.buffer if rows == "-" else opened.enter_context(Path(rows).open("rb")))
        lines = [HttpLine(address, endpoint, secret) for _ in range(1 if rows is None else CONNECTIONS)]
        for line in lines:
            opened.callback(line.close)
        takes = lines[0].endpoint()
        asker = Batches(
            [line.send for line in lines], takes, headers=headers, table_version=table_version, most=batch or ROWS
        )
        out = Answers(as_json, open_writer(output) if output is not None else None,
                      open_writer(refused) if refused is not None else None, carry)  # fmt: skip
        try:
            for said in asker.ask(_rows(given, takes, entity, entity_column, carry)):
                out.tell(said)
                if said.error and stop:
                    break
        finally:
            out.close()
    if out.refused:
        sys.exit(1)


class Answers:
    """Where answers go: printed, or to a file; rows that were refused to one of their own, if there is one."""

    def __init__(self, as_json: bool, output: Any, refused: Any, carry: tuple[str, ...]) -> None:
        self._as_json, self._output, self._side, self._carry = as_json, output, refused, carry
        self._documents: list[dict[str, Any]] = []
        self._began = self._told = time.monotonic()
        self._shows = output is not None and sys.stderr.isatty()
        self.answered = self.refused = 0

    def tell(self, said: Said) -> None:
        """One more row is known."""
        self.refused += bool(said.error)
        self.answered += not said.error
        if said.error and self._side is not None:
            self._side.write({"row": said.row.number, "error": said.error, "given": dict(said.row.values)})
            if self._output is None and not self._as_json:
                click.echo(f"row {said.row.number}: {said.error}", err=True)
        elif self._output is not None:
            self._output.write(self._flat(said))
            if said.error:
                click.echo(f"row {said.row.number}: {said.error}", err=True)
        elif self._as_json:
            self._documents.append(_document(said))
        else:
            click.echo(_line(said))
        if self._shows and time.monotonic() - self._told > TOLD_SECONDS:
            self._told = time.monotonic()
            click.echo(f"\r{self._sum()}", nl=False, err=True)

    def close(self) -> None:
        """All is told, or what there is to tell."""
        for writer in (self._output, self._side):
            if writer is not None:
                writer.close()
        if self._as_json:
            click.echo(json.dumps(self._documents, indent=2))
        if self._output is not None or self._side is not None:
            click.echo(("\r" if self._shows else "") + self._sum(), err=True)

    def _sum(self) -> str:
        spent = max(time.monotonic() - self._began, 1e-9)
        rate = (self.answered + self.refused) / spent
        return f"{self.answered:,} rows answered, {self.refused:,} refused, {rate:,.0f} rows a second"

    def _flat(self, said: Said) -> dict[str, Any]:
        carried = {name: said.row.values.get(name) for name in self._carry}
        found = {"row": said.row.number, **carried, "prediction": said.prediction or None, "version": said.version}
        return found | dict(said.outputs) | {"error": said.error or None}


def _headers(event_time: str | None, key: str | None) -> dict[str, str]:
    headers = {}
    if event_time is not None:
        headers["Instar-Event-Time"] = moment_of(event_time, "--at").isoformat()
    if key is not None:
        if not key.isprintable() or not key.isascii():
            raise BadInput("a routing key is sent as a header", found=repr(key), asked="printable ASCII")
        headers["Instar-Key"] = key
    return headers


def _rows(
    given: Iterable[Read], takes: Endpoint, entity: str | None, entity_column: str | None, carry: tuple[str, ...]
) -> Iterator[Row]:
    """Rows as the endpoint takes them."""
    from instar.serve.clients.batches import Row

    beside = {*carry, *([entity_column] if entity_column else [])} - takes.inputs.keys()
    matrix: bool | None = None
    for number, (values, fault) in enumerate(given, 1):
        about = entity if entity_column is None else _text(values.get(entity_column))
        if fault:
            yield Row(number, values, about, fault)
            continue
        names = [name for name in values if name not in beside]
        unknown = [name for name in names if name not in takes.inputs]
        if matrix is None:  # what holds for the first row holds for all: columns of which a lone tensor's rows are made
            matrix = takes.tensors and len(takes.inputs) == 1 and len(unknown) == len(names) > 0
        if unknown and not matrix:
            if number == 1:
                raise BadInput("the endpoint takes no such input", found=unknown[0], asked=", ".join(takes.inputs)[:500],
                               next_step="Leave the column out, or keep it beside the answers with --carry.")  # fmt: skip
            yield Row(number, values, about, f"the endpoint takes no such input: {unknown[0]}")
            continue
        carried = {name: values.get(name) for name in beside}
        try:
            yield Row(number, _Carried(_typed(values, names, takes, bool(matrix)), carried), about)
        except BadInput as problem:
            yield Row(number, values, about, str(problem))


class _Carried(dict[str, Any]):
    """Values of the inputs; those of columns beside them are found, too, and not sent."""

    def __init__(self, values: dict[str, Any], beside: dict[str, Any]) -> None:
        super().__init__(values)
        self._beside = beside

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name, self._beside.get(name, default))


def _typed(values: dict[str, Any], names: list[str], takes: Endpoint, matrix: bool) -> dict[str, Any]:
    if matrix:
        ((name, spec),) = takes.inputs.items()
        return {name: [_value(values[one], spec.datatype) for one in names]}
    if takes.tensors:
        return {name: _tensor(name, values[name], takes.inputs[name].datatype) for name in names}
    return {name: _value(values[name], takes.inputs[name].datatype) for name in names}


def _tensor(name: str, value: Any, datatype: str) -> Any:
    if not isinstance(value, str) or (datatype == "BYTES" and not value.lstrip().startswith("[")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise BadInput(
            "its value is no JSON", subject=f"tensor {name}", found=value[:60], asked="as in x=[[1.5, 2]]"
        ) from None


def _value(value: Any, datatype: str) -> Any:
    """A text as the datatype asks for it; an empty one is null, and so is NaN. The server judges the rest."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, datetime):
        return value.isoformat()
    if not isinstance(value, str):
        return value
    if value == "":
        return None
    try:
        if datatype in ("FP64", "FP32", "FP16"):
            number = float(value)
            return number if math.isfinite(number) else value
        if datatype not in ("BOOL", "BYTES"):
            return int(value)
    except ValueError:
        return value  # refused at the door, with the reason
    if datatype == "BOOL":
        return {"true": True, "false": False}.get(value.lower(), value)
    return value


def _pairs(inputs: Iterable[str]) -> dict[str, str]:
    row = {}
    for pair in inputs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise BadInput("an input is given as NAME=VALUE", found=repr(pair))
        row[name] = value
    return row


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _document(said: Said) -> dict[str, Any]:
    """An answer as JSON values: a score and a decision by these names, and other outputs by theirs."""
    found: dict[str, Any] = {"prediction": said.prediction or None, "status": said.status, "version": said.version}
    if said.outputs.keys() <= {"score", "decision"}:
        found |= {"score": said.outputs.get("score"), "decision": said.outputs.get("decision")}
    else:
        found["outputs"] = dict(said.outputs)
    return found | {"error": said.error or None}


def _line(said: Said) -> str:
    if said.error:
        return f"{said.status}  {said.error}"
    if said.outputs.keys() <= {"score", "decision"}:
        decided = "" if "decision" not in said.outputs else f"  decision {said.outputs['decision']}"
        return f"{said.prediction}  version {said.version}  score {said.outputs['score']:.4f}{decided}"
    outputs = "  ".join(f"{name} {json.dumps(value)}" for name, value in said.outputs.items())
    return f"{said.prediction}  version {said.version}  {outputs}"


commands = {"predict": predict_command}
