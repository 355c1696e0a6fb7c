"""Steps in processes of their own: at once, ended in time, tried again, and never half kept."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from instar.core import journal
from instar.core.errors import BadInput, CheckFailed, PipelineError, StepFailed
from instar.core.store import Store
from instar.plan import executions, runner
from instar.testing import memory_store
from tests.plan.small_kinds import kinds
from tests.plan.worlds import World, edit


@pytest.fixture
def world(folder, store: Store) -> World:
    return World(folder, store)


def test_independent_steps_run_at_once_and_come_to_what_one_after_the_other_does(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meeting").mkdir()
    monkeypatch.setenv("MEETING", str(tmp_path / "meeting"))
    walk = world.walk(2)
    monkeypatch.delenv("MEETING")
    assert sorted(walk.ran()) == ["apart", "best", "joined", "left", "right"]
    steps = ("left", "right", "apart", "joined", "best")
    at_once = {step: world.digest(step) for step in steps}
    again = World(world.folder, memory_store(tmp_path / "other"))
    assert again.walk(1).ran() == list(steps)
    assert {step: again.digest(step) for step in steps} == at_once
    assert world.walk(4).ran() == []
    again.store.database.close()


def test_started_anew_instead_of_forked_it_comes_to_the_same(world: World) -> None:
    assert sorted(world.walk(2, cold=True, targets=["left", "apart"]).ran()) == ["apart", "left"]
    assert world.last("left").digest == world.digest("left")


def test_a_timeout_ends_the_step_and_all_that_it_started(world: World, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    edit(
        world,
        "@silver()\ndef apart(raw):\n    return len(raw)",
        f"""@silver(timeout="0.5s")
def apart(raw):
    import subprocess
    child = subprocess.Popen(["sleep", "600"])
    open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
    time.sleep(600)""",
    )
    with pytest.raises(StepFailed, match=r"it took longer than its timeout.*at most 0\.50 s"):
        world.walk(1, targets=["apart"])
    assert "longer than its timeout" in str(world.last("apart").error)
    assert world.digest("apart") is None
    for pid in pids.read_text().split():
        assert not alive(int(pid))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def test_a_timeout_needs_a_place(world: World) -> None:
    edit(world, "@silver()\ndef apart", '@silver(timeout="5m")\ndef apart')
    with pytest.raises(PipelineError, match="a process of its own"):
        world.walk(1, own_place=False, targets=["apart"])
    assert world.all("apart") == []


def test_a_step_whose_process_dies_fails_with_the_signal(world: World) -> None:
    edit(world, "    return len(raw)", "    os.kill(os.getpid(), 9)")
    with pytest.raises(StepFailed, match=r"its process ended before the function returned; found signal 9"):
        world.walk(2, targets=["apart"])
    assert world.last("apart").state == "failed"


def test_the_death_of_a_process_shows_although_its_children_live(world: World) -> None:
    edit(
        world,
        "    return len(raw)",
        "    if os.fork() == 0:\n        time.sleep(600)\n    os.kill(os.getpid(), 9)",
    )
    with pytest.raises(StepFailed, match="found signal 9"):
        world.walk(2, targets=["apart"])


FLAKY = """
    from pathlib import Path
    times = Path("{count}")
    times.write_text((times.read_text() if times.exists() else "") + "x")
    if len(times.read_text()) < {good}:
        raise OSError("the line is down")
    return len(raw)"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_retries_are_executions_of_their_own(world: World, tmp_path: Path, jobs: int) -> None:
    edit(world, "\n    return len(raw)", FLAKY.format(count=tmp_path / "count", good=3))
    edit(world, "@silver()\ndef apart", '@silver(retries=2, retry_after="0s")\ndef apart')
    assert world.walk(jobs, targets=["apart"]).ran() == ["apart"]
    assert [(one.attempt, one.state) for one in world.all("apart")] == [(1, "failed"), (2, "failed"), (3, "done")]
    assert len({one.key for one in world.all("apart")}) == 1
    assert world.told("retrying") == ["apart", "apart"]
    assert "attempt 1 failed: step apart" in next(e.detail for e in world.events if e.state == "retrying")


def test_retries_end(world: World, tmp_path: Path) -> None:
    edit(world, "\n    return len(raw)", FLAKY.format(count=tmp_path / "count", good=9))
    edit(world, "@silver()\ndef apart", '@silver(retries=1, retry_after="0s")\ndef apart')
    with pytest.raises(StepFailed, match="the line is down"):
        world.walk(1, targets=["apart"])
    assert [one.attempt for one in world.all("apart")] == [1, 2]


def test_what_is_wrong_with_the_output_is_not_tried_again(world: World) -> None:
    edit(
        world,
        "@silver()\ndef apart(raw):\n    return len(raw)",
        '@silver(retries=5)\ndef apart(raw):\n    return "refused"',
    )
    with pytest.raises(CheckFailed):
        world.walk(1, targets=["apart"])
    assert len(world.all("apart")) == 1


def test_terms_are_no_part_of_the_key_and_the_contract_has_the_last_word(world: World) -> None:
    world.walk(1)
    edit(world, "@silver()\ndef apart", '@silver(retries=3, retry_after="1m", timeout="5m")\ndef apart')
    assert world.walk(1).ran() == []
    with (world.folder.root / "instar.toml").open("a") as file:
        file.write('\n[step.apart]\nretries = 1\ntimeout = "2h"\n')
    terms = world.folder.pipeline().steps["apart"].terms
    assert (terms.retries, terms.retry_after.total_seconds(), terms.timeout.total_seconds()) == (1, 60, 7200)
    assert world.walk(1).ran() == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("retries=-1", "retries cannot be that"),
        ("retries=True", "retries cannot be that"),
        ('timeout="soon"', "timeout cannot be read"),
        ('timeout="0s"', "leaves it no time"),
        ("retry_after=10", "retry_after cannot be read"),
    ],
)
def test_terms_that_cannot_be(world: World, given: str, says: str) -> None:
    edit(world, "@silver()\ndef apart", f"@silver({given})\ndef apart")
    with pytest.raises(PipelineError, match=says):
        world.folder.pipeline()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failure_ends_what_depends_on_it_and_keeps_what_runs(world: World, jobs: int) -> None:
    edit(world, "    return [double(x) for x in raw]", "    raise OSError('down')")
    with pytest.raises(StepFailed, match="step left"):
        world.walk(jobs)
    assert world.all("joined") == []
    with world.store.database.read() as tx:
        kept = executions.pipeline_runs(tx, "small")[0]
    states = {one["step"]: one["state"] for one in kept.steps}
    assert (states["left"], states["joined"], states["best"]) == ("failed", "skipped", "skipped")
    if jobs == 2:
        assert states["right"] == "done", "it ran already, and came to its end"


@pytest.mark.parametrize("jobs", [1, 3])
def test_keep_going_does_all_that_does_not_depend_on_the_failure(world: World, jobs: int) -> None:
    edit(world, "    return [double(x) for x in raw]", "    raise OSError('down')")
    with pytest.raises(StepFailed, match="step left"):
        world.walk(jobs, keep_going=True)
    assert {step: world.last(step).state for step in ("right", "apart")} == {"right": "done", "apart": "done"}
    assert world.told("skipped") == ["joined", "best"]
    assert world.told("failed") == ["left"]


def test_the_next_walk_says_what_it_goes_on_from(world: World) -> None:
    edit(world, "    return left + right", "    return left + rihgt")
    with pytest.raises(StepFailed):
        world.walk(2)
    with pytest.raises(StepFailed):
        world.walk(1, targets=["joined"])
    (told,) = [event.detail for event in world.events if event.state == "resuming"]
    assert told.startswith("resuming pipe_")
    assert "2 steps current, joined failed with: step joined at pipeline.py" in told
    assert "NameError: name 'rihgt' is not defined; nothing of it changed since" in told
    edit(world, "left + rihgt", "left + right")
    walk = world.walk(1)
    (told,) = [event.detail for event in world.events if event.state == "resuming"]
    assert told.endswith("since then code pipeline.joined changed")
    assert "joined" in walk.ran()
    with world.store.database.read() as tx:
        runs = executions.pipeline_runs(tx, "small")
    assert [one.resumes for one in runs] == [runs[1].id, runs[2].id, None]
    world.walk(1)
    assert world.told("resuming") == []


def test_time_left_is_told_once_it_is_known(world: World) -> None:
    world.walk(1)
    assert all(event.left is None for event in world.events)
    world.kind.put("raw", [4, 5])
    world.walk(1)
    assert all(event.left is not None for event in world.events if event.state == "started")


def test_an_option_that_cannot_go_to_another_process_is_named(world: World) -> None:
    edit(world, "rate: float = 0.5", "rate=lambda: 1")
    with pytest.raises(PipelineError, match=r"step best: a value cannot be handed to a process of its own"):
        world.walk(2)
    assert world.last("best").state == "failed"


def test_numbers_drawn_in_two_steps_differ(world: World) -> None:
    edit(world, "    return len(raw)", "    import random\n    return random.random()")
    edit(world, "    return [x + 1 for x in raw]", "    import random\n    return [random.random()]")
    world.walk(2, targets=["apart", "right"])
    drawn = [(world.kind.place / f"{step}.json").read_text().strip("[]") for step in ("apart", "right")]
    assert drawn[0] != drawn[1]


def test_a_step_runs_as_it_was_when_its_key_was_taken(world: World) -> None:
    # `left` changes the file that `joined`'s process will import after it.
    changed = str(world.folder.root / "pipeline.py")
    edit(
        world,
        '    gate("left")',
        f"    text = open({changed!r}).read()\n    open({changed!r}, 'w').write(text.replace('left + right', '[]'))",
    )
    world.walk(2, targets=["joined"])
    assert (world.kind.place / "joined.json").read_text() != "[]"


# From other processes.

SLOW = """
import os, time
def double(x):
    time.sleep(float(os.environ.get("PAUSE", "0")))
    return 2 * x
gate = double
"""


def started(world: World, jobs: int = 4, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.plan.small_kinds", str(world.folder.root)]
    command += [str(world.store.folder.parent), str(jobs)]
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), *sys.path])
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root,
        env={**os.environ, **environment, "PYTHONPATH": path},
    )  # fmt: skip


def children_of(pid: int) -> set[int]:
    import psutil

    return {one.pid for one in psutil.Process(pid).children(recursive=True)}


def until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return
    raise AssertionError(f"it ended before {word}")


def wait_until_gone(pids: set[int]) -> None:
    for _ in range(600):
        if not any(alive(pid) for pid in pids):
            return
        time.sleep(0.02)
    raise AssertionError("processes are left")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_when_the_walk_ends_so_do_all_its_processes(world: World, number: signal.Signals) -> None:
    world.folder.write({"helpers.py": SLOW.replace("gate = double", "gate = lambda name: None")})
    process = started(world, PAUSE="600")
    until(process, "started left")
    until(process, "done apart")
    left = children_of(process.pid)
    assert len(left) >= 2
    process.send_signal(number)
    process.communicate(timeout=60)
    wait_until_gone(left)
    states = {step: world.last(step).state for step in ("left", "right", "apart")}
    assert states["apart"] == "done"
    assert states["left"] == ("failed" if number == signal.SIGINT else "running")
    if number == signal.SIGINT:
        assert world.last("left").error == "interrupted"
    assert "left" in world.walk(2).ran()
    with world.store.database.read() as tx:
        assert [one.state for one in executions.of_walk(tx, executions.pipeline_runs(tx, "small")[1].id)].count(
            "running"
        ) == 0
        assert journal.verify(tx, "small").consistent


def test_a_parallel_walk_killed_at_any_moment_ends_in_the_same_contents(folder, tmp_path: Path, store: Store) -> None:
    expected = World(folder, store)
    folder.write({"helpers.py": SLOW.replace("gate = double", "gate = lambda name: None")})
    expected.walk(1)
    world = World(folder, memory_store(tmp_path / "other"))
    folder.write({"helpers.py": SLOW.replace("gate = double", "gate = lambda name: None")})
    chance = random.Random(11)
    for _ in range(3):
        process = started(world, PAUSE="0.01")
        assert process.stdout is not None
        for _ in range(chance.randint(1, 8)):
            process.stdout.readline()
        time.sleep(chance.random() / 10)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    world.walk(4)
    steps = ("left", "right", "apart", "joined", "best")
    assert {step: world.digest(step) for step in steps} == {step: expected.digest(step) for step in steps}
    assert world.walk(4).ran() == []
    with world.store.database.read() as tx:
        assert journal.verify(tx, "small").consistent
        assert {one.state for one in executions.listed(tx, "small")} <= {"done", "abandoned"}
    world.store.database.close()


def test_jobs_and_selection_refuse_what_cannot_be(world: World) -> None:
    execute = runner.execute
    project, pipeline = world.folder.project(), world.folder.pipeline()
    with pytest.raises(BadInput, match="no step lies between them"):
        execute(world.store, project, pipeline, kinds(world.kind), start=["best"], until=["left"])
    with pytest.raises(BadInput, match="run by force"):
        execute(world.store, project, pipeline, kinds(world.kind), ["left"], force=["right"])


def test_from_and_until_walk_what_lies_between(world: World) -> None:
    def walk(**selection) -> list[str]:
        return runner.execute(
            world.store, world.folder.project(), world.folder.pipeline(), kinds(world.kind), **selection
        ).ran()

    assert walk(until=["left"]) == ["left"]
    assert walk(until=["joined"]) == ["right", "joined"]
    assert walk(start=["joined"]) == ["best"]
    edit(world, "double(x) for", "double(x) + 1 for")
    assert walk(start=["joined"]) == [], "what is left out stays as it is"
    assert walk(start=["left"], until=["joined"]) == ["left", "joined"]
    world.kind.place.joinpath("right.json").unlink()
    edit(world, "left + right", "left + right + []")
    from instar.core.errors import NotFound

    with pytest.raises(NotFound, match=r"step right: it has no output(.|\n)*instar run --target right"):
        walk(start=["joined"])
