"""A training that is asked to go by a signal: its run is killed, all that it logged is kept, and the process ends as it would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from instar.app import open_app
from instar.interfaces.sdk import ending, place, signals
from instar.train import runs, syncing
from tests.interfaces.test_notes import CONTRACT

from .test_run import Begin, begin, here, store  # noqa: F401

TRAINING = """
import instar, os, signal, sys, time

{before}
run = instar.run("late", resources=False, wait_seconds={wait}, {about})
with run.child("fold") as fold:
    fold.log(b=1)
    {after}
    print(run.id, flush=True)
    step = 0
    while {condition}:
        run.log(a=step, step=step)
        step += 1
        if step == 20:
            print("logs", flush=True)
        if step > 2_000:
            time.sleep(0.001)
"""
STOPS = "stop = []\nsignal.signal(signal.SIGTERM, lambda number, frame: stop.append(1))"
EXITS = "def leave(number, frame): sys.exit({status})\nsignal.signal(signal.SIGTERM, leave)"
CHILD = """
    for _ in range(20):
        child = os.fork()
        while not child:
            time.sleep(1)
        os.kill(child, signal.SIGTERM)  # perhaps before its first instruction
        assert os.waitpid(child, 0)[1] == signal.SIGTERM"""


def trained(folder: Path, number: int = signal.SIGTERM, **words: str) -> tuple[int, str]:
    """Status and errors of a training that a signal reaches in the middle of its logging."""
    (folder / "instar.toml").write_text(CONTRACT)
    words = {"before": "", "about": "", "after": "pass", "condition": "True", "wait": "0.1", **words}
    (folder / "train.py").write_text(TRAINING.format(**words))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INSTAR_")}
    process = subprocess.Popen(
        [sys.executable, "train.py"], cwd=folder, env={**kept, "XDG_STATE_HOME": str(folder / "state")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line == "logs\n":
            break
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    return process.returncode, said


def ended(folder: Path) -> dict[str, runs.Run]:
    with open_app(folder) as app:
        spot = place.find(start=folder)
        sinks = place.Sinks(here=spot)
        syncing.sync(spot.spool, lambda about: sinks.find(about, at_home=True))
        sinks.close()
        return {run.name: run for run in runs.list_runs(app.store, "parcels")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_training_that_is_asked_to_go_ends_its_runs_and_dies_of_the_signal(tmp_path: Path, number: int) -> None:
    status, said = trained(tmp_path, number)
    assert status == -number, said
    assert "Traceback" not in said
    found = ended(tmp_path)
    assert {(run.state, run.error) for run in found.values()} == {("killed", signal.Signals(number).name)}
    assert found["fold"].metrics == {"b": 1.0}
    with open_app(tmp_path) as app:
        steps = [point.step for point in runs.metric_history(app.store, found[""].id, "a")]
    assert len(steps) >= 20
    assert steps == list(range(len(steps)))  # all that it logged, in order, once


def test_with_no_server_what_it_logged_waits_in_the_spool_and_it_does_not_linger(tmp_path: Path) -> None:
    status, said = trained(tmp_path, about="url='http://127.0.0.1:9'")
    assert status == -signal.SIGTERM
    assert said.count("deliver it with: instar runs sync --url http://127.0.0.1:9") == 2
    (one, two) = place.find(start=tmp_path).spool.glob("run_*")
    for folder in (one, two):
        (folder / "about.json").write_bytes(
            (folder / "about.json").read_bytes().replace(b'"http://127.0.0.1:9"', b"null")
        )
    assert {run.state for run in ended(tmp_path).values()} == {"killed"}


@pytest.mark.parametrize(
    ("words", "status", "state"),
    [
        ({"before": STOPS, "condition": "not stop"}, 0, ("finished", None)),
        ({"before": EXITS.format(status=0)}, 0, ("killed", "SIGTERM")),
        ({"before": EXITS.format(status=143)}, 143, ("killed", "SIGTERM")),
        ({"before": "stop = []", "after": STOPS.replace("\n", "; "), "condition": "not stop"}, 0, ("finished", None)),
        ({"before": "signal.signal(signal.SIGTERM, signal.SIG_IGN)", "condition": "step < 30"}, 0, ("finished", None)),
        ({"after": CHILD}, -signal.SIGTERM, ("killed", "SIGTERM")),
    ],
    ids=["stops in its time", "exits well", "exits with a status", "set later", "ignores it", "a child before"],
)
def test_a_handler_of_the_users_decides_and_a_child_is_asked_alone(
    tmp_path: Path, words: dict[str, str], status: int, state: tuple[str, str | None]
) -> None:
    found, said = trained(tmp_path, **words)
    assert found == status, said
    outer = ended(tmp_path)["fold"]
    assert (outer.state, outer.error) == state


def test_what_handled_the_signal_before_is_put_back_at_the_end(begin: Begin) -> None:  # noqa: F811
    def mine(number: int, frame: object) -> None: ...

    first = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, mine)
    try:
        with begin() as run:
            assert signal.getsignal(signal.SIGTERM) is not mine
            with begin():
                pass
            assert signal.getsignal(signal.SIGTERM) is not mine
        assert run.id
        assert signal.getsignal(signal.SIGTERM) is mine
        with begin():
            signal.signal(signal.SIGTERM, mine)
        assert signal.getsignal(signal.SIGTERM) is mine
        in_a_thread = threading.Thread(target=lambda: begin().finish())
        in_a_thread.start()
        in_a_thread.join()
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, first)


def test_a_record_may_be_interrupted_by_the_end(begin: Begin, store: object, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The handler runs in the thread that logs, perhaps while that holds the locks of the run and of its file."""
    run = begin()
    writer = run._recorder._writer
    assert writer is not None
    with run._recorder.lock, writer._lock:
        ending._stopped("SIGTERM", 0.0)
    assert run._recorder.ended
    assert signals.taken() == ""
