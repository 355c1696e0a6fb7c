"""The command line's rim: unknown commands, exit statuses, help in the order of the life cycle."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from instar.core import errors
from instar.interfaces.cli.main import COMMANDS, cli, exit_status, main


def _instar(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "instar.interfaces.cli.main", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_help_lists_every_command_in_the_order_of_the_life_cycle() -> None:
    text = CliRunner().invoke(cli, ["--help"]).output
    places = [text.index(f"  {name} ") for name in COMMANDS]
    assert places == sorted(places)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_without_a_traceback(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(**_: object) -> None:
        raise OSError(number, os.strerror(number), "/store/.instar/serve/server.json")

    monkeypatch.setattr(cli, "main", full)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "server.json: no room is left" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists_and_has_help(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_an_unknown_command_names_the_nearest(tmp_path: Path) -> None:
    done = _instar("predic", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'predict'?" in done.stderr


def test_outside_a_project_the_error_is_clear_and_nothing_is_made(tmp_path: Path) -> None:
    done = _instar("status", cwd=tmp_path)
    assert done.returncode == 2
    assert "instar.toml" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_exit_statuses_tell_the_kind_of_failure() -> None:
    assert exit_status(errors.ContractError("x")) == 2
    assert exit_status(errors.Blocked("x")) == 3
    assert exit_status(errors.CheckFailed("x")) == 1


def test_threads_of_a_fit_wait_without_spinning_unless_told_otherwise(tmp_path: Path) -> None:
    code = "import atexit, os; atexit.register(lambda: print(os.environ['OMP_WAIT_POLICY'])); "
    code += "from instar.interfaces.cli.main import main; main()"
    plain = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    for given, wanted in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        command = [sys.executable, "-c", code, "--version"]
        done = subprocess.run(command, cwd=tmp_path, env=plain | given, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == wanted


def test_the_help_of_a_group_says_whole_sentences_in_the_order_of_use() -> None:
    said = CliRunner().invoke(cli, ["route", "--help"]).output.partition("Commands:")[2]
    assert "..." not in said
    assert "who changed what" in said
    assert said.index("  show ") < said.index("  weights ") < said.index("  back ")
