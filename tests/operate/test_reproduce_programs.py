"""Modules, scripts that stand alone, notebooks that are steps, and notebooks in which `instar.run` was called, made again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from instar.app import App, open_app
from instar.core.errors import BadInput, Blocked
from instar.core.store import Store
from instar.operate import reproduce_notebook
from instar.operate.reproduce import reproduce
from instar.plan import importing, runner
from instar.train import artifacts, conditions, run_log, runs
from tests.operate import again
from tests.plan.conftest import CONTRACT
from tests.plan.notebook_files import notebook_file

MODULE = """
import random
import sys

import instar
from training.shares import START

with instar.run("by module", parameters={"rounds": int(sys.argv[1])}, resources=False) as run:
    random.seed(int(sys.argv[1]))
    run.log(loss=START + random.random())
    run.log_text("made", "model.txt")
"""
ALONE = """
import random
import sys

import instar

with instar.run("alone", resources=False) as run:
    random.seed(7)
    run.log(loss=random.random() * float(sys.argv[1]))
    run.log_text("made", "model.txt")
"""
FREE = """
import random
import instar
random.seed(3)
run = instar.run("in a notebook", resources=False)
run.log(loss=random.random() + weight())
run.log_text("made", "model.txt")
"""


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INSTAR_STORE", "INSTAR_DATABASE", "INSTAR_URL", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path: Path, clean: None) -> Iterator[tuple[Path, Store]]:
    root = again.write(tmp_path / "lamps")
    with open_app(root) as app:
        yield root, app.store


def call(folder: Path, *arguments: str, **variables: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, env={**os.environ, **variables},
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def only(store: Store, project: str, experiment: str) -> runs.Run:
    (found,) = [
        one for one in runs.list_runs(store, project, experiment=experiment) if one.tags.get("kind") != "reproduction"
    ]
    return found


def test_a_module_is_called_again_with_its_arguments(project: tuple[Path, Store]) -> None:
    root, store = project
    (root / "training").mkdir()
    (root / "training" / "__init__.py").write_text("")
    (root / "training" / "shares.py").write_text("START = 2\n")
    (root / "training" / "__main__.py").write_text(MODULE)
    call(root, "-m", "training", "3")
    run = only(store, "lamps", "by module")
    assert run.conditions is not None
    assert conditions.load(store.blobs, run.conditions).command == ("-m", "training", "3")
    shutil.rmtree(root / "training")
    assert reproduce(store, root, run.id).verdict == "identical"


def test_a_script_outside_of_any_project_is_kept_with_its_run(tmp_path: Path, clean: None) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "alone.py").write_text(ALONE)
    with open_app(work, need_project=False) as app:
        call(work, "alone.py", "2.5", INSTAR_STORE=str(app.store.folder))
        run = only(app.store, "default", "alone")
        assert run.code is None
        (work / "alone.py").unlink()
        assert reproduce(app.store, None, run.id).verdict == "identical"


def test_other_parameters_are_the_first_cause(project: tuple[Path, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    root, store = project
    (root / "by_hand.py").write_text(
        "import os, instar\n"
        "rate = float(os.environ.get('RATE', '1'))\n"
        "with instar.run('rates', parameters={'rate': rate}, resources=False) as run:\n"
        "    run.log(loss=rate)\n    run.log_text('made', 'model.txt')\n"
    )
    call(root, "by_hand.py", RATE="3")
    made = reproduce(store, root, only(store, "lamps", "rates").id)
    assert made.verdict == "different"
    assert made.causes[0].text == "the parameter rate was 3.0 and is 1.0"
    # The contract says that it is no secret: then it is kept, and set again.
    contract = again.CONTRACT.replace('owner = "ada"', 'owner = "ada"\npublic_variables = ["RATE"]')
    (root / "instar.toml").write_text(contract)
    call(root, "by_hand.py", RATE="4")
    newest = runs.list_runs(store, "lamps", experiment="rates")[0]
    assert newest.metrics["loss"] == 4.0
    assert reproduce(store, root, newest.id).verdict == "identical"


def test_what_was_not_recorded_is_listed_whole(project: tuple[Path, Store], tmp_path: Path, clean: None) -> None:
    root, store = project
    call(root, "-c", "import instar\nwith instar.run('c', resources=False) as run: run.log(loss=1)")
    with pytest.raises(BadInput, match=r"missing: how it was started \(-c\): it was neither"):
        reproduce(store, root, only(store, "lamps", "c").id)
    bare = runs.start(store, "lamps", experiment="bare", capture=False)
    runs.finish(store, bare.id)
    with pytest.raises(BadInput) as caught:
        reproduce(store, root, bare.id)
    for what in ("how it was started", "its code", "its environment"):
        assert what in str(caught.value)


def test_cells_that_a_kernel_ran_become_a_notebook() -> None:
    found = reproduce_notebook.cells("# %%\na = 1\n\n# %%\nprint(a)\n\n")
    assert [cell["source"] for cell in found["cells"]] == ["a = 1", "print(a)"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("saved", [True, False])
def test_a_notebook_in_which_a_run_was_made_is_executed_again(
    project: tuple[Path, Store], monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    pytest.importorskip("nbclient")
    from instar.train import notebook_run

    root, store = project
    (root / "weights.py").write_text("def weight():\n    return 0.25\n")
    text = notebook_file("from weights import weight", FREE, "run.log(more=1.5)\nrun.finish()")
    (root / "free.ipynb").write_text(text)
    variables = {**os.environ, **({"JPY_SESSION_NAME": str(root / "free.ipynb")} if saved else {})}
    done = notebook_run.execute(text, folder=root, given=None, root=root, put_in="", variables=variables)
    assert done.failure is None
    run = only(store, "lamps", "in a notebook")
    assert ("instar/notebook.ipynb" in run.artifacts) == saved
    for name in ("free.ipynb", "weights.py"):
        (root / name).unlink()
    made = reproduce(store, root, run.id)
    assert (made.verdict, made.causes) == ("identical", ())
    kept = runs.get_run(store, made.repetition)
    assert kept.metrics["loss"] == run.metrics["loss"]
    for path in ("instar/notebook.ipynb", "instar/cells.py"):
        if path in run.artifacts:
            artifacts.delete(store, run.id, path)
    with pytest.raises(Blocked, match="its notebook was not kept"):
        reproduce(store, root, run.id)


EXPLORE = notebook_file(
    ("weeks = 4", "parameters"),
    "import os, random\nfrom helpers import double\nprint(clean.height, double(weeks), os.environ.get('LAND'))",
    "open('out.txt', 'w').write(str(weeks))\nif os.environ.get('CHANCE'): print(random.SystemRandom().random())",
)
PIPELINE = """
import polars as pl
from instar import notebook, silver, source

raw = source("raw", path="data/*.csv", key="x")

@silver(key="x")
def clean(raw: pl.LazyFrame):
    return raw.filter(pl.col("x") < 3)

explore = notebook("books/explore.ipynb", inputs=["clean"], outputs=["*.txt"], parameters={"weeks": 6}, variables=["LAND"])
"""


@pytest.fixture
def walked(tmp_path: Path, clean: None) -> Iterator[tuple[App, Path]]:
    files = {
        "instar.toml": CONTRACT.replace('"tests"', '"tests"\npublic_variables = ["LAND"]'),
        "books/explore.ipynb": EXPLORE,
        "pipeline.py": PIPELINE,
        "helpers.py": "def double(x):\n    return 2 * x\n",
        "data/a.csv": "x,y\n1,2\n2,3\n5,6\n",
    }
    root = tmp_path / "small"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    with open_app(root) as app:
        yield app, root
    importing.forget()


@pytest.mark.timeout(240)
def test_a_notebook_that_is_a_step_is_made_again_cell_by_cell(
    walked: tuple[App, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nbclient")
    app, root = walked
    monkeypatch.setenv("LAND", "FI")
    runner.execute(app.store, app.project, app.pipeline, app.kinds())
    run = only(app.store, "small", "explore")
    kept = conditions.load(app.store.blobs, str(run.conditions))
    assert (kept.way, kept.values, list(kept.inputs)) == ("notebook step", {"LAND": "FI"}, ["clean"])
    monkeypatch.setenv("LAND", "SE")
    for name in ("books/explore.ipynb", "helpers.py", "pipeline.py"):
        (root / name).write_text("nothing as it was")
    made = reproduce(app.store, root, run.id)
    assert (made.verdict, made.causes) == ("identical", ())
    monkeypatch.setenv("CHANCE", "yes")
    chancy = reproduce(app.store, root, run.id)
    assert (chancy.verdict, list(chancy.comparison.digests)) == ("different", ["cell 3"])
    assert chancy.causes[0].text.startswith("two repetitions differ from each other (cell 3")
    run_log.set_tags(app.store, run.id, {"notebook": "gone.ipynb"})
    with pytest.raises(Blocked, match="its notebook was not kept"):
        reproduce(app.store, root, run.id)


def test_outputs_are_compared_by_the_number_that_a_cell_has_for_its_author() -> None:
    given = {"cell_type": "code", "metadata": {"tags": ["injected-parameters"]}, "source": "x = 1", "outputs": []}
    said = {"cell_type": "code", "metadata": {}, "source": "x", "outputs": [{"output_type": "stream", "text": "1"}]}
    found = reproduce_notebook.cell_digests(json.dumps({"cells": [given, said]}))
    assert list(found) == ["cell 1"]


def test_a_run_that_a_client_of_mlflow_logged_is_refused_with_all_that_is_missing_and_known(
    project: tuple[Path, Store],
) -> None:
    root, store = project

    def logged(**tags: str) -> str:
        told = {f"mlflow.source.{name}": value for name, value in tags.items()}
        run = runs.start(store, "lamps", experiment="client", tags=told, capture=False)
        runs.finish(store, run.id)
        return run.id

    def refusal(run: str) -> str:
        with pytest.raises(BadInput) as caught:
            reproduce(store, root, run)
        return str(caught.value)

    bare = refusal(logged(name="train.py"))
    for what in ("its code: the client named no commit", "its environment: the run logged no model", "its arguments"):
        assert what in bare
    assert "its notebook: a client keeps its name (a.ipynb)" in refusal(logged(name="a.ipynb", type="NOTEBOOK"))
    assert "<console> is no script" in refusal(logged(name="<console>"))
    full = logged(name="train.py", **{"git.commit": "abc123"})
    artifacts.log_artifact(store, full, "model/requirements.txt", b"scikit_learn==1.5.0\n# by hand\nnumpy==2.0\n")
    said = refusal(full)
    assert "missing: its arguments, and what differed from the commit" in said
    assert "Known: train.py, commit abc123, numpy 2.0, scikit-learn 1.5.0" in said
