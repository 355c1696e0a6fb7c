"""Runs made again in an environment of their own, from a clean clone, from the command line, and of scripts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from instar.app import open_app
from instar.core.store import Store
from instar.operate.reproduce import reproduce
from instar.train import environment, environments, runs
from tests.operate import again
from tests.operate.test_reproduce import distribution
from tests.train import wheels


def instar(folder: Path, *arguments: str, store: Path | None = None, status: int = 0) -> str:
    command = [sys.executable, "-m", "instar.interfaces.cli.main", "--project", str(folder), *arguments]
    variables = {**os.environ, **({"INSTAR_STORE": str(store)} if store else {})}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr if status > 1 else done.stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Store]]:
    """A project with a store of its own on disk."""
    for name in ("INSTAR_STORE", "INSTAR_DATABASE", "INSTAR_URL"):
        monkeypatch.delenv(name, raising=False)
    root = again.write(tmp_path / "lamps")
    with open_app(root) as app:
        again.land(app.store, again.seen())
        yield root, app.store


def test_a_run_whose_environment_is_not_the_running_one_gets_its_own(
    project: tuple[Path, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, store = project
    links = tmp_path / "wheels"
    lock = wheels.make(links, "noisy", "1.0", {"noisy.py": "MORE = 0.25\n"})
    # The libraries of this test run come in as one distribution: no machine needs their wheels for this test.
    here = sysconfig.get_path("purelib")
    lock += wheels.make(links, "around", "1.0", {"around.pth": f"{here}\n"})
    (root / "requirements.txt").write_text(lock)
    for name, value in {"UV_OFFLINE": "1", "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(links)}.items():
        monkeypatch.setenv(name, value)
    sys.modules.pop("noisy", None)  # another test's version of it
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(distribution(tmp_path / "then", "1.0", 0.25)))
        found = (("around", "1.0", ""), ("instar", "0.1.0", "folder"), ("noisy", "1.0", ""))
        patch.setattr(environment, "_distributions", lambda: found)
        run = again.fit(store, root, "library")
    sys.modules.pop("noisy", None)
    made = reproduce(store, None, run)
    assert made.verdict == "identical"
    (built,) = environments.listing(store)
    assert built.digest == made.environment
    assert made.notes == ()
    # Here, where it is not installed, the same run fails.
    assert reproduce(store, None, run, here=True).verdict == "different"
    text = instar(root, "env", "ls")
    assert built.digest[:15] in text
    assert instar(root, "env", "show", run).splitlines()[1:] == sorted(lock.splitlines())
    assert Path(instar(root, "env", "build", run).strip()).is_relative_to(store.folder)
    old = (datetime.now(UTC) - timedelta(days=30)).timestamp()
    os.utime(environments.folder(store, built.digest) / environments.STAMP, (old, old))
    assert json.loads(instar(root, "gc", "--json"))["gone"][0]["kind"] == "environment"
    assert environments.listing(store) == []


def test_a_clean_clone_with_the_store_is_enough(project: tuple[Path, Store], tmp_path: Path) -> None:
    root, store = project
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    (root / ".gitignore").write_text(".instar\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    (root / "pipeline.py").write_text(again.PIPELINE.replace("STRENGTH = 1.0", "STRENGTH = 0.8"))
    run = again.fit(store, root, "declared")
    (root / "pipeline.py").write_text("broken since\n")
    subprocess.run([*git, "commit", "-qam", "two"], check=True, capture_output=True)
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(root), str(clone)], check=True, capture_output=True)
    kept = store.folder.rename(tmp_path / "store")
    shutil.rmtree(root)
    assert instar(clone, "reproduce", run, "--in-ci", store=kept).startswith("identical")
    shown = instar(clone, "runs", "show", run, store=kept)
    assert re.search(r"reproduced +identical \(as it was\) as run_", shown)


def test_the_command_line_says_the_verdict_and_ends_by_it(project: tuple[Path, Store]) -> None:
    root, store = project
    steady, chancy = again.fit(store, root, "steady"), again.fit(store, root, "chancy")
    document = json.loads(instar(root, "reproduce", steady[:-2], "--json", "--in-ci"))
    assert (document["verdict"], document["predictions_differ_by"], document["causes"]) == ("identical", 0.0, [])
    text = instar(root, "reproduce", chancy, "--in-ci", status=1)
    assert text.startswith("different: ")
    assert "first cause: two repetitions differ from each other" in text
    assert instar(root, "reproduce", chancy).startswith("different")
    assert "there is no such run" in instar(root, "reproduce", "run_none", "--in-ci", status=2)
    alone = runs.start(store, "lamps", experiment="notes")
    assert "ended well" in instar(root, "reproduce", alone.id, "--in-ci", status=3)
    assert "is not in the range" in instar(root, "reproduce", steady, "--tolerance", "-1", status=2)


def test_garbage_is_listed_before_it_is_removed(project: tuple[Path, Store]) -> None:
    root, store = project
    run = again.fit(store, root, "steady")
    runs.delete(store, run)
    lost = store.blobs.put(b"nobody names it")
    os.utime(store.blobs.path(lost), (1e9, 1e9))
    text = instar(root, "gc", "--dry-run")
    assert f"would go: blob {lost[:15]}" in text
    assert store.blobs.has(lost)
    assert f"gone: blob {lost[:15]}" in instar(root, "gc")
    assert not store.blobs.has(lost)
    assert "is no duration" in instar(root, "gc", "--grace", "soon", status=2)
    assert "shorter than a writer" in instar(root, "gc", "--grace", "1s", status=2)


SCRIPT = """
import random
import sys

import instar
from shares import Shares

with instar.run("by hand", parameters={"rounds": int(sys.argv[1])}, resources=False) as run:
    if "--seeded" in sys.argv:
        random.seed(4)
    loss = sum(random.random() for _ in range(int(sys.argv[1])))
    run.log(loss=loss)
    run.log_text(f"{Shares.__name__} {loss}", "model.txt")
"""


def called(root: Path, *arguments: str) -> None:
    """Call the script of the project as a person does."""
    subprocess.run([sys.executable, "scripts/by_hand.py", *arguments], cwd=root, check=True, capture_output=True)


def test_a_script_is_called_again_with_its_arguments(project: tuple[Path, Store]) -> None:
    root, store = project
    (root / "scripts").mkdir()
    (root / "scripts" / "by_hand.py").write_text(f"import sys; sys.path.insert(0, '.')\n{SCRIPT}")
    called(root, "3", "--seeded")
    called(root, "4")
    chancy, seeded = runs.list_runs(store, "lamps", experiment="by hand")
    shutil.rmtree(root / "scripts")
    made = reproduce(store, root, seeded.id)
    assert (made.verdict, made.causes) == ("identical", ())
    assert "run_" in made.repetition
    twice = reproduce(store, root, chancy.id)
    assert twice.verdict == "different"
    assert twice.causes[0].kind == "chance"
    assert "nobody set a seed" in twice.causes[0].text
    kept = runs.get_run(store, made.repetition)
    assert kept.metrics["loss"] == seeded.metrics["loss"]
