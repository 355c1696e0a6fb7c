"""Processes of other environments that hang, die or speak nonsense: each is ended, said so clearly, and begun again."""

from __future__ import annotations

import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instar.core.errors import StepFailed, Unavailable
from instar.core.settings import Settings
from instar.serve.worker import housed, shim
from instar.serve.worker.work import Ended

# An interpreter that answers the first message as FAULT says, and is a shim of its own kind from its second start on.
FAULTY = """#!{python}
import json, os, struct, sys, time
mark = {mark!r}
line = __import__("socket").socket(fileno=int(sys.argv[3]))
def say(text, *parts):
    line.sendall(struct.pack("<I", len(text)) + text + b"".join(parts))
again = os.path.exists(mark)
open(mark, "a").write("x")
while True:
    size = line.recv(4)
    if not size:
        break
    asked = json.loads(line.recv(struct.unpack("<I", size)[0]))
    if again:
        say(b'{{"decides": false, "sizes": []}}')
        continue
    {fault}
"""
FAULTS = {
    "text that a library printed": "line.sendall(b'loading the model...\\n')",
    "a head of 4 GB": "line.sendall(b'\\xff\\xff\\xff\\xff')",
    "parts of 1 TB": "say(b'{\"sizes\": [1099511627776]}')",
    "parts below nothing": "say(b'{\"sizes\": [-1]}')",
    "no sizes": "say(b'{}')",
    "no object": "say(b'[1]')",
    "no JSON": "say(b'{')",
    "no UTF-8": "say(b'\\xff')",
}


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Any]:
    """Starts a line to a process with a fault."""
    lines: list[housed.Line] = []
    lost: list[int | None] = []

    def make(fault: str, seconds: float = 30.0) -> tuple[housed.Line, list[int | None]]:
        program = tmp_path / "python"
        program.write_text(FAULTY.format(python=sys.executable, mark=str(tmp_path / "mark"), fault=fault))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        lines.append(housed.Line(lost.append, lambda: str(program), seconds=seconds))
        return lines[-1], lost

    yield make
    for line in lines:
        line.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_nonsense_on_the_line_is_the_end_of_that_process_and_the_next_call_begins_another(
    faulty: Any, fault: str
) -> None:
    line, lost = faulty(FAULTS[fault])
    process = line._process
    with pytest.raises(Ended, match="none of its protocol") as found:
        line.ask({"do": "score"})
    assert (found.value.hung, lost) == (True, [])
    assert process.poll() is not None
    assert line.ask({"do": "score"})[0]["decides"] is False


def test_one_that_hangs_is_ended_in_time_and_begun_again(faulty: Any) -> None:
    line, lost = faulty("time.sleep(600)", seconds=0.3)
    process = line._process
    with pytest.raises(Ended, match=r"did not answer within 0\.3 s") as found:
        line.ask({"do": "score"})
    assert (found.value.hung, lost) == (True, [])
    assert process.poll() is not None
    line._seconds = 30.0
    assert line.ask({"do": "score"})[0]["decides"] is False


def test_one_that_drips_its_answer_has_no_more_time(faulty: Any) -> None:
    drip = "for one in struct.pack('<I', 100):\n        line.sendall(bytes([one])); time.sleep(0.2)"
    line, _ = faulty(drip, seconds=0.3)
    with pytest.raises(Ended, match="did not answer"):
        line.ask({"do": "score"})


def test_one_that_is_killed_takes_its_worker_along(faulty: Any) -> None:
    line, lost = faulty("os.kill(os.getpid(), 9)")
    with pytest.raises(Ended, match="exit status -9") as found:
        line.ask({"do": "score"})
    assert (found.value.hung, lost) == (False, [-9])


def test_an_interpreter_that_is_gone_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be run"):
        housed.Line(lambda status: None, lambda: str(tmp_path / "none"))


def test_outputs_that_are_not_as_they_say_are_nonsense() -> None:
    class Line:
        def __init__(self, answer: dict[str, Any], values: list[bytes]) -> None:
            self.said = answer, values

        def ask(self, head: Any, parts: Any = ()) -> Any:
            return self.said

        def nonsense(self, found: object) -> None:
            raise StepFailed("nonsense", found=found)

    wrong: list[tuple[dict[str, Any], list[bytes]]] = [
        ({}, []),
        ({"outputs": [{"name": "y", "datatype": "FP64", "shape": [2]}]}, [b"12345678"]),
        ({"outputs": [{"name": "y", "datatype": "FP65", "shape": [1]}]}, [b"12345678"]),
        ({"outputs": [{"name": "y", "datatype": "FP64", "shape": [1]}]}, []),
    ]
    for answer, values in wrong:
        with pytest.raises(StepFailed, match="nonsense"):
            housed.HousedTensors(Line(answer, values)).infer({"x": np.zeros(1)})  # type: ignore[arg-type]


def test_a_process_that_is_asked_ends_before_its_worker_counts_as_hanging() -> None:
    assert Settings().answer_seconds == 15
    assert Settings(hang_seconds=4.0).answer_seconds == 3
    assert Settings(call_seconds=2.0).answer_seconds == 2


def test_a_message_is_read_whole_or_not_at_all() -> None:
    from socket import socketpair

    ours, theirs = socketpair()
    with ours, theirs:
        ours.sendall(struct.pack("<I", 40) + b" " * 40)
        with pytest.raises(ValueError, match="40 bytes"):
            shim.receive(theirs, most=39)
