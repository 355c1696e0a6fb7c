"""`instar run` with its options, `instar logs` and `instar schedule` on a small project of tables."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from instar.core.errors import BadInput, NotFound, StepFailed, UnknownTable
from instar.interfaces.cli.main import cli
from instar.plan import importing
from tests.plan.conftest import CONTRACT

STEPS = """
import logging
import polars as pl
from instar import gold, silver, source

visits = source("visits", path="data/visits*.csv")

@silver(key="id")
def clean(visits: pl.DataFrame, least: int = 0) -> pl.DataFrame:
    print("rows:", visits.height)
    logging.getLogger("visits").info("least is %d", least)
    return visits.select("id").filter(pl.col("id") >= least)

@silver(key="id")
def odd(visits: pl.DataFrame) -> pl.DataFrame:
    return visits.select("id").filter(pl.col("id") % 2 == 1)

@gold(entity="id")
def features(clean: pl.LazyFrame, odd: pl.LazyFrame) -> pl.LazyFrame:
    return clean.join(odd.with_columns(odd=True), on="id", how="left")
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "data").mkdir()
    (tmp_path / "instar.toml").write_text(CONTRACT)
    (tmp_path / "pipeline.py").write_text(STEPS)
    (tmp_path / "data/visits1.csv").write_text("id\n1\n2\n3\n")
    yield tmp_path
    importing.forget()


def instar(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["--project", str(folder), *words])


def edit(project: Path, old: str, new: str) -> None:
    text = (project / "pipeline.py").read_text()
    assert old in text
    (project / "pipeline.py").write_text(text.replace(old, new))


def contents(project: Path) -> dict[str, str]:
    return {one["table"]: one["content"] for one in json.loads(instar(project, "data", "ls", "--json").output)}


def test_in_processes_real_tables_come_to_the_same_as_here(project: Path, tmp_path: Path) -> None:
    assert "4 of 4 steps ran" in instar(project, "run", "-j", "3").output
    at_once = contents(project)
    assert json.loads(instar(project, "audit", "verify", "--json").output)["consistent"] is True
    other = CliRunner(env={"INSTAR_STORE": str(tmp_path / "other")})
    assert "4 of 4 steps ran" in other.invoke(cli, ["--project", str(project), "run"]).output
    one_by_one = json.loads(other.invoke(cli, ["--project", str(project), "data", "ls", "--json"]).output)
    assert {one["table"]: one["content"] for one in one_by_one} == at_once
    assert "0 of 4 steps ran" in instar(project, "run", "-j", "3").output


def test_a_dry_run_says_what_would_run_and_does_nothing(project: Path) -> None:
    said = instar(project, "run", "--dry-run").output
    assert "visits would run:\n  it never ran to its end" in said
    assert "4 of 4 steps would run; nothing was done" in said
    assert json.loads(instar(project, "data", "ls", "--json").output) == []
    instar(project, "run")
    edit(project, "% 2 == 1", "% 2 != 0")
    said = instar(project, "run", "--dry-run").output
    assert "clean is current\nodd would run:\n  code pipeline.odd changed" in said
    assert "features may run:\n  its input odd will run first" in said
    assert "2 of 4 steps would run" in said
    found = json.loads(instar(project, "run", "--dry-run", "--json", "-S", "clean.least=2", "--until", "clean").output)
    assert [(one["step"], one["would"]) for one in found["steps"]] == [("visits", "is current"), ("clean", "would run")]
    assert "parameter least changed from 0 to 2" in [one["text"] for one in found["steps"][1]["reasons"]]
    assert "it was asked for by force" in instar(project, "run", "--dry-run", "--force", "clean").output
    assert "1 of 4 steps ran: odd" in instar(project, "run").output, "it came out equal, which spares the rest"


def test_parts_of_the_pipeline_are_chosen_by_name(project: Path) -> None:
    assert "2 of 2 steps ran: visits, clean" in instar(project, "run", "--until", "clean").output
    missing = instar(project, "run", "--from", "features")
    assert isinstance(missing.exception, NotFound)
    assert "instar run --target odd" in str(missing.exception)
    instar(project, "run")
    said = instar(project, "run", "--from", "clean", "-S", "clean.least=2").output
    assert "2 of 2 steps ran: clean, features" in said
    assert "1 of 4 steps ran: odd" in instar(project, "run", "--force", "odd", "-S", "clean.least=2").output
    assert isinstance(instar(project, "run", "--from", "cleen").exception, UnknownTable)
    assert isinstance(instar(project, "run", "--from", "features", "--until", "odd").exception, BadInput)


def test_options_that_contradict_each_other(project: Path) -> None:
    for words in (
        ["--watch", "--json"],
        ["--watch", "--dry-run"],
        ["--no-logs", "-v"],
        ["--no-logs", "-j", "2"],
        ["--no-logs", "--timeout", "5m"],
        ["-j", "0"],
    ):
        assert instar(project, "run", *words).exit_code == 2, words


def test_retries_and_timeouts_may_be_asked_for_one_run(project: Path) -> None:
    edit(project, '@silver(key="id")\ndef odd', '@silver(key="id", retries=5, retry_after="1h")\ndef odd')
    edit(project, '    return visits.select("id").filter(pl.col("id") % 2 == 1)', '    raise ValueError("no luck")')
    said = instar(project, "run", "--retries", "1", "--retry-after", "0").output
    assert said.count("odd retrying: attempt") == 1, "what is asked for comes before what is declared"
    assert "attempt 2 in 0.00 s" in said
    said = instar(project, "run", "--retries", "4", "--retries", "odd=2", "--retry-after", "odd=0.0").output
    assert said.count("odd retrying: attempt") == 2, "what is asked for one step comes before what is for all"
    edit(project, 'raise ValueError("no luck")', "import time; time.sleep(60)")
    late = instar(project, "run", "--timeout", "odd=0.2s", "--retries", "0")
    assert isinstance(late.exception, StepFailed)
    assert "it took longer than its timeout, and was ended; asked for at most 0.20 s" in str(late.exception)
    edit(project, "import time; time.sleep(60)", "return visits.select('id')")
    edit(project, 'retry_after="1h"', 'retry_after="1h", timeout="0.001s"')
    assert "steps ran: odd" in instar(project, "run", "--timeout", "none", "--until", "odd").output


@pytest.mark.parametrize("words", [
    ["--retries", "many"], ["--retries", "-1"], ["--retries", "101"], ["--retries", "odd="], ["--retry-after", "soon"],
    ["--timeout", "0"], ["--timeout", "odd=5x"], ["--timeout", "-5m"], ["--retry-after", "none"],
])  # fmt: skip
def test_terms_that_cannot_be_asked_for(project: Path, words: list[str]) -> None:
    for more in ([], ["--dry-run"]):
        refused = instar(project, "run", *words, *more).exception
        assert isinstance(refused, BadInput), words
        assert refused.subject == " ".join(words)


def test_terms_for_a_step_that_is_not_there(project: Path) -> None:
    for more in ([], ["--dry-run"]):
        refused = instar(project, "run", "--timeout", "clen=5m", *more).exception
        assert isinstance(refused, UnknownTable)
        assert "clean" in refused.next_step


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_output_is_kept_and_shown(project: Path, jobs: str) -> None:
    said = instar(project, "run", "-v", "-j", jobs).output
    assert "clean | rows: 3\nclean | INFO visits: least is 0\n" in said
    assert instar(project, "logs", "clean").output == "rows: 3\nINFO visits: least is 0\n"
    (found,) = json.loads(instar(project, "logs", "clean", "--json").output)
    assert (found["state"], found["attempt"], found["log"]) == ("done", 1, "rows: 3\nINFO visits: least is 0\n")
    assert instar(project, "logs", found["execution"], "--follow").output == found["log"]
    assert "odd, attempt 1, done" in instar(project, "logs", "odd").output
    assert isinstance(instar(project, "logs", "features2").exception, NotFound)


def test_all_attempts_and_partitions_of_the_last_walk_are_shown(project: Path) -> None:
    edit(project, '@silver(key="id")\ndef odd', '@silver(key="id", retries=1, retry_after="0s")\ndef odd')
    edit(
        project,
        '    return visits.select("id").filter(pl.col("id") % 2',
        "    print('trying')\n    1 / 0\n    return visits.filter(pl.col('id') % 2",
    )
    failed = instar(project, "run")
    assert isinstance(failed.exception, StepFailed)
    assert "[3/4] odd retrying: attempt 1 failed" in failed.output
    shown = instar(project, "logs", "odd").output
    assert shown.count("trying\nTraceback") == 2
    assert "--- odd, attempt 2, failed, exec_" in shown


def test_without_logs_the_output_stays_where_it_is(project: Path) -> None:
    assert "\nrows: 3\n" in instar(project, "run", "--no-logs").output
    assert "printed nothing" in instar(project, "logs", "clean").output


def test_a_log_is_followed_while_its_step_runs(project: Path) -> None:
    gate = project / "gate"
    edit(
        project,
        '    print("rows:", visits.height)',
        f"    import os, time\n    print('it has begun')\n    while not os.path.exists({str(gate)!r}):\n"
        "        time.sleep(0.02)\n    print('and it ends')",
    )
    run = subprocess.Popen([*COMMAND, str(project), "run", "-j", "2"], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    for line in run.stdout:
        if "clean runs" in line:
            break
    with subprocess.Popen([*COMMAND, str(project), "logs", "-f", "clean"], stdout=subprocess.PIPE, text=True) as follow:
        assert follow.stdout is not None
        assert follow.stdout.readline() == "it has begun\n"
        gate.touch()
        assert follow.stdout.read() == "and it ends\nINFO visits: least is 0\n"
    run.communicate(timeout=60)
    assert run.returncode == 0


COMMAND = [sys.executable, "-m", "instar.interfaces.cli.main", "--project"]


def test_a_project_that_is_watched_runs_what_changed_and_errors_end_nothing(project: Path) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    watch = subprocess.Popen(
        [*COMMAND, str(project), "run", "--watch"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment,
    )  # fmt: skip
    timer = threading.Timer(120, watch.kill)
    timer.start()
    try:
        assert watch.stdout is not None

        def until(words: str) -> str:
            assert watch.stdout is not None
            said = ""
            for line in watch.stdout:
                said += line
                if words in line:
                    return said
            raise AssertionError(said)

        assert "4 of 4 steps ran" in until("watching;")
        edit(project, "% 2 == 1", "% 2 != 0")
        said = until("watching;")
        assert "changed: pipeline.py" in said
        assert "1 of 4 steps ran: odd" in said
        edit(project, "% 2 != 0", "% ")
        assert "PipelineError" in until("watching;")
        edit(project, "% ", "% 2 != 0")
        assert "0 of 4 steps ran" in until("watching;")
        (project / "data/visits2.csv").write_text("id\n4\n5\n")
        assert "4 of 4 steps ran" in until("watching;"), "a declared file is watched, too"
        watch.send_signal(signal.SIGINT)
        watch.communicate(timeout=60)
        assert watch.returncode in (130, -signal.SIGINT)
    finally:
        timer.cancel()
        watch.kill()
        watch.communicate()


def test_a_schedule_sets_what_fits_and_says_so_before_it_is_due(project: Path) -> None:
    contract = (project / "instar.toml").read_text()
    for value, fits in (('"two"', False), ("true", False), ("2", True)):
        section = f'\n[schedule.nightly]\ncron = "0 3 * * *"\nparameters = {{ "clean.least" = {value} }}\n'
        (project / "instar.toml").write_text(contract + section)
        refused = instar(project, "schedule", "ls").exception
        assert (refused is None) == fits, value
        if not fits:
            assert isinstance(refused, BadInput)
            assert refused.subject == "parameter clean.least of section [schedule.nightly]"


def test_schedules_are_shown_and_run_by_hand(project: Path) -> None:
    assert "has no schedule" in instar(project, "schedule", "ls").output
    with (project / "instar.toml").open("a") as file:
        file.write(
            '\n[schedule.nightly]\ncron = "0 3 * * *"\ntargets = ["clean"]\n\n[schedule.fresh]\non = "new data"\n'
        )
    importing.forget()
    said = instar(project, "schedule", "ls").output.splitlines()
    assert said[0].split()[:3] == ["fresh", "new", "data"]
    assert "0 3 * * *" in said[1]
    assert said[1].endswith("never looked at; instar up does")
    ran = instar(project, "schedule", "run", "nightly")
    assert "[1/2] visits runs" in ran.output
    assert "done: 2 steps ran" in ran.output
    (nightly,) = [
        one for one in json.loads(instar(project, "schedule", "ls", "--json").output) if one["schedule"] == "nightly"
    ]
    assert (nightly["last"]["state"], nightly["last"]["result"]["ran"]) == ("done", ["visits", "clean"])
    unknown = instar(project, "schedule", "run", "weekly")
    assert isinstance(unknown.exception, NotFound)
    edit(project, "return visits.select(", "return visits.selekt(")
    failed = instar(project, "schedule", "run", "nightly", "--json")
    assert failed.exit_code == 1
    assert "AttributeError" in json.loads(failed.output)["result"]["error"]
