"""`instar check-runtime`: each fault of a program is named by the check that is there for it, and by no other before it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from instar.core.errors import BadInput, Unavailable
from instar.interfaces.cli.runtimes import check_runtime
from instar.serve.worker.commands import conformance
from instar.serve.worker.commands.child import HOST, Child
from instar.serve.worker.commands.conformance import Check, Declared, Subject
from instar.train.command_bundle import read_folder
from tests.serve.programs import folder


def looked(place: Path, *, declared: bool = True) -> dict[str, Check]:
    manifest = read_folder(place, "m")
    command = manifest.command
    assert command is not None
    child = Child("m", command.command, place, command.name, {})
    try:
        child.wait_ready(20)
        known = Declared.of_columns(manifest.inputs) if declared else None
        return {one.name: one for one in conformance.check(Subject(HOST, child.port, command.name, known))}
    finally:
        child.end()


def test_a_good_program_passes_with_and_without_a_declaration(tmp_path: Path) -> None:
    for declared in (True, False):
        found = looked(folder(tmp_path / "m"), declared=declared)
        assert {one.state for one in found.values()} == {"passed"}, found
        assert len(found) == 13


@pytest.mark.parametrize(
    ("fault", "check", "state", "said"),
    [
        ("not live", "live", "failed", "status 404 of GET /v2/health/live"),
        ("no metadata", "metadata", "failed", "status 404 of GET /v2/models/model"),
        ("other inputs", "metadata", "failed", "its inputs are distance, without carrier"),
        ("other datatypes", "metadata", "failed", "it says INT64 of distance, and model.toml FP64"),
        ("fails", "infer", "failed", "status 503; found out of fuel"),
        ("no json", "infer", "failed", "none of the protocol"),
        ("another id", "infer", "failed", "answered another question"),
        ("no id", "id", "failed", "the answer has no id"),
        ("one row", "several rows", "failed", "shape of its output score is another; found [1], asked for [3]"),
        ("rows together", "several rows", "failed", "score of 3 rows together is another than of each alone"),
        ("any model", "unknown model", "failed", "status 200 where no model has the name"),
        ("malformed is its fault", "malformed body", "failed", 'status 500 of the body {"inputs": ['),
        ("closes", "kept connection", "failed", "the connection was closed after answer 1"),
        ("one at a time", "concurrent calls", "failed", "status 500; found busy"),
        ("one piece only", "large body", "failed", "a body of 16 MiB: "),
        ("small bodies", "large body", "failed", "status 413; found too large"),
        ("nagle", "40 ms delay", "warned", "in two writes"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, fault: str, check: str, state: str, said: str) -> None:
    found = looked(folder(tmp_path / "m", fault))
    assert found[check].state == state
    assert said in found[check].found
    assert [one.name for one in found.values() if one.state in ("failed", "warned")][:1] == [check]
    if check == "infer":
        assert {one.state for one in list(found.values())[5:]} == {"left out"}
    if fault == "nagle":
        assert "TCP_NODELAY" in found[check].next_step


def test_the_command_looks_at_a_folder_and_says_how_it_went(tmp_path: Path) -> None:
    place = folder(tmp_path / "m")
    done = CliRunner().invoke(check_runtime, [str(place)])
    assert done.exit_code == 0, done.output
    assert "passed    start             ready after" in done.output
    assert "14 checks: 0 failed, 0 warned" in done.output
    folder(place, "no id")
    done = CliRunner().invoke(check_runtime, [str(place)])
    assert done.exit_code == 1
    assert "failed    id                the answer has no id\n" + " " * 28 + "Give the request's id back" in done.output


def test_a_warning_fails_only_where_it_is_asked_to(tmp_path: Path) -> None:
    place = folder(tmp_path / "m", "nagle")
    done = CliRunner().invoke(check_runtime, [str(place), "--json"])
    said = json.loads(done.stdout)
    assert (done.exit_code, said["failed"], said["warned"]) == (0, 0, 1)
    assert CliRunner().invoke(check_runtime, [str(place), "--strict"]).exit_code == 1


def test_the_command_looks_at_an_address(tmp_path: Path) -> None:
    place = folder(tmp_path / "m", "other")
    child = Child("m", read_folder(place, "m").parameters["command"], place, "model", {})
    try:
        child.wait_ready(20)
        base = f"http://{HOST}:{child.port}"
        for arguments in ([f"{base}/v2/models/model"], [base, "--model", "model"]):
            done = CliRunner().invoke(check_runtime, arguments)
            assert done.exit_code == 0, done.output
            assert "13 checks: 0 failed" in done.output
        assert CliRunner().invoke(check_runtime, [base, "--model", "other"]).exit_code == 1
    finally:
        child.end()


def test_the_command_starts_a_command_here_and_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder(tmp_path / "m")
    (place / "model.toml").unlink()  # none is needed
    monkeypatch.chdir(place)
    begin = f"{shlex.quote(sys.executable)} -I serve.py"
    done = CliRunner().invoke(check_runtime, ["--command", begin])
    assert done.exit_code == 0, done.output
    assert "14 checks: 0 failed" in done.output
    assert CliRunner().invoke(check_runtime, ["--command", begin, "--model", "mine", "--json"]).exit_code == 0
    assert CliRunner().invoke(check_runtime, ["--command", f"{begin} 'no id'"]).exit_code == 1
    gone = CliRunner().invoke(check_runtime, ["--command", "no-such-program-at-all"])
    assert isinstance(gone.exception, Unavailable)
    assert "cannot be started" in str(gone.exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name one thing to look at"),
        (["folder", "--command", "true"], "name one thing to look at"),
        (["--command", "'open"], "cannot be read"),
        (["--command", " "], "it is empty"),
        (["http://127.0.0.1:1"], "does not name a model"),
        (["https://127.0.0.1:1/v2/models/m"], "no address of a program"),
        (["not-there"], "has no model.toml"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(check_runtime, arguments)
    assert isinstance(done.exception, BadInput)
    assert said in str(done.exception)


def test_a_program_that_does_not_start_says_why(tmp_path: Path) -> None:
    done = CliRunner().invoke(check_runtime, [str(folder(tmp_path / "m", "ends"))])
    assert isinstance(done.exception, Unavailable)
    assert "no module named fuel" in str(done.exception)
