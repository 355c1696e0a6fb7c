"""What steps print and log is kept with their executions, in whichever process they run."""

from __future__ import annotations

import pytest

from instar.core.errors import StepFailed
from instar.core.store import Store
from instar.plan import output
from tests.plan.worlds import World, edit


@pytest.fixture
def world(folder, store: Store) -> World:
    return World(folder, store)


def test_what_a_step_prints_is_kept_with_its_execution_in_every_process(world: World) -> None:
    noisy = (
        "import logging, subprocess, sys\n    print('to the user')\n    logging.getLogger('work').info('a note')\n"
        "    sys.stderr.write('to stderr\\n')\n"
    )
    edit(world, "    return len(raw)", f"    {noisy}    return len(raw)")
    for jobs in (1, 2):
        world.walk(jobs, targets=["apart"], follow=True)
        assert world.log("apart").splitlines() == ["to the user", "INFO work: a note", "to stderr"], jobs
        lines = [event.detail for event in world.events if event.state == "output"]
        assert lines == ["to the user", "INFO work: a note", "to stderr"]
        assert not list((world.store.folder / "logs").iterdir())
        world.kind.put("raw", [7])


def test_a_step_that_prints_after_silent_ones_keeps_its_own_and_they_leave_no_file(world: World) -> None:
    edit(world, "    return left + right", "    print('joining')\n    return left + right")
    world.walk(1)
    assert [step for step in ("left", "right", "apart", "joined", "best") if world.last(step).log] == ["joined"]
    assert world.log("joined") == "joining\n"
    assert not list((world.store.folder / "logs").iterdir())


def test_what_a_child_of_the_step_prints_is_kept_too(world: World) -> None:
    edit(world, "    return len(raw)", "    os.system('echo from a program')\n    return len(raw)")
    world.walk(2, targets=["apart"])
    assert world.log("apart") == "from a program\n"


def test_a_long_log_keeps_its_beginning_and_its_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "KEPT_HEAD", 100)
    monkeypatch.setattr(output, "KEPT_TAIL", 100)
    edit(world, "    return len(raw)", "    for n in range(1000): print('line', n)\n    return len(raw)")
    world.walk(1, targets=["apart"])
    log = world.log("apart")
    assert log.startswith("line 0\n")
    assert log.endswith("line 999\n")
    assert "bytes are left out here" in log
    assert len(log) < 300


def test_a_progress_bar_is_kept_as_it_was_seen_last(world: World) -> None:
    edit(world, "    return len(raw)", "    print('1 %\\r50 %\\r100 %')\n    return len(raw)")
    world.walk(1, targets=["apart"])
    assert world.log("apart") == "100 %\n"


def test_a_failed_step_leaves_its_traceback_and_nothing_else(world: World) -> None:
    edit(world, "    return len(raw)", "    print('so far')\n    return 1 / 0")
    for jobs in (1, 2):
        with pytest.raises(StepFailed, match=r"step apart at pipeline\.py:\d+: its function raised ZeroDivisionError"):
            world.walk(jobs, targets=["apart"])
        failed = world.last("apart")
        assert (failed.state, failed.ref, world.digest("apart")) == ("failed", None, None)
        assert world.log("apart").startswith("so far\nTraceback")
        assert "ZeroDivisionError" in world.log("apart")
