"""Tracking: Instar beside a real MLflow server, in one run: logging, search, histories, artifacts, crowds, start and rest.

Both answer the same calls of MLflow's protocol on SQLite: MLflow as it comes (four workers and a job runner) and at its
best (one worker, no job runner); Instar on PostgreSQL, too, where the machine has it. What the unmodified client takes is
set beside what the same client takes against a server that answers nothing. Parts: single, batches, crowd, reading,
artifacts, client, rest, growth, wide; all of them without a name. Each server is measured alone, the client in turns.

MLflow comes from .venv-clients, which `./run test --full` builds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import fill_instar  # noqa: E402
import postgres  # noqa: E402
import reading  # noqa: E402
import report  # noqa: E402
import resting  # noqa: E402
import servers  # noqa: E402
import shape  # noqa: E402
import transfer  # noqa: E402
import writing  # noqa: E402
from servers import BEST, DEFAULT, INSTAR, NOTHING, Server  # noqa: E402

POSTGRES = "instar, postgresql"
PARTS = ("rest", "single", "batches", "crowd", "artifacts", "reading", "client", "growth", "wide")


@dataclass
class Bench:
    """One run of the benchmark.

    Attributes:
        found: Figures by name and server.
        facts: What they depend on: sizes, and how long filling took.
    """

    folder: Path
    quick: bool
    peers: tuple[str, ...]
    postgres: str | None
    found: dict[str, dict[str, float]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Of each timed part."""
        return 1.5 if self.quick else 4.0

    def note(self, server: str, figures: dict[str, float]) -> None:
        """Keep what was measured on one server."""
        for name, value in figures.items():
            self.found.setdefault(name, {})[server] = value

    @contextmanager
    def server(self, name: str, folder: Path, database: str | None = None) -> Iterator[Server]:
        """One of the servers, alone."""
        print(f"  {name} ...", file=sys.stderr, flush=True)
        if name == DEFAULT:
            running = servers.mlflow(folder)
        elif name == BEST:
            running = servers.mlflow(folder, best=True)
        else:
            running = servers.instar(folder, database, name)
        with running as server:
            yield server

    def fresh(self, name: str) -> Path:
        """An empty folder."""
        folder = self.folder / f"{name.replace(' ', '-')}-{time.time_ns()}"
        folder.mkdir()
        return folder

    def database(self, name: str) -> str | None:
        """A new database where the server keeps its records in PostgreSQL."""
        return postgres.create(self.postgres) if name == POSTGRES and self.postgres else None

    def ours(self) -> tuple[str, ...]:
        """The servers that are Instar."""
        return (INSTAR, POSTGRES) if self.postgres else (INSTAR,)


def main() -> int:
    """Print figures and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="smaller stores and shorter turns")
    parser.add_argument("--alone", action="store_true", help="Instar without its peers")
    parser.add_argument("--no-postgres", action="store_true", help="SQLite only")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    peers: tuple[str, ...] = (DEFAULT, BEST)
    if options.alone:
        peers = ()
    elif not servers.CLIENTS.exists():
        print(
            "MLflow is missing: build .venv-clients with `./run test --full`, or measure with --alone", file=sys.stderr
        )
        return 1
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="instar-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        there = None if options.no_postgres else stack.enter_context(postgres.server(folder))
        bench = Bench(folder, options.quick, peers, there)
        bench.facts = {"quick": options.quick, "postgresql": there is not None}
        failed: list[str] = []
        for parts, work in plan(options.parts or list(PARTS)):
            print(f"{', '.join(parts)}:", file=sys.stderr, flush=True)
            try:
                work(bench)
            except RuntimeError as refusal:
                failed.append(f"{', '.join(parts)}: {refusal}")
    document = {"facts": bench.facts, "figures": bench.found}
    print(json.dumps(document, indent=2) if options.json else report.table(bench.found, bench.facts))
    for one in failed:
        print(f"failed: {one}", file=sys.stderr)
    return 1 if failed else 0


def plan(parts: list[str]) -> Iterator[tuple[list[str], Callable[[Bench], None]]]:
    """What is asked for, so that each server is started as seldom as can be."""
    if "rest" in parts:
        yield ["rest"], _rest
    if session := [part for part in SESSION if part in parts]:
        yield session, lambda bench: _session(bench, session)
    for part in parts:
        if part in ALONE:
            yield [part], ALONE[part]


def _session(bench: Bench, parts: list[str]) -> None:
    """Some parts on one server after the other; its store was filled before where reading is one of them."""
    runs, history = (2000, 20_000) if bench.quick else (10_000, 100_000)
    wanted = shape.Shape(runs, history=history) if "reading" in parts else shape.Shape(0)
    bench.facts |= {"runs": wanted.runs, "history": wanted.history}
    megabytes, files = (50, 50) if bench.quick else (200, 500)
    for name in (*bench.ours(), *bench.peers):
        with _filled(bench, name, wanted) as (server, names):
            work: dict[str, Callable[[], dict[str, float]]] = {
                "single": lambda: writing.single_calls(server.url, bench.seconds),
                "batches": lambda: writing.batches(server.url, bench.seconds),
                "crowd": lambda: writing.crowd(server.url, bench.seconds),
                "artifacts": lambda: transfer.transfer(server.url, megabytes, files),
                "reading": lambda: reading.reading(server.url, names, runs, history, 3 if bench.quick else 9),
            }
            for part in parts:
                bench.note(name, work[part]())


def _rest(bench: Bench) -> None:
    """Each server on an empty store, from its start on, while nobody calls."""
    for name in (*bench.ours(), *bench.peers):
        with bench.server(name, bench.fresh(name), bench.database(name)) as server:
            time.sleep(2 if bench.quick else 5)  # what starts after the first answer belongs to the start
            bench.note(name, {"start s": server.started_seconds, **resting.rest(server.pid, 5 if bench.quick else 20)})


@contextmanager
def _filled(bench: Bench, name: str, wanted: shape.Shape) -> Iterator[tuple[Server, dict[str, str]]]:
    """A server on a store that was filled before it was started."""
    folder, database = bench.fresh(name), bench.database(name)
    if not (wanted.runs or wanted.history):
        with bench.server(name, folder, database) as server:
            yield server, {}
        return
    began = time.perf_counter()
    if name in (DEFAULT, BEST):
        sizes = [str(one) for one in (wanted.runs, wanted.metrics, wanted.parameters, wanted.history)]
        command = [str(servers.CLIENTS), str(HERE / "fill_mlflow.py"), f"sqlite:///{folder / 'mlflow.db'}", *sizes]
        names = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
    else:
        names = fill_instar.fill(folder / ".instar", database, wanted)
    bench.facts[f"filling {name} s"] = round(time.perf_counter() - began, 1)
    with bench.server(name, folder, database) as server:
        yield server, names


def _client(bench: Bench) -> None:
    """The real client, in turns between a server that answers nothing, Instar, and MLflow at its best."""
    if not servers.CLIENTS.exists():
        raise RuntimeError("the real client is missing: build .venv-clients with `./run test --full`")
    runs, history = (1000, 10_000) if bench.quick else (10_000, 100_000)
    wanted, turns = shape.Shape(runs, history=history), 10 if bench.quick else 30
    for peer in [None, *bench.peers]:
        with ExitStack() as stack:
            urls, names = {}, {}
            if peer is None:
                nothing = stack.enter_context(servers.nothing(bench.fresh(NOTHING)))
                urls[nothing.url] = NOTHING
            for name in (*bench.ours(), *([peer] if peer else [])):
                server, ids = stack.enter_context(_filled(bench, name, wanted))
                urls[server.url] = name
                if peer is not None:
                    names[name] = ids
            pairs = [word for pair in urls.items() for word in pair]
            command = [str(servers.CLIENTS), str(HERE / "client.py"), *pairs, "--", str(turns), json.dumps(names)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            beside = f" (beside {peer})" if peer else " (beside nothing)"
            for figure, values in json.loads(output.splitlines()[-1]).items():
                bench.found[figure + beside] = values


def _growth(bench: Bench) -> None:
    """The same questions as the store grows; Instar alone."""
    for runs in (1000, 10_000) if bench.quick else (1000, 10_000, 100_000):
        for name in bench.ours():
            with _filled(bench, name, shape.Shape(runs)) as (server, names):
                figures = reading.reading(server.url, names, runs, 0, 5)
                bench.note(name, {f"{figure}, {runs:,} runs": value for figure, value in figures.items()})


def _wide(bench: Bench) -> None:
    """A page of a table of many runs and very many metrics; Instar alone."""
    runs, metrics = (1000, 200) if bench.quick else (10_000, 1000)
    with _filled(bench, INSTAR, shape.Shape(runs, metrics, 0)) as (server, names):
        figures = reading.table_page(server.url, names, 5)
        bench.note(INSTAR, {f"{figure}, {runs:,} x {metrics:,}": value for figure, value in figures.items()})


SESSION = ("single", "batches", "crowd", "artifacts", "reading")
ALONE: dict[str, Callable[[Bench], None]] = {"client": _client, "growth": _growth, "wide": _wide}


if __name__ == "__main__":
    sys.exit(main())
