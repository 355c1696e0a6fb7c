"""`instar up` and `instar predict`: serve everything on one port, and ask an endpoint."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from instar.serve.client import Answer

PORT = 5000  # where clients of MLflow's protocol look first


@click.command("up")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; beyond loopback it asks for tokens."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 takes any that is free."
)
@click.option("--grpc-port", type=click.IntRange(0, 65535), help="Answer gRPC, too, on this port; 0 takes any.")
@click.option(
    "--gateways", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that share the port."
)
@click.option(
    "--record",
    type=click.Choice(["durable", "prompt"]),
    default="durable",
    show_default=True,
    help="Answer when a call's record is on the disk, or when the operating system has it.",
)
@click.option(
    "--call-limit",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="After which a call is given up; default INSTAR_CALL_LIMIT, else 30.",
)
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    help="The store's folder; default INSTAR_STORE, else .instar of the project, or here.",
)
@click.pass_obj
def up_command(
    project: str | None,
    host: str,
    port: int,
    grpc_port: int | None,
    gateways: int,
    record: str,
    call_limit: float | None,
    store: Path | None,
) -> None:
    """Serve console, API, tracking and inference on one port until interrupted; in a folder without a project, too."""
    import logging

    from instar.core.settings import DEFAULT_PROJECT, read_settings
    from instar.plan.project import find_root_if_any, load_project
    from instar.serve.root.supervisor import Root

    start = Path(project) if project is not None else Path.cwd()
    root = find_root_if_any(start, need=project is not None)
    # A contract that cannot be read stops us here, and not the control process later.
    name = load_project(root).name if root is not None else DEFAULT_PROJECT
    folder = (store or read_settings().store_folder(root or start)).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")

    def listening(url: str) -> None:
        beside = f", and gRPC on port {server.grpc_port}" if server.grpc_port is not None else ""
        click.echo(f"Instar serves {name} on {url}{beside} (Ctrl-C drains and ends)")

    if call_limit is not None:
        os.environ["INSTAR_CALL_LIMIT"] = f"{call_limit:g}"  # for all processes of the server
    server = Root(folder, root, host, port, gateways, grpc_port, record == "durable", listening=listening)
    server.run()
    click.echo("drained: every call that was taken is answered and on the record")


@click.command("predict")
@click.argument("endpoint", required=False)
@click.argument("inputs", nargs=-1, metavar="[NAME=VALUE]...")
@click.option(
    "--rows",
    type=click.File("r"),
    help="A file of rows: JSON (a list of objects), JSON lines or CSV; - is standard input.",
)
@click.option(
    "--tensor",
    "tensors",
    multiple=True,
    metavar="NAME=JSON",
    help="A whole tensor of a tensor model, as in x=[[1.5, 2]]; may be given for each.",
)
@click.option(
    "--url", help="Address of the server; default INSTAR_URL, else the one that runs on this project's store."
)
@click.option("--at", "event_time", help="Event time, as in 2013-03-01T08:15:00Z; default now.")
@click.option("--key", help="Routing key: equal keys are answered by the same version.")
@click.option("--entity", help="What the row is about, for the record.")
@click.option("--table-version", help="Where the row is from, for the record and its trace, as in features@3.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def predict_command(
    project: str | None,
    endpoint: str | None,
    inputs: tuple[str, ...],
    rows: Any,
    tensors: tuple[str, ...],
    url: str | None,
    event_time: str | None,
    key: str | None,
    entity: str | None,
    table_version: str | None,
    as_json: bool,
) -> None:
    """Ask an endpoint for predictions, of one row or of a file of rows; each is a call on the record."""
    from instar.core.errors import BadInput
    from instar.interfaces.cli import asking
    from instar.interfaces.moments import moment_if
    from instar.interfaces.sdk.client import address_here
    from instar.interfaces.sdk.proof import secret_for, store_of
    from instar.serve.client import Ask, InferClient
    from instar.serve.tensor_client import TensorClient

    inputs = (*inputs, *tensors)
    if (rows is None) == (not inputs):
        raise BadInput("give one row as NAME=VALUE, or a file with --rows", subject="instar predict")
    if endpoint is None:
        raise BadInput(
            "name the endpoint first", subject="instar predict", asked="instar predict ENDPOINT NAME=VALUE ..."
        )
    moment = moment_if(event_time, "--at")
    address = url or address_here(Path(project) if project else None)
    secret = secret_for(address, store_of(Path(project) if project else None))
    given: list[dict[str, Any]] = [_pairs(inputs)] if rows is None else _read(rows.read())
    with TensorClient(address, endpoint, secret) as asker:
        if asker.takes_tensors:
            said = asking.ask_tensors(
                asker, given, event_time=moment, key=key, entity=entity, table_version=table_version
            )
            _end(said, as_json, asking.document, asking.line)
            return
    with InferClient(address, endpoint, token=secret) as client:
        asks = [Ask(_typed(row, client.inputs), moment, key, entity, table_version) for row in given]
        answers = client.infer_all(asks)
    _end(answers, as_json, _document, _line)


def _end(answers: Sequence[Any], as_json: bool, document: Callable[[Any], Any], line: Callable[[Any], str]) -> None:
    if as_json:
        click.echo(json.dumps([document(answer) for answer in answers], indent=2))
    else:
        for answer in answers:
            click.echo(line(answer))
    if any(answer.status != 200 for answer in answers):
        sys.exit(1)


def _pairs(inputs: Iterable[str]) -> dict[str, str]:
    from instar.core.errors import BadInput

    row = {}
    for pair in inputs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise BadInput("an input is given as NAME=VALUE", found=repr(pair))
        row[name] = value
    return row


def _read(text: str) -> list[dict[str, Any]]:
    """Rows of a file: JSON where it begins like JSON, else CSV."""
    from instar.core.errors import BadInput

    start = text.lstrip()[:1]
    found: list[dict[str, Any]]
    try:
        if start == "[":
            found = json.loads(text)
        elif start == "{":
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            found = list(csv.DictReader(text.splitlines()))
    except ValueError as problem:
        raise BadInput(
            f"the rows cannot be read: {problem}", asked="a JSON list of objects, JSON lines or CSV"
        ) from None
    if not found or not all(isinstance(row, dict) for row in found):
        raise BadInput("the file has no rows", asked="a JSON list of objects, JSON lines or CSV")
    return found


def _typed(row: dict[str, Any], datatypes: dict[str, str]) -> dict[str, Any]:
    """Texts as the endpoint's datatypes ask for them; an empty text is null. The server judges the rest."""
    from instar.core.errors import BadInput

    unknown = [name for name in row if name not in datatypes]
    if unknown:
        raise BadInput("the endpoint takes no such input", found=unknown[0], asked=", ".join(datatypes))
    return {name: _value(value, datatypes[name]) for name, value in row.items()}


def _value(value: Any, datatype: str) -> Any:
    if not isinstance(value, str):
        return value
    if value == "":
        return None
    try:
        if datatype in ("FP64", "FP32"):
            return float(value)
        if datatype in ("INT64", "INT32"):
            return int(value)
    except ValueError:
        return value  # refused at the door, with the reason
    if datatype == "BOOL":
        return {"true": True, "false": False}.get(value.lower(), value)
    return value


def _document(answer: Answer) -> dict[str, Any]:
    return {
        "prediction": answer.prediction if answer.call else None,
        "status": answer.status,
        "version": answer.version,
        "score": answer.score,
        "decision": answer.decision,
        "error": answer.error,
    }


def _line(answer: Answer) -> str:
    if answer.status != 200:
        return f"{answer.status}  {answer.error}"
    decided = "" if answer.decision is None else f"  decision {answer.decision}"
    return f"{answer.prediction}  version {answer.version}  score {answer.score:.4f}{decided}"


commands = {"up": up_command, "predict": predict_command}
