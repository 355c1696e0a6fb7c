"""`instar check-runtime`: look at a program that serves a model, before it is brought or while somebody writes it."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from instar.core.errors import BadInput

if TYPE_CHECKING:
    from instar.serve.worker.commands.conformance import Check, Subject

LOOPBACK = "127.0.0.1"
START_SECONDS = 60.0  # until a command is ready, as model.toml has it where it says nothing


@click.command("check-runtime")
@click.argument("place", metavar="[URL_OR_FOLDER]", required=False)
@click.option(
    "--command",
    metavar="COMMAND",
    help='Start this here, as in "Rscript serve.R", and end it; {port}, {model} and {folder} are filled in.',
)
@click.option("--model", help="Name of the model at a URL that does not end with it, or of a command; there `model`.")
@click.option(
    "--strict", is_flag=True, help="Let warnings fail, too: what troubles other callers than a server of Instar's."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def check_runtime(place: str | None, command: str | None, model: str | None, strict: bool, as_json: bool) -> None:
    """Hold a program to the Open Inference Protocol: one at a URL, that of a folder with model.toml, or a command."""
    from instar.serve.worker.commands import conformance

    checks: list[Check] = []
    with _begun(place, command, model) as (subject, started):
        for check in (*started, *conformance.check(subject)):
            checks.append(check)
            if not as_json:
                _print(check)
    failed = sum(check.state == conformance.FAILED for check in checks)
    warned = sum(check.state == conformance.WARNED for check in checks)
    if as_json:
        click.echo(
            json.dumps({"failed": failed, "warned": warned, "checks": [vars(check) for check in checks]}, indent=2)
        )
    else:
        click.echo(f"{len(checks)} checks: {failed} failed, {warned} warned")
    if failed or (strict and warned):
        sys.exit(1)


@contextmanager
def _begun(place: str | None, command: str | None, model: str | None) -> Iterator[tuple[Subject, list[Check]]]:
    from instar.serve.worker.commands.conformance import Subject

    if (place is None) == (command is None):
        raise BadInput(
            "name one thing to look at", subject="instar check-runtime", asked="a URL, a folder, or --command COMMAND"
        )
    if command is not None:
        name = model or "model"
        with _started(f"command {command[:80]}", _words(command), Path.cwd(), name, {}, START_SECONDS) as (port, start):
            yield Subject(LOOPBACK, port, name), [start]
        return
    assert place is not None
    if not place.startswith(("http://", "https://")):
        if model is not None:
            raise BadInput("the folder's model.toml names the model", subject="--model", found=model)
        with _of_folder(Path(place)) as begun:
            yield begun
        return
    url = urlsplit(place)
    named = url.path.rstrip("/").partition("/v2/models/")[2]
    if url.scheme != "http" or url.hostname is None:
        raise BadInput("it is no address of a program on this machine", subject=place, asked="http://HOST:PORT")
    if not (model or named):
        raise BadInput("it does not name a model", subject=place, next_step="Add --model NAME, or /v2/models/NAME.")
    yield Subject(url.hostname, url.port or 80, model or named), []


@contextmanager
def _of_folder(folder: Path) -> Iterator[tuple[Subject, list[Check]]]:
    """The program of a folder, started as a server would, and ended afterwards."""
    from instar.serve.worker.commands.conformance import Declared, Subject
    from instar.train.command_bundle import read_folder

    manifest = read_folder(folder, folder.resolve().name)
    command, tensors = manifest.command, manifest.tensors
    assert command is not None
    declared = Declared.of_columns(manifest.inputs)
    if tensors is not None:
        declared = Declared(tensors.inputs, tensors.outputs, tensors.rows, tensors.batchable)
    with _started(
        f"model {manifest.model}",
        command.command,
        folder.resolve(),
        command.name,
        command.environment,
        command.start_seconds,
    ) as (port, start):
        yield Subject(LOOPBACK, port, command.name, declared), [start]


@contextmanager
def _started(
    title: str, command: Sequence[str], folder: Path, model: str, environment: Mapping[str, str], seconds: float
) -> Iterator[tuple[int, Check]]:
    """A program that runs and is ready: its port, and how that went."""
    from instar.serve.worker.commands.child import Child
    from instar.serve.worker.commands.conformance import PASSED, Check

    began = time.perf_counter()
    child = Child(title, command, folder, model, environment)
    try:
        child.wait_ready(seconds)
        took = time.perf_counter() - began
        yield child.port, Check("start", PASSED, f"ready after {took:.1f} s of {seconds:g} s")
    finally:
        child.end()


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as problem:
        raise BadInput("that command cannot be read", subject="--command", found=f"{command!r}: {problem}") from None
    if not words:
        raise BadInput("it is empty", subject="--command")
    return words


def _print(check: Check) -> None:
    click.echo(f"{check.state:<9} {check.name:<17} {check.found}")
    if check.next_step:
        click.echo(f"{'':<27} {check.next_step}")


commands: dict[str, click.Command] = {"check-runtime": check_runtime}
