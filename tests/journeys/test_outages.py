"""Training while the world breaks: servers are killed, the training is killed, nobody is there, the disk is full.

Whatever happens, the training goes on to its end, and afterwards every point that it logged is on the record once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from instar.app import open_store
from instar.core.store import Store
from instar.serve.root.process import ServerTree
from instar.train import histories, intake, runs, spool
from tests.interfaces.test_notes import CONTRACT
from tests.journeys.driving import command, environment, wait_for

# Trains by order: each number that it reads is how many points it logs before it answers, so that no clock decides.
TRAINING = """
import sys
import instar

run = instar.run("outage", url=sys.argv[1] or None, resources=False, wait_seconds=float(sys.argv[2]))
print(run.id, flush=True)
step = 0
for line in sys.stdin:
    for _ in range(int(line)):
        run.log(value=step % 7, step=step)
        step += 1
    print(step, flush=True)
run.log_text("the end", "end.txt")
run.finish()
"""


class Training:
    """A training process outside of any project."""

    def __init__(self, folder: Path, url: str = "", *, wait_seconds: float = 0.0, code: str = TRAINING) -> None:
        folder.mkdir(exist_ok=True)
        self.state = folder / "state"
        self.folder = folder
        (folder / "train.py").write_text(textwrap.dedent(code))
        self.process = subprocess.Popen(
            [sys.executable, "train.py", url, str(wait_seconds)],
            cwd=folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.run = self.line()
        self.logged = 0

    @property
    def environment(self) -> dict[str, str]:
        return environment(XDG_STATE_HOME=str(self.state))

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read() if self.process.stderr else ""
        return line.strip()

    def log(self, points: int) -> None:
        """Have it log so many points; returns when it has."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{points}\n")
        self.process.stdin.flush()
        self.logged += points
        assert int(self.line()) == self.logged

    def end(self) -> str:
        """Let it come to its end; returns what it said on the way."""
        _, said = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, said
        return said

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def sync(self, url: str, *, status: int = 0) -> list[dict[str, object]]:
        done = subprocess.run(
            command("runs", "sync", "--url", url, "--json"), cwd=self.folder, env=self.environment, capture_output=True,
            text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        found: list[dict[str, object]] = json.loads(done.stdout)
        return found

    @property
    def spool(self) -> Path:
        return self.state / "instar" / "spool" / self.run


def points(store: Store, run: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in histories.metric_history(store, run, "value")]


def wanted(logged: int) -> list[tuple[int, float]]:
    return [(step, float(step % 7)) for step in range(logged)]


def start(folder: Path, port: int = 0) -> ServerTree:
    return ServerTree.start(folder, project=folder.parent, port=port, environment={"INSTAR_CONTROLLERS": "off"})


def kill_9(server: ServerTree) -> None:
    """End every process of a server at once."""
    root = psutil.Process(server.pid)
    everyone = [root, *root.children(recursive=True)]
    for process in everyone:
        os.kill(process.pid, signal.SIGKILL)
    server.stop()
    psutil.wait_procs(everyone[1:], timeout=30)


def made(folder: Path) -> Path:
    """The store's folder of a project without a pipeline."""
    folder.mkdir()
    (folder / "instar.toml").write_text(CONTRACT)
    return folder / ".instar"


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    store = open_store(folder, f"sqlite:///{folder / 'instar.db'}")
    yield store
    store.database.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerTree]:
    """One that lives as long as these tests, but for the test that kills its own."""
    with start(made(tmp_path_factory.mktemp("outages") / "server")) as server:
        yield server


@pytest.fixture(scope="module")
def store(server: ServerTree) -> Iterator[Store]:
    with opened(server.log.parent.parent) as store:
        yield store


def test_a_server_that_is_killed_again_and_again_misses_no_point_and_doubles_none(
    tmp_path: Path,
) -> None:
    folder = made(tmp_path / "server")
    server = start(folder)
    training = Training(tmp_path / "here", server.url, wait_seconds=60)
    chance = random.Random(7)
    known = 0
    with opened(folder) as store:
        for _ in range(2):
            training.log(chance.randrange(5_000, 20_000))
            # In the middle of a delivery as often as not: some of it is there, and more is on its way.
            wait_for(
                lambda before=known: runs.list_runs(store, "parcels") and len(points(store, training.run)) > before
            )
            kill_9(server)
            known = len(points(store, training.run))
            training.log(1_000)  # nobody is there, and it neither fails nor waits
            server = start(folder, server.port)
        said = training.end()
        assert "Traceback" not in said
        assert "sync" not in said
        assert points(store, training.run) == wanted(training.logged)
        assert runs.get_run(store, training.run).state == "finished"
    server.stop()


def test_a_training_that_is_killed_loses_nothing_that_it_logged_and_is_abandoned(
    server: ServerTree, store: Store, tmp_path: Path
) -> None:
    training = Training(tmp_path / "here", server.url)
    training.log(3_000)
    training.kill()
    with (training.spool / "main.frames").open("ab") as file:
        file.write(b"\x40\x00\x00\x00 a record that was being written")
    (synced,) = training.sync(server.url)
    assert synced["state"] == "delivered"
    assert points(store, training.run) == wanted(3_000)
    found = runs.get_run(store, training.run)
    assert (found.state, found.error) == ("abandoned", intake.DIED)
    assert training.sync(server.url)[0]["sent"] == 0
    # What its own server has is not given to another one as well; nobody listens there, and nobody is asked.
    assert training.sync("http://127.0.0.1:9")[0] == {**synced, "sent": 0}
    told = subprocess.run(
        command("runs", "sync", "--url", server.url), cwd=training.folder, env=training.environment, capture_output=True,
        text=True, timeout=120, check=True,
    )  # fmt: skip
    assert told.stdout == "no run waits in a spool (1 delivered already)\n"
    assert points(store, training.run) == wanted(3_000)


def test_without_any_server_the_run_waits_in_the_spool_until_there_is_one(
    server: ServerTree, store: Store, tmp_path: Path
) -> None:
    training = Training(tmp_path / "here", "http://127.0.0.1:9")  # nobody listens there
    training.log(2_000)
    assert "instar runs sync --url http://127.0.0.1:9" in training.end()
    (waiting,) = training.sync("http://127.0.0.1:9", status=1)
    assert waiting["state"] == "waiting"
    (synced,) = training.sync(server.url)
    assert synced["state"] == "delivered"
    found = runs.get_run(store, training.run)
    assert (found.state, list(found.artifacts)) == ("finished", ["end.txt", "instar/train.py"])
    assert points(store, training.run) == wanted(2_000)
    assert spool.sweep(training.spool.parent, 0) == [training.run]


def test_a_living_run_may_be_synced_from_elsewhere_at_the_same_time(
    server: ServerTree, store: Store, tmp_path: Path
) -> None:
    training = Training(tmp_path / "here", server.url, wait_seconds=60)
    for _ in range(3):
        training.log(2_000)
        (synced,) = training.sync(server.url)
        assert synced["state"] in ("growing", "busy")
    training.end()
    assert points(store, training.run) == wanted(6_000)
    assert runs.get_run(store, training.run).state == "finished"


def test_a_watch_delivers_when_the_server_is_back_and_goes_on_until_it_is_interrupted(tmp_path: Path) -> None:
    folder = made(tmp_path / "server")
    server = start(folder)
    url, port = server.url, server.port
    server.stop()  # it was there, and is away when the training begins
    training = Training(tmp_path / "here", url)
    training.log(500)
    training.kill()
    watch = subprocess.Popen(
        command("runs", "sync", "--url", url, "--watch"), cwd=training.folder,
        env={**training.environment, "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert watch.stdout is not None
        line = watch.stdout.readline()
        assert f"{training.run} of" in line
        assert "is waiting" in line
        with opened(folder) as store, start(folder, port):
            assert (
                "is delivered" in watch.stdout.readline()
            )  # said once each time that something changes, and not between
            assert points(store, training.run) == wanted(500)
            assert runs.get_run(store, training.run).state == "abandoned"
            another = Training(tmp_path / "here", "http://127.0.0.1:9")  # begun while somebody watches
            another.log(200)
            line = watch.stdout.readline()
            assert another.run in line
            assert "is growing" in line
            wait_for(lambda: len(points(store, another.run)) == 200)
            another.end()
            wait_for(lambda: runs.get_run(store, another.run).state == "finished")
    finally:
        watch.send_signal(signal.SIGINT)
        _, said = watch.communicate(timeout=60)
    assert watch.returncode in (0, 1, 130)  # as a terminal knows an interruption
    assert "Traceback" not in said


FULL = """
import resource, sys
import instar
from instar.train import spool

spool.HELD_BYTES = 20_000  # of memory, so that it is full soon
run = instar.run("outage", url=sys.argv[1], resources=False, wait_seconds=60)
print(run.id, flush=True)
for step in range(5):
    run.log(value=step % 7, step=step)
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, before[1]))  # the disk is full from here on
for step in range(5, 5_000):
    run.log(value=step % 7, step=step)
if "again" in sys.argv[2:]:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    run.log(value=5_000 % 7, step=5_000)
print(run._recorder.lost, flush=True)
"""


@pytest.mark.parametrize("again", [False, True], ids=["to the end", "for a while"])
def test_a_full_disk_stops_no_training_and_what_is_lost_is_counted_on_the_record(
    server: ServerTree, store: Store, tmp_path: Path, again: bool
) -> None:
    code = FULL.replace("sys.argv[2:]", repr(["again"] if again else []))
    training = Training(tmp_path / "here", server.url, code=code)
    lost = int(training.line())
    said = training.end()
    assert lost > 0
    assert "cannot be written" in said
    assert "records are lost from now on, and counted" in said
    found = runs.get_run(store, training.run)
    assert found.state == "finished"
    kept = points(store, training.run)
    assert len(kept) + lost == 5_000 + again
    assert kept == [point for point in wanted(5_001) if point in set(kept)]
    assert found.tags[intake.LOST].startswith(f"{lost}: ")
