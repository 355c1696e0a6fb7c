"""The runner: runs exactly what changed, survives its own death, and takes turns."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from instar.core import journal, lineage
from instar.core.errors import BadInput, CheckFailed, Conflict, NotFound, PipelineError, StepFailed, UnknownTable
from instar.core.store import Store
from instar.plan import executions, leases
from instar.plan.runner import Event, Walk, execute, status, why
from instar.testing import memory_store
from tests.plan.small_kinds import FileKind, RecallingKind, kinds

STEPS = """
from instar import check, gold, model, silver, source
from helpers import double

raw = source("raw")
listed = source("listed", path="data/*.txt")

@silver(files=["words.txt"], variables=["SMALL_SCALE"])
def clean(raw, least: int = 2):
    return [x for x in raw if x >= least]

@silver()
def doubled(raw):
    return [double(x) for x in raw]

@gold(key="x")
def features(clean, doubled):
    return clean + doubled

@model("back")
def best(features, rate: float = 0.5):
    return {"best": max(features) * rate}

@silver()
def joined(listed):
    return "".join(listed)

@check("doubled")
def few():
    return {}
"""
HELPERS = "def double(x):\n    return 2 * x\n"


class World:
    """A project, a store and the kinds, which a test walks."""

    def __init__(self, folder, store: Store, kind: FileKind) -> None:
        self.folder, self.store, self.kind = folder, store, kind
        folder.write({"pipeline.py": STEPS, "helpers.py": HELPERS, "words.txt": "a", "data/one.txt": "1"})
        kind.put("raw", [1, 2, 3])

    def walk(self, **options) -> Walk:
        return execute(self.store, self.folder.project(), self.folder.pipeline(), kinds(self.kind), **options)

    def why(self, step: str) -> list[str]:
        found = why(self.store, self.folder.project(), self.folder.pipeline(), kinds(self.kind), step)
        return [reason.text for reason in found.reasons]

    def states(self) -> dict[str, str]:
        found = status(self.store, self.folder.project(), self.folder.pipeline(), kinds(self.kind))
        return {one.step: one.state for one in found}

    def last(self, step: str) -> executions.Execution:
        with self.store.database.read() as tx:
            found = executions.last(tx, "small", step)
        assert found is not None
        return found


@pytest.fixture
def world(folder, store: Store) -> World:
    return World(folder, store, FileKind(store))


def test_runs_all_once_then_nothing(world: World) -> None:
    first = world.walk()
    assert first.ran() == ["listed", "clean", "doubled", "features", "best", "joined"]
    assert first.step("raw").state == "landed"
    assert world.kind.load(world.folder.project(), world.folder.pipeline().steps["best"].inputs[0], None) == [
        2,
        3,
        2,
        4,
        6,
    ]
    world.kind.calls.clear()
    second = world.walk()
    assert (second.ran(), world.kind.calls) == ([], [])
    assert {one.state for one in second.steps} == {"cached", "landed"}
    assert second.step("best").execution == first.step("best").execution


@pytest.mark.parametrize(
    ("file", "old", "new", "ran", "reason"),
    [
        ("helpers.py", "2 * x", "3 * x", ["doubled", "features", "best"], "code helpers.double changed"),
        ("pipeline.py", "x >= least", "x > least", ["clean", "features", "best"], "code pipeline.clean changed"),
        ("pipeline.py", "rate: float = 0.5", "rate: float = 0.4", ["best"], "parameter rate changed from 0.5 to 0.4"),
        ("words.txt", "a", "b", ["clean"], "file words.txt changed"),
        ("data/one.txt", "1", "7", ["listed", "joined"], "file data/one.txt changed"),
        ("pipeline.py", "return {}", "return {'none': None}", ["doubled"], "check few changed"),
        (
            "pipeline.py",
            'key="x"',
            'key="y"',
            ["features"],
            "option key changed from tuple [str 'x'] to tuple [str 'y']",
        ),
        ("instar.toml", "false_negative = 2.0", "false_negative = 3.0", ["best"], "option contract cost changed"),
        ("helpers.py", "return 2 * x", "# twice\n    return (2 * x)", [], ""),
        ("instar.toml", 'judge = "7d" }', 'judge = "7d" }\ngates = { improvement = 0.5 }', [], ""),
    ],
)
def test_an_edit_runs_exactly_what_depends_on_it_and_why_names_it(
    world: World, file: str, old: str, new: str, ran: list[str], reason: str
) -> None:
    world.walk()
    world.folder.edit(file, old, new)
    stale = [step for step, state in world.states().items() if state == "stale"]
    before = world.why(ran[0]) if ran else []
    assert world.walk().ran() == ran
    assert set(ran) <= set(stale)
    if ran:
        assert stale[0] == ran[0]
        assert reason in before
        assert reason in [f"{one.text}" for one in _reasons(world, ran[0])]
        assert world.why(ran[0]) == before, "after the run, why says why it ran"


def _reasons(world: World, step: str):
    from instar.plan.why import reasons_of

    return reasons_of(world.last(step))


def test_new_rows_run_what_reads_them_and_an_equal_output_stops_the_wave(world: World) -> None:
    world.walk()
    world.kind.put("raw", [1, 1, 2, 3])
    assert world.why("features") == ["its input clean will run first", "its input doubled will run first"]
    assert world.walk().ran() == ["clean", "doubled", "features", "best"]
    world.folder.edit("pipeline.py", "x >= least", "least <= x")
    assert world.walk().ran() == ["clean"], "its output is equal, so nothing after it runs"


def test_a_declared_variable_counts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.walk()
    monkeypatch.setenv("SMALL_SCALE", "secret")
    assert world.walk().ran() == ["clean"]
    assert "secret" not in str(world.last("clean"))


def test_targets_take_only_what_they_need(world: World) -> None:
    assert world.walk(targets=["doubled"]).ran() == ["doubled"]
    assert world.states()["clean"] == "never"
    with pytest.raises(UnknownTable, match="doubled"):
        world.walk(targets=["doubeld"])


def test_parameters_may_be_set_for_one_walk(world: World) -> None:
    world.walk()
    assert world.walk(parameters={"clean.least": "3", "best.rate": 1}).ran() == ["clean", "features", "best"]
    assert world.last("best").parameters == {"rate": 1.0}
    with pytest.raises(BadInput, match=r"Did you mean 'clean\.least'"):
        world.walk(parameters={"clean.lest": "3"})
    with pytest.raises(BadInput, match="does not fit"):
        world.walk(parameters={"clean.least": "three"})


def test_going_back_runs_again_or_is_recalled(folder, store: Store) -> None:
    for kind, expected in [(FileKind(store), ["doubled", "features", "best"]), (RecallingKind(store), [])]:
        world = World(folder, store, kind)
        world.walk()
        first = {step: kind.digest(folder.project(), step) for step in world.states()}
        folder.edit("helpers.py", "2 * x", "3 * x")
        world.walk()
        folder.edit("helpers.py", "3 * x", "2 * x")
        assert world.walk().ran() == expected
        assert {step: kind.digest(folder.project(), step) for step in world.states()} == first


def test_a_lost_output_is_made_again(world: World) -> None:
    world.walk()
    (world.kind.place / "doubled.json").unlink()
    assert world.why("doubled") == ["its output is gone, or another one is current"]
    assert world.walk().ran() == ["doubled"]


def test_by_force_a_known_result_is_made_again(world: World) -> None:
    world.walk()
    assert world.walk(force=["doubled"]).ran() == ["doubled"]
    assert world.why("doubled") == ["it was asked for by force"]


def test_a_failed_step_leaves_nothing_and_says_where(world: World) -> None:
    world.folder.edit("helpers.py", "return 2 * x", "return 2 / (x - 3)")
    events: list[Event] = []
    with pytest.raises(StepFailed, match=r"step doubled at helpers\.py:2: its function raised ZeroDivisionError"):
        world.walk(on_event=events.append)
    assert (events[-1].state, events[-1].step) == ("failed", "doubled")
    assert world.kind.digest(world.folder.project(), "doubled") is None
    assert (world.last("doubled").state, world.last("doubled").ref) == ("failed", None)
    assert "ZeroDivisionError" in str(world.last("doubled").error)
    assert world.last("clean").state == "done"
    assert world.states()["doubled"] == "failed"
    world.folder.edit("helpers.py", "return 2 / (x - 3)", "return 2 * x")
    assert world.walk().ran() == ["doubled", "features", "best", "joined"]


def test_what_a_stage_refuses_keeps_its_own_error(world: World) -> None:
    world.folder.edit("pipeline.py", "return [double(x) for x in raw]", 'return "refused"')
    with pytest.raises(CheckFailed):
        world.walk()
    assert world.last("doubled").state == "failed"
    assert world.kind.digest(world.folder.project(), "doubled") is None


def test_an_interrupted_step_leaves_nothing(world: World) -> None:
    world.folder.edit("pipeline.py", "return clean + doubled", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        world.walk()
    assert world.last("features").state == "failed"
    world.folder.edit("pipeline.py", "raise KeyboardInterrupt", "return clean + doubled")
    assert world.walk().ran() == ["features", "best", "joined"]


def test_a_source_without_rows_says_how_to_land_some(world: World) -> None:
    (world.kind.place / "raw.json").unlink()
    with pytest.raises(NotFound, match="instar ingest raw FILE"):
        world.walk()
    assert world.states()["raw"] == "empty"


def test_a_declared_file_that_is_missing_is_named(world: World) -> None:
    (world.folder.root / "words.txt").unlink()
    with pytest.raises(PipelineError, match=r"words\.txt"):
        world.walk()


def test_an_input_that_changes_under_our_hands_is_read_again(world: World) -> None:
    load, raced = world.kind.load, []

    def racing(project, input, consumer):
        if consumer.name == "doubled" and not raced:
            raced.append(1)
            world.kind.put("raw", [5])
        return load(project, input, consumer)

    world.kind.load = racing  # type: ignore[method-assign]
    world.walk(targets=["doubled"])
    assert world.kind.calls == ["doubled"]
    assert world.last("doubled").inputs == {"raw": world.kind.digest(world.folder.project(), "raw")}


def test_records_lineage_contract_and_journal(world: World) -> None:
    walk = world.walk(cause="actn_1")
    world.walk()
    made = world.last("doubled")
    with world.store.database.read() as tx:
        kept = executions.pipeline_runs(tx, "small")
        entries = journal.entries(tx, "small", kind="pipeline run")
        assert [edge.source for edge in lineage.up(tx, str(made.ref))] == [made.id]
        assert journal.verify(tx, "small").consistent
    assert (made.cause, made.actor, made.pipe) == ("actn_1", "ada", walk.id)
    assert made.ended is not None
    assert [run.state for run in kept] == ["done", "done"]
    assert kept[1].contract == world.folder.project().revision == walk.contract
    assert [entry.subject for entry in entries] == [walk.id], "a walk that changed nothing is not journalled"
    assert entries[0].body["ran"] == walk.ran()


def test_nothing_is_recorded_when_the_lease_was_lost(world: World) -> None:
    run = world.kind.run

    def stolen(project, execution, step, inputs, parameters):
        take = leases.lease.update().values(fence=leases.lease.c.fence + 1, holder="hold_other")
        world.store.database.write(lambda tx: tx.execute(take))
        return run(project, execution, step, inputs, parameters)

    world.kind.run = stolen  # type: ignore[method-assign]
    with pytest.raises(Conflict, match="another process took the lease"):
        world.walk(targets=["doubled"])
    assert world.kind.digest(world.folder.project(), "doubled") is None
    assert world.last("doubled").state == "running", "who has the lease now will mark it"


# Processes.

# Waits for a file where a test wants a process to be in the middle of a step.
GATED = """
import os, time
def double(x):
    while os.environ.get("GATE") and not os.path.exists(os.environ["GATE"]):
        time.sleep(0.01)
    return 2 * x
"""


@pytest.fixture
def start():
    """Starts walks in processes of their own, and leaves none behind."""
    with contextlib.ExitStack() as stack:

        def begin(world: World, gate: Path | None = None) -> subprocess.Popen[str]:
            command = [sys.executable, str(Path(__file__).with_name("small_kinds.py")), str(world.folder.root)]
            command.append(str(world.store.folder.parent))
            environment = {**os.environ, "GATE": str(gate or "")}
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
            stack.callback(process.kill)
            return process

        yield begin


def until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return
    raise AssertionError(f"it ended before {word}")


def contents(world: World) -> dict[str, str | None]:
    return {step: world.kind.digest(world.folder.project(), step) for step in world.folder.pipeline().steps}


def test_a_walk_killed_in_a_step_is_repaired_by_the_next(world: World, start, tmp_path: Path) -> None:
    world.folder.write({"helpers.py": GATED})
    process = start(world, gate=tmp_path / "never")
    until(process, "started doubled")
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = world.last("doubled")
    assert killed.state == "running"
    walk = world.walk()
    assert walk.ran() == ["doubled", "features", "best", "joined"]
    with world.store.database.read() as tx:
        assert executions.get(tx, killed.id).state == "abandoned"
        assert [run.state for run in executions.pipeline_runs(tx, "small")] == ["done", "abandoned"]
        assert journal.verify(tx, "small").consistent


def test_a_walk_killed_at_any_moment_ends_in_the_same_contents(folder, tmp_path: Path, store: Store, start) -> None:
    expected_world = World(folder, store, FileKind(store))
    folder.write({"helpers.py": GATED})
    expected_world.walk()
    expected = contents(expected_world)
    chance = random.Random(7)
    other = memory_store(tmp_path / "other")
    world = World(folder, other, FileKind(other))
    folder.write({"helpers.py": GATED})
    for _ in range(3):
        process = start(world)
        assert process.stdout is not None
        for _ in range(chance.randint(1, 7)):  # so many lines into the walk, and a moment more
            process.stdout.readline()
        time.sleep(chance.random() / 50)
        process.send_signal(signal.SIGKILL)
        process.wait()
    world.walk()
    assert contents(world) == expected
    assert world.walk().ran() == []
    other.database.close()


def test_two_processes_take_turns_and_the_second_finds_the_work_done(world: World, start, tmp_path: Path) -> None:
    world.folder.write({"helpers.py": GATED})
    gate = tmp_path / "gate"
    first = start(world, gate)
    until(first, "started doubled")
    second = start(world)
    until(second, "waiting")
    gate.touch()
    output, _ = second.communicate(timeout=60)
    rest, _ = first.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0)
    lines = output.splitlines()
    assert lines[-1] == "ended"
    assert not [line for line in lines if line.startswith("started")], "the second finds all of it done"
    first_end = max(float(line.split()[2]) for line in rest.splitlines() if len(line.split()) == 3)
    second_begin = min(float(line.split()[2]) for line in lines if len(line.split()) == 3)
    assert first_end <= second_begin
