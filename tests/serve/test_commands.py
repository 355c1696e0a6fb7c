"""Models in programs: started, asked, held to what was declared, started again; and a child of its worker in every end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instar.core.errors import Blocked, Damaged, InstarError, StepFailed, Unavailable
from instar.core.store import Store
from instar.serve.processes import measuring
from instar.serve.worker.commands import answers
from instar.serve.worker.commands.answers import Output
from instar.serve.worker.commands.model import CommandModel
from instar.serve.worker.loading import load
from instar.train.bundle import Tensor
from tests.serve.programs import folder, unpacked

ROW = {"distance": [5000.0], "carrier": ["UA"]}


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    for model in MADE:
        model.close()
    MADE.clear()


MADE: list[CommandModel] = []


def loaded(store: Store, place: Path) -> CommandModel:
    model: Any = load(unpacked(store, place))
    MADE.append(model)
    return model


def test_rows_are_asked_together_and_a_missing_value_is_null(store: Store, tmp_path: Path) -> None:
    model = loaded(store, folder(tmp_path / "m"))
    assert model.score({"distance": [1000.0, None, 2000.0], "carrier": ["UA", "B6", "é"]}) == [0.1, 0.0, 0.2]
    assert not model.decides


def test_what_it_prints_goes_to_the_log_under_its_name(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loaded(store, folder(tmp_path / "m")).close()
    assert "model delay (" in (said := capfd.readouterr().err)
    assert "): ready to serve" in said


def test_a_program_that_died_is_started_again_by_the_next_call(store: Store, tmp_path: Path) -> None:
    model = loaded(store, folder(tmp_path / "m"))
    with pytest.raises(
        Unavailable, match=r"delay .* ended while it was asked; found status 9; its last words: ready to"
    ):
        model.score({"distance": [1.0], "carrier": ["dies"]})
    assert model.score(ROW) == [0.5]
    assert model._child is not None
    os.kill(model._child.pid, signal.SIGKILL)
    model._child._process.wait()
    assert model.score(ROW) == [0.5]


def test_a_program_that_does_not_answer_is_ended(store: Store, tmp_path: Path) -> None:
    model = loaded(store, folder(tmp_path / "m", more="answer_seconds = 0.3"))
    assert model._child is not None
    pid = model._child.pid
    with pytest.raises(Unavailable, match=r"did not answer within 0\.3 s"):
        model.score({"distance": [1.0], "carrier": ["hangs"]})
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert model.score(ROW) == [0.5]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("fails", "status 503; found out of fuel"),
        ("no json", "none of the protocol"),
        ("another id", "another question; found id somebody else's, asked for id 1"),
        ("one row", r"shape of its output score is another; found \[1\], asked for \[2\]"),
        ("shape lies", r"shape of its output score is another; found \[3\], asked for \[2\]"),
        ("no score", "no output `score`; found prediction"),
        ("text", 'data of its output score is another; found "0.5", asked for numbers'),
        ("whole", "datatype of its output score is another; found INT64"),
    ],
)
def test_an_answer_is_held_to_what_was_declared(store: Store, tmp_path: Path, fault: str, said: str) -> None:
    model = loaded(store, folder(tmp_path / "m", fault))
    row = {"distance": [1.0, 2.0], "carrier": ["UA", "UA"]}
    with pytest.raises(StepFailed, match=said) as caught:
        model.score(row)
    assert caught.value.subject.startswith("model delay (")


@pytest.mark.parametrize(
    ("fault", "more", "said"),
    [
        ("ends", "", "ended before it was ready; found status 3; its last words: no module named fuel"),
        ("deaf", "start_seconds = 0.4", "not ready within 0.4 s; found it does not listen"),
        ("never ready", "start_seconds = 0.6", "not ready within 0.6 s; found status 404"),
        ("other inputs", "", "knows no input carrier"),
        ("other datatypes", "", "another datatype of input distance; found FP64, asked for INT64"),
    ],
)
def test_what_does_not_start_says_why_and_leaves_nothing(
    store: Store, tmp_path: Path, fault: str, more: str, said: str
) -> None:
    place = unpacked(store, folder(tmp_path / "m", fault, more))
    with pytest.raises((Unavailable, Blocked), match=said):
        load(place)
    assert not measuring._children(os.getpid())


def test_a_command_that_is_not_installed_is_named(store: Store, tmp_path: Path) -> None:
    place = folder(tmp_path / "m")
    (place / "model.toml").write_text((place / "model.toml").read_text().replace(sys.executable, "no-such-language"))
    with pytest.raises(Unavailable, match=r"no-such-language cannot be started(.|\n)*INSTAR_FENCE_READ"):
        load(unpacked(store, place))


def test_a_program_without_metadata_is_believed(store: Store, tmp_path: Path) -> None:
    assert loaded(store, folder(tmp_path / "m", "no metadata")).score(ROW) == [0.5]


def test_a_changed_or_strange_file_is_refused_before_anything_runs(store: Store, tmp_path: Path) -> None:
    place = unpacked(store, folder(tmp_path / "m"))
    (place / "command" / ".Rprofile").write_text("system('touch it-ran')")
    with pytest.raises(Damaged, match=r"\.Rprofile"):
        load(place)
    (place / "command" / ".Rprofile").unlink()
    (place / "command" / "serve.py").write_text("open('it-ran', 'w')")
    with pytest.raises(Damaged, match=r"serve\.py was changed"):
        load(place)
    assert not (place / "command" / "it-ran").exists()


def test_settings_of_the_server_are_not_handed_to_the_program(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTAR_DATABASE", "postgresql://secret")
    monkeypatch.setenv("INSTAR_TOKEN", "secret")
    model = loaded(store, folder(tmp_path / "m"))
    assert model.score({"distance": [1.0], "carrier": ["environment"]}) == [2.0], "its port and its name"


def test_a_program_ends_with_its_worker_even_when_that_is_killed(store: Store, tmp_path: Path) -> None:
    place = unpacked(store, folder(tmp_path / "m"))
    code = (
        "import sys; from pathlib import Path; from instar.serve.worker.loading import load\n"
        f"model = load(Path({str(place)!r})); print(model._child.pid, flush=True); sys.stdin.read()"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    pid = int(worker.stdout.readline())
    assert measuring.memory_bytes(worker.pid, programs=True) >= measuring.memory_bytes(worker.pid) + 1_000_000
    assert measuring.cpu_seconds(worker.pid, programs=True) >= measuring.cpu_seconds(worker.pid)
    worker.kill()
    worker.communicate()
    until = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


TENSORS = (
    Tensor("y", "FP32", (-1, 2)),
    Tensor("label", "BYTES", (-1,)),
    Tensor("note", "INT8", (), optional=True),
)


def said(**changes: Any) -> dict[str, Output]:
    outputs = {
        "y": Output("y", "FP32", [2, 2], [[1.0, 2], [None, 4.5]]),
        "label": Output("label", "BYTES", [2], ["a", "b"]),
    }
    for name, (field, value) in changes.items():
        setattr(outputs[name], field, value)
    return outputs


def test_tensors_of_an_answer_are_arrays() -> None:
    found = answers.arrays(said(), TENSORS, 2, "it")
    assert found["y"].dtype == np.float32
    assert found["y"].tolist()[0] == [1.0, 2.0]
    assert np.isnan(found["y"][1, 0])
    assert found["label"].tolist() == ["a", "b"]
    question = answers.of_tensors(TENSORS[:1], {"y": np.array([[np.nan, 1.5]], np.float32)}, "7")
    assert question == b'{"id":"7","inputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[null,1.5]}]}'


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": ("shape", [3, 2])}, r"shape of its output y .* found \[3, 2\], asked for \[2, 2\]"),
        ({"y": ("shape", [4])}, "shape of its output y"),
        ({"y": ("data", [1.0, 2.0])}, "output y cannot be read"),
        ({"y": ("data", [True, 1, 1, 1])}, "data of its output y .* found true, asked for FP32"),
        ({"y": ("datatype", "BYTES")}, "datatype of its output y"),
        ({"label": ("data", ["a", 1])}, "data of its output label"),
        ({"label": ("name", "label")}, ""),
    ],
)
def test_tensors_that_are_not_as_declared_are_named(changes: dict[str, Any], message: str) -> None:
    outputs = said(**changes)
    if not message:
        del outputs["label"]
        message = "no output label; found y"
    with pytest.raises(InstarError, match=message):
        answers.arrays(outputs, TENSORS, 2, "it")


def test_a_number_beyond_its_datatype_is_refused() -> None:
    outputs = {"n": Output("n", "INT8", [1], [300])}
    with pytest.raises(StepFailed, match="output n cannot be read"):
        answers.arrays(outputs, (Tensor("n", "INT8", (-1,)),), 1, "it")
