"""The demo as its user sees it: opens the store, starts the server, shows how the replay goes, and prints the report."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from instar.app import App, open_app
from instar.core.clock import EventClock
from instar.core.settings import read_settings
from instar.interfaces.demo import page, progress, story, terminal
from instar.interfaces.demo.drive import FIRST_DAY, QUICK_END, YEAR_END, Replay, Said
from instar.interfaces.demo.world import find_flights, open_airline
from instar.plan.project import load_project
from instar.serve.log import sealing
from instar.serve.publishing import snapshot
from instar.serve.root.process import ServerTree

BEGINNING = datetime(2013, 1, 1, 5, tzinfo=UTC)  # midnight in New York
PAGE = "report.html"
# A replay moves event time and turns the loop by itself; the server's own controllers would live in the present.
SERVER_SETTINGS = {"INSTAR_CONTROLLERS": "off", "INSTAR_LOOPBACK": "trust", "INSTAR_HOSTS": ""}


def run(start: Path, leave: bool, quick: bool, json_file: Path | None, html_file: Path | None, port: int = 0) -> None:
    """Replay what is left to replay, report on it, and stay up unless told to leave."""
    begun = time.monotonic()
    console = Console(soft_wrap=True)
    folder = find_flights(start)
    until = QUICK_END if quick else YEAR_END
    store = read_settings().store_folder(load_project(folder).root)
    clock = EventClock(progress.read(store).until or BEGINNING)
    logging.getLogger("instar").setLevel(logging.ERROR)  # alerts are shown by the replay itself
    with open_app(folder, clock=clock) as app:
        replay = Replay(app, open_airline(folder), clock, lambda said: None)
        if not replay.done(until):
            with _shown(console, until) as say:
                replay.say = say
                replay.open()
                with serving(app, port) as server:
                    replay.run(server.url, until)
        sealing.seal(app.store)
        report = story.tell(app, replay.loop, replay.progress, FIRST_DAY, until, time.monotonic() - begun)
        terminal.show(report, console)
        _write(report, json_file, html_file or store / PAGE, console)
        if not leave:
            _stay(app, port, console)


@contextmanager
def serving(app: App, port: int) -> Iterator[ServerTree]:
    """A server on the store, until the body of the `with` ends; it answers by the routes of now."""
    number = snapshot.publish(app.store)
    with ServerTree.start(app.store.folder, project=app.root, port=port, environment=SERVER_SETTINGS) as server:
        snapshot.wait_acknowledged(app.store, number)
        yield server


@contextmanager
def _shown(console: Console, until: date) -> Iterator[Callable[[Said], None]]:
    """Shows a replay: a bar with the day on a terminal, a line a month elsewhere; what is decided is a line on both."""
    if not console.is_terminal:
        console.out("January and February land; the rule and the first model are made ...", highlight=False)
        yield lambda said: None if said.kind == "part" else console.out(_line(said), highlight=False)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        whole = (until - FIRST_DAY).days
        task = bar.add_task("January and February land", total=whole)

        def say(said: Said) -> None:
            days = (said.at - datetime(2013, 3, 1, 5, tzinfo=UTC)).total_seconds() / 86400
            bar.update(task, completed=max(0.0, days), description=f"{said.at:%d %B}")
            if said.kind != "part":
                bar.console.print(_line(said), markup=False, highlight=False)

        yield say


def _line(said: Said) -> str:
    line = f"{said.at:%Y-%m-%d}  {said.kind:<11} {said.text}"
    return line if len(line) <= terminal.LONGEST_LINE else line[: terminal.LONGEST_LINE - 1] + "…"


def _write(report: dict[str, Any], json_file: Path | None, html_file: Path, console: Console) -> None:
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        console.out(f"report as JSON: {json_file}", highlight=False)
    html_file.write_text(page.page(report), encoding="utf-8")
    console.out(f"report as a page: {html_file}", highlight=False)


def _stay(app: App, port: int, console: Console) -> None:
    with serving(app, port) as server:
        console.out(f"the server stays up: {server.url}/console (Ctrl-C ends it)", highlight=False)
        try:
            signal.pause()
        except KeyboardInterrupt:
            console.out("stopping ...", highlight=False)
