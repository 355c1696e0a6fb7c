"""Processes that are killed, interrupted and run at once over the newcomer's project: the record opens, holds and goes on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from instar.app import App, open_app
from instar.core.database import Database, T, Transaction
from instar.core.errors import InstarError
from instar.operate import cycle
from instar.plan import importing, leases, runner
from instar.serve.clients.client import Answer, Ask, InferClient
from instar.serve.log.calls import CallLog
from instar.serve.traffic.routes import read_snapshot
from tests.journeys.conftest import ROW
from tests.journeys.driving import contents, edit, instar, looked_up, started, told, up, wait_for

TYPES = dict.fromkeys(ROW, "INT64") | {"channel": "BYTES"}
INTERRUPTED = (130, -signal.SIGINT)  # Python may end by the signal itself, which a shell calls 130 too


def record(folder: Path) -> dict[str, Any]:
    """What a project has come to: contents of tables, its model versions, what answers, and what gateways are told."""
    policy = read_snapshot(folder / ".instar").endpoints["no_show"].policy
    return {
        "tables": contents(folder),
        "versions": [(one["version"], one["origin"], one["state"]) for one in looked_up(folder, "models", "ls")],
        "live": [[(part["version"], part["role"]) for part in one["answering"]] for one in looked_up(folder, "live")],
        "routed": [policy.champion, *((shadow.version, shadow.role) for shadow in policy.shadows)],
    }


def fresh(made: Path, folder: Path) -> Path:
    """The project as `made` has it, before its first run."""
    return Path(shutil.copytree(made, folder, ignore=shutil.ignore_patterns(".instar", "__pycache__")))


def stop(folder: Path, number: signal.Signals, lines: int, seconds: float, *options: str) -> tuple[int, str]:
    """Start `instar run`, and send it a signal some time after it said so many lines; its status and words."""
    process = started(folder, "run", *options)
    assert process.stdout is not None
    said = "".join(process.stdout.readline() for _ in range(lines))
    time.sleep(seconds)
    process.send_signal(number)
    rest, _ = process.communicate(timeout=120)
    return process.returncode, said + rest


def test_a_run_killed_at_random_moments_comes_to_the_same(made: Path, tmp_path: Path) -> None:
    cafe = fresh(made, tmp_path / "cafe")
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    moments = [(chance.randrange(1, 9), chance.random() / 4), (chance.randrange(1, 11), chance.random() / 2)]
    for (lines, seconds), options in zip(moments, (["-j", "4"], []), strict=True):
        stop(cafe, signal.SIGKILL, lines, seconds, *options)
        assert looked_up(cafe, "audit", "verify")["consistent"] is True, (seed, moments)
    instar(cafe, "run")
    assert record(cafe) == record(made), (seed, moments)
    assert {step["state"] for step in looked_up(cafe, "status")["steps"]} == {"current"}
    assert looked_up(cafe, "audit", "verify")["consistent"] is True


def test_a_parallel_run_killed_at_random_moments_comes_to_the_same(made: Path, tmp_path: Path) -> None:
    cafe = fresh(made, tmp_path / "cafe")
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    for _ in range(3):
        stop(cafe, signal.SIGKILL, chance.randrange(1, 9), chance.random() / 4, "-j", "4")
        assert looked_up(cafe, "audit", "verify")["consistent"] is True, seed
    instar(cafe, "run", "-j", "4")
    assert record(cafe) == record(made), seed
    assert {step["state"] for step in looked_up(cafe, "status")["steps"]} == {"current"}


def test_ctrl_c_leaves_a_store_that_opens_and_continues(made: Path, tmp_path: Path) -> None:
    cafe = fresh(made, tmp_path / "cafe")
    # In the middle of a step of the project itself, which is where people lose patience.
    edit(
        cafe / "pipeline.py",
        '    """Boosted trees."""\n',
        '    """Boosted trees."""\n    import time\n\n    time.sleep(PAUSE)\n',
    )
    edit(cafe / "pipeline.py", "MOST_GUESTS = 30\n", "MOST_GUESTS = 30\nPAUSE = 60\n")
    status, said = stop(cafe, signal.SIGINT, 9, 0.5)
    assert status in INTERRUPTED, said
    assert "[5/5] no_show_trees failed" in said
    assert "interrupted; what was recorded stays, and the same command continues" in said
    assert "Traceback" not in said
    states = {step["step"]: step["state"] for step in told(cafe, "status")["steps"]}
    assert states.pop("no_show_trees") == "failed"
    assert set(states.values()) == {"current"}
    assert looked_up(cafe, "audit", "verify")["consistent"] is True
    edit(cafe / "pipeline.py", "PAUSE = 60", "PAUSE = 0")
    assert "1 of 5 steps ran: no_show_trees" in instar(cafe, "run").stdout
    assert record(cafe) == record(made)


class Killed(BaseException):
    """Ends a process in the middle of a test, without its end: no cleaning up reaches the store."""


class Dying:
    """A database whose process dies before its n-th writing transaction."""

    def __init__(self, real: Database, writes: int) -> None:
        self._real, self.left = real, writes

    @property
    def dialect(self) -> str:
        return self._real.dialect

    def read(self) -> AbstractContextManager[Transaction]:
        return self._real.read()

    def write(self, work: Callable[[Transaction], T], *, durable: bool = False, shared: bool = False) -> T:
        if self.left <= 0:
            raise Killed
        self.left -= 1
        return self._real.write(work, durable=durable, shared=shared)

    def close(self) -> None:
        self._real.close()


@pytest.fixture(scope="module")
def walked(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with its pipeline walked, and nothing proposed yet."""
    cafe = fresh(made, tmp_path_factory.mktemp("walked") / "cafe")
    with opened(cafe) as app:
        runner.execute(app.store, app.project, app.pipeline, app.kinds())
    return cafe


class opened:
    """`open_app`, leaving no module of the project behind."""

    def __init__(self, folder: Path) -> None:
        self._app = open_app(folder)

    def __enter__(self) -> App:
        return self._app.__enter__()

    def __exit__(self, *error: Any) -> None:
        importing.forget()
        self._app.__exit__(None, None, None)


def test_a_proposal_killed_between_any_two_records_comes_to_the_same(walked: Path, made: Path, tmp_path: Path) -> None:
    wanted = record(made)
    # Every fifth, beginning anywhere: all of them have their turn from one day to the next.
    for writes in range(random.randrange(5, 10), 80, 5):
        folder = tmp_path / str(writes)
        shutil.copytree(walked, folder)
        with opened(folder) as app:
            dying = Dying(app.store.database, writes)
            try:
                cycle.turn(replace(app.loop(), store=replace(app.store, database=dying)))
                finished = True
            except Killed:
                finished = False
            # The lease of a process that is gone is free; this one lives on, so it is told.
            app.store.database.write(lambda tx: tx.execute(leases.lease.update().values(holder=None)))
            cycle.turn(app.loop())
        assert record(folder) == wanted, writes
        assert looked_up(folder, "audit", "verify")["consistent"] is True
        if finished:
            return
    pytest.fail("a proposal takes more transactions than were tried")


class Load:
    """Calls without pause from another thread, until the server is gone or it is told to stop."""

    def __init__(self, url: str) -> None:
        self.answers: list[Answer] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(url,), daemon=True)
        self._thread.start()

    def _run(self, url: str) -> None:
        try:
            with InferClient(url, "no_show", connections=4, inputs=TYPES) as client:
                for turn in range(10_000):
                    if self._stop.is_set():
                        return
                    self.answers += client.infer_all([Ask({**ROW, "days_ahead": (turn + n) % 60}) for n in range(20)])
        except InstarError:
            return

    def answered(self) -> dict[str, Answer]:
        return {answer.call: answer for answer in self.answers if answer.status == 200}

    def end(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


def test_after_kill_9_under_load_the_record_holds_and_the_server_goes_on(cafe: Path) -> None:
    with up(cafe, "no_show") as server:
        load = Load(server.url)
        wait_for(lambda: len(load.answered()) >= 200)
        os.kill(server.process.pid, signal.SIGKILL)
        load.end()
        server.process.wait(60)
    answered = load.answered()
    # Its gateways end with it, and then nobody writes any more.
    audit = told(cafe, "audit", "verify")
    assert (audit["consistent"], audit["words"]) == (True, "consistent, not anchored")
    with up(cafe, "no_show") as again:
        (more,) = told(cafe, "predict", "no_show", *(f"{name}={value}" for name, value in ROW.items()))
        assert more["status"] == 200
        assert "drained" in again.stop()
    with open_app(cafe) as app:
        rows = {row["call"]: row for row in CallLog(app.store).read("no_show").iter_rows(named=True)}
    assert not answered.keys() - rows.keys()
    assert all(rows[call]["score"] == answer.score for call, answer in answered.items())
    assert more["prediction"].partition("/")[0] in rows
    some = min(answered)
    assert looked_up(cafe, "trace", f"{some}/0")["facts"]["score"] == answered[some].score
    assert told(cafe, "audit", "verify")["consistent"] is True


def test_two_runs_at_once_beside_a_busy_server_take_turns(cafe: Path) -> None:
    edit(cafe / "pipeline.py", "MOST_GUESTS = 30", "MOST_GUESTS = 7")
    with up(cafe, "no_show") as server:
        load = Load(server.url)
        runs = [started(cafe, "run") for _ in range(2)]
        said = [run.communicate(timeout=120)[0] for run in runs]
        load.end()
        whole = server.stop()
    assert [run.returncode for run in runs] == [0, 0], said
    for words in (*said, whole):
        assert "locked" not in words
        assert "Traceback" not in words
    assert {answer.status for answer in load.answers} == {200}
    ran = sorted(line for words in said for line in words.splitlines() if " steps ran" in line)
    assert ran[0] == "0 of 5 steps ran"
    assert ran[1].startswith("4 of 5 steps ran: clean_bookings")
    # Judged once, registered once.
    versions = [(one["version"], one["origin"]) for one in looked_up(cafe, "models", "ls")]
    assert versions[3:] == [("no_show@4", "baseline"), ("no_show@5", "recipe"), ("no_show@6", "refit")]
    assert looked_up(cafe, "audit", "verify")["consistent"] is True
