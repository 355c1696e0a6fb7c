"""Processes that are forked from a warm one: what they inherit, what they do not, and who hears of their end."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from instar.serve.processes.zygote import Exited, Spawned, Zygote
from tests.serve.conftest import ROOT, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are only forked on Linux")

PROGRAM = """
import json, os, random, signal, socket, sys, time
from instar.serve.processes import zygote

def begin(arguments, fds):
    what, *rest = arguments
    if what == "say":
        facts = {"arguments": rest, "random": random.random(), "parent": os.getppid(), "pid": os.getpid(),
                 "open": len(os.listdir("/proc/self/fd")) - 1, "term": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL}
        os.write(fds[0], json.dumps(facts).encode())
    elif what == "sleep":
        time.sleep(60)
    elif what == "fail":
        sys.exit(7)

here = os.getpid()

def after_parent(fds):
    while os.getppid() == here:
        time.sleep(0.001)
    let_go(fds)

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if "--late" in sys.argv:
    let_go, zygote._let_go_of_descriptors = zygote._let_go_of_descriptors, after_parent
    zygote.ADOPTED_SECONDS = 600
if "--root" in sys.argv:
    zygote.adopt_orphans()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        zygote.serve(theirs, begin, adopted=True)
        os._exit(0)
    theirs.close()
    ours.send(json.dumps({"spawn": 1, "arguments": ["sleep"]}).encode())
    print(ours.recv(1000).decode(), flush=True)
    time.sleep(60)
zygote.serve(socket.socket(fileno=int(sys.argv[-1])), begin)
"""


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return [sys.executable, str(file)]


@pytest.fixture
def zygote(program: list[str]) -> Iterator[Zygote]:
    zygote = Zygote.start(program, environment={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    yield zygote
    zygote.close()


def hear(zygote: Zygote) -> Any:
    assert select.select([zygote], [], [], 20)[0]
    return zygote.hear()


def say(zygote: Zygote, request: int) -> dict[str, Any]:
    import json

    reading, writing = os.pipe()
    zygote.spawn(request, ["say", "a", "b"], fds=[writing])
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        return dict(json.loads(file.read()))


def test_a_child_has_its_arguments_its_descriptors_and_nothing_else(zygote: Zygote) -> None:
    first, second = say(zygote, 1), say(zygote, 2)
    assert first["arguments"] == ["a", "b"]
    assert first["random"] != second["random"]
    assert first["parent"] == zygote.process.pid
    assert first["open"] == 4  # standard input, output and error, and the one that came with the request
    assert first["term"]
    said: list[Any] = []
    wait_for(lambda: (said.extend(hear(zygote)), len(said) == 4)[1])
    assert {Spawned(1, first["pid"]), Spawned(2, second["pid"])} <= set(said)
    assert {Exited(first["pid"], 0), Exited(second["pid"], 0)} <= set(said)


def test_how_a_child_ended_is_told(zygote: Zygote) -> None:
    zygote.spawn(1, ["fail"])
    said: list[Any] = []
    wait_for(lambda: (said.extend(hear(zygote)), len(said) == 2)[1])
    assert said == [Spawned(1, said[0].pid), Exited(said[0].pid, 7)]
    zygote.spawn(2, ["sleep"])
    (spawned,) = hear(zygote)
    os.kill(spawned.pid, signal.SIGKILL)
    assert hear(zygote) == [Exited(spawned.pid, -signal.SIGKILL)]


def test_children_end_with_the_zygote(zygote: Zygote) -> None:
    zygote.spawn(1, ["sleep"])
    (spawned,) = hear(zygote)
    zygote.process.kill()
    wait_for(lambda: gone(spawned.pid))
    with pytest.raises(EOFError):
        hear(zygote)


def test_a_child_ends_though_the_zygote_died_before_it_could_ask_to_be_told(program: list[str]) -> None:
    late = Zygote.start([*program, "--late"], environment={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    late.spawn(1, ["sleep"])
    (spawned,) = hear(late)
    late.process.kill()
    wait_for(lambda: gone(spawned.pid))
    late.close()


def test_adopted_children_outlive_the_zygote_and_end_with_the_root(program: list[str]) -> None:
    import json
    import subprocess

    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    root = subprocess.Popen([*program, "--root"], stdout=subprocess.PIPE, env=environment)
    assert root.stdout is not None
    pid = json.loads(root.stdout.readline())["pid"]
    wait_for(lambda: parent(pid) == root.pid)
    (between,) = [
        int(p.name) for p in Path("/proc").glob("[0-9]*") if parent(int(p.name)) == root.pid and p.name != str(pid)
    ]
    os.kill(between, signal.SIGKILL)
    wait_for(lambda: gone(between))
    assert not gone(pid)
    root.kill()
    wait_for(lambda: gone(pid))
    root.wait()
    root.stdout.close()


def parent(pid: int) -> int:
    try:
        return int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def gone(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
