"""Driving the product as its users do: the command as a process of its own, and a server of it over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from click.testing import CliRunner

from instar.interfaces.cli.main import cli
from instar.plan import importing

Done = subprocess.CompletedProcess[str]


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without anything that would lead the command away from the project's own store."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INSTAR_")}
    return {**kept, **changes}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "instar.interfaces.cli.main", *words]


def instar(folder: Path, *words: str, status: int = 0) -> Done:
    """Run a command in a project's folder; it must end with `status`, and never with a traceback."""
    done = subprocess.run(
        command(*words), cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    said = f"instar {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
    assert done.returncode == status, said
    assert "Traceback" not in done.stderr, said
    return done


def told(folder: Path, *words: str) -> Any:
    """The one JSON document that a command prints."""
    return json.loads(instar(folder, *words, "--json").stdout)


def looked_at(folder: Path, *words: str) -> str:
    """What a command prints that only reads: run within this process, which spares its start."""
    done = CliRunner().invoke(cli, ["--project", str(folder), *words], catch_exceptions=False)
    importing.forget()
    assert done.exit_code == 0, done.output
    return done.stdout


def looked_up(folder: Path, *words: str) -> Any:
    """The one JSON document of a command that only reads."""
    return json.loads(looked_at(folder, *words, "--json"))


def started(folder: Path, *words: str, settings: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A command that runs beside us, in a session of its own, so that a signal reaches it alone."""
    return subprocess.Popen(
        command(*words),
        cwd=folder,
        env=environment(PYTHONUNBUFFERED="1", **(settings or {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@dataclass
class Server:
    """A running `instar up`."""

    process: subprocess.Popen[str]
    url: str
    said: str = ""

    def stop(self) -> str:
        """Have it drain; returns all that it said."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        rest, _ = self.process.communicate(timeout=60)
        self.said += rest
        return self.said


@contextmanager
def up(folder: Path, endpoint: str | None = None, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """`instar up` on any free port, until it is ready to answer (for `endpoint`, and by its control process)."""
    process = started(folder, "up", "--port", "0", settings=settings)
    assert process.stdout is not None
    said = ""
    while " on http://" not in said:
        line = process.stdout.readline()
        assert line, f"instar up ended: {said}"
        said += line
    server = Server(process, next(word for word in said.split() if word.startswith("http://")), said)
    ready = f"/v2/models/{endpoint}/ready" if endpoint else "/v2/health/ready"
    try:
        wait_for(lambda: answers(server.url + ready) and answers(server.url + "/console/assets/console.css"))
        yield server
    finally:
        if process.poll() is None:
            server.stop()
        process.stdout.close()


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=30).status_code == 200
    except httpx2.HTTPError:
        return False


def wait_for(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true result of `what`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def inputs(row: Mapping[str, Any], datatypes: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row as tensors of the Open Inference Protocol."""
    return [
        {"name": name, "shape": [1], "datatype": datatypes[name], "data": [value]}
        for name, value in row.items()
        if name in datatypes
    ]


def edit(file: Path, old: str, new: str) -> None:
    """Replace the one place at which `old` stands in a file."""
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file.name}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def contents(folder: Path) -> dict[str, str]:
    """Content digest of the newest version of every table."""
    return {table["table"]: table["content"] for table in looked_up(folder, "data", "ls")}


def walk(hop: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A trace's stops, each before those behind it."""
    yield hop
    for inner in hop["hops"]:
        yield from walk(inner)
