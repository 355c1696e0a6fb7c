"""Notebooks that run as steps: executed with inputs and parameters, kept with their outputs, and clear when they fail."""

from __future__ import annotations

import json
import pickle
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from instar.app import App, open_app
from instar.core import lineage
from instar.core.errors import NotFound, PipelineError, StepFailed, Unavailable
from instar.interfaces.tables import table
from instar.plan import executions, importing, output, runner
from instar.plan.crew import Manner
from instar.plan.events import Walk
from instar.train import artifacts, code, native, notebook_kind, run_records, runs
from tests.plan.conftest import CONTRACT
from tests.plan.notebook_files import notebook_file

ANALYSIS = notebook_file(
    ("import polars as pl\nfrom instar import silver, source", "instar"),
    ("raw = source('raw', path='data/*.csv', key='x')", "step"),
    "a cell that is no Python and is not looked at",
    ("@silver(key='x')\ndef clean(raw: pl.LazyFrame):\n    return raw.filter(pl.col('x') < 3)", "step"),
)
EXPLORE = notebook_file(
    "#md # Explore",
    ("weeks = 4\nlabel = 'late'", "parameters"),
    "import instar\nfrom helpers import double\nprint(clean.height, double(weeks), label)",
    "assert instar.table('clean').equals(clean)\nopen('out.txt', 'w').write(str(weeks))\ntype(clean).__name__",
)
PIPELINE = """
import polars as pl
from instar import notebook
explore = notebook("books/explore.ipynb", inputs=["clean"], outputs=["*.txt"], parameters={"label": "x"})
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    files = {
        "instar.toml": CONTRACT.replace('"tests"', '"tests"\npipeline = ["analysis.ipynb", "pipeline.py"]'),
        "analysis.ipynb": ANALYSIS,
        "books/explore.ipynb": EXPLORE,
        "pipeline.py": PIPELINE,
        "helpers.py": "def double(x):\n    return 2 * x\n",
        "data/a.csv": "x,y\n1,2\n2,3\n5,6\n",
    }
    for name, text in files.items():
        path = tmp_path / "small" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    yield tmp_path / "small"
    importing.forget()


@pytest.fixture
def app(root: Path) -> Iterator[App]:
    with open_app(root) as found:
        yield found


def walk(app: App, **options: object) -> Walk:
    vars(app).pop("pipeline", None)
    return runner.execute(app.store, app.project, app.pipeline, app.kinds(), **options)  # type: ignore[arg-type]


def last(app: App, step: str = "explore") -> executions.Execution:
    with app.store.database.read() as tx:
        found = executions.last(tx, "small", step)
    assert found is not None
    return found


def outputs_of(app: App, run: str) -> str:
    document = json.loads(artifacts.open(app.store, run, "explore.ipynb").read_text())
    return json.dumps([cell.get("outputs") for cell in document["cells"]])


@pytest.mark.timeout(240)
def test_it_is_run_with_inputs_and_parameters_and_kept(app: App, root: Path) -> None:
    assert walk(app).ran() == ["raw", "clean", "explore"]
    made = last(app)
    run = run_records.get_run(app.store, str(made.ref))
    assert (run.state, run.step, run.execution) == ("finished", "explore", made.id)
    assert run.parameters == {"weeks": 4, "label": "x"}
    assert [one.path for one in artifacts.list_artifacts(app.store, run.id)] == ["explore.ipynb", "out.txt"]
    assert artifacts.open(app.store, run.id, "out.txt").read_text() == "4"
    log = output.read(app.store, made.id, made.log)
    assert "2 8 x\n" in log, "what cells print is in the log of the step"
    assert "Parent appears" not in log, "the kernel was ended, and did not find itself alone"
    said = outputs_of(app, run.id)
    assert "2 8 x" in said  # rows of the input, a helper of the project, the parameter as declared
    assert "DataFrame" in said
    (version,) = run.inputs
    with app.store.database.read() as tx:
        assert lineage.up(tx, run.id)
    assert version.startswith("tver_")

    assert walk(app).ran() == []
    executed = artifacts.open(app.store, run.id, "explore.ipynb").read_text()
    (root / "books" / "explore.ipynb").write_text(executed.replace("# Given by the pipeline.", "# Given."))
    assert walk(app, parameters={"explore.weeks": 9}).ran() == ["explore"]  # also a notebook that was run before
    assert "2 18 x" in outputs_of(app, str(last(app).ref))

    runs.delete(app.store, str(last(app).ref))
    assert walk(app, parameters={"explore.weeks": 9}).ran() == ["explore"]


@pytest.mark.timeout(240)
def test_a_cell_that_raises_is_told_with_its_traceback(
    app: App, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = ("x = 0", "parameters"), "#md text", "print('so far')\ndef f():\n    return 1 / x\nf()", "print('never')"
    (root / "books" / "explore.ipynb").write_text(notebook_file(*broken))
    (root / "pipeline.py").write_text("from instar import notebook\nexplore = notebook('books/explore.ipynb')\n")
    with pytest.raises(StepFailed) as caught:
        walk(app, manner=Manner(logs=False))
    error = caught.value
    assert error.subject == "step explore, cell 3 of books/explore.ipynb"
    assert error.what == "the cell raised ZeroDivisionError: division by zero"
    shown = capsys.readouterr().out
    assert "return 1 / x" in shown
    assert "\x1b" not in shown
    (run,) = runs.list_runs(app.store, "small", step="explore")
    assert run.state == "failed"
    said = outputs_of(app, run.id)
    assert "so far" in said
    assert "never" not in said
    assert last(app).state == "failed"


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("cell", "declared", "says"),
    [
        ("import os\nos._exit(3)", "", "its kernel died"),
        ("1", ", outputs=['gone.txt']", "did not write an output that is declared"),
        ("import instar\ninstar.table('raw')", "", "does not declare it as an input"),
    ],
)
def test_other_ways_to_fail_are_clear(app: App, root: Path, cell: str, declared: str, says: str) -> None:
    (root / "books" / "gone.txt").write_text("of an earlier run")
    (root / "books" / "explore.ipynb").write_text(notebook_file(cell))
    (root / "pipeline.py").write_text(
        f"from instar import notebook\nexplore = notebook('books/explore.ipynb'{declared})\n"
    )
    with pytest.raises(StepFailed, match=says):
        walk(app)
    (run,) = runs.list_runs(app.store, "small", step="explore")
    assert run.state == "failed"


@pytest.mark.timeout(240)
def test_its_kernel_ends_with_its_timeout(app: App, root: Path) -> None:
    told = root / "pid.txt"
    cell = f"import os, time\nopen({str(told)!r}, 'w').write(str(os.getpid()))\nwhile True: time.sleep(1)"
    (root / "books" / "explore.ipynb").write_text(notebook_file(cell))
    (root / "pipeline.py").write_text(
        "from instar import notebook\nexplore = notebook('books/explore.ipynb', timeout='20s')\n"
    )
    with pytest.raises(StepFailed, match="took longer than its timeout"):
        walk(app, manner=Manner(place=app.place()))
    kernel = int(told.read_text())
    for _ in range(300):
        if not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    raise AssertionError("the kernel outlives its step")


def test_without_the_extra_it_says_what_to_install(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nbclient", None)
    with pytest.raises(Unavailable) as caught:
        walk(app)
    assert 'pip install "instar[notebook]"' in caught.value.next_step


def test_a_table_is_read_as_in_the_pipeline(app: App, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "books")
    with pytest.raises(NotFound, match="it has no rows yet"):
        table("clean")
    walk(app, targets=["clean"])
    assert table("clean").height == 2
    assert table("clean", "polars.LazyFrame").collect().height == 2
    assert table("clean", "pa.Table").num_rows == 2


def test_the_code_of_a_run_has_notebooks_without_outputs(root: Path) -> None:
    before = code.digest(root)
    run = json.loads(ANALYSIS)
    run["cells"][0]["execution_count"] = 3
    run["cells"][0]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x" * 3_000_000}]
    (root / "analysis.ipynb").write_text(json.dumps(run))
    assert code.digest(root) == before
    (root / "analysis.ipynb").write_text(ANALYSIS.replace("< 3", "< 4"))
    assert code.digest(root) != before
    (root / "draft.ipynb").write_text("no notebook yet")  # is no matter, as long as the pipeline does not name it
    code.digest(root)


def test_a_class_of_a_notebook_is_unpickled_from_the_code_of_its_bundle(app: App, root: Path, tmp_path: Path) -> None:
    books = notebook_file(
        ("class Rule:\n    share = 0.5", "instar"), ("from instar import source\nraw = source('raw')", "step")
    )
    (root / "deeper").mkdir()
    (root / "deeper" / "__init__.py").write_text("")
    (root / "deeper" / "inner.ipynb").write_text(books)
    (root / "instar.toml").write_text(CONTRACT.replace('"tests"', '"tests"\npipeline = "deeper/inner.ipynb"'))
    vars(app).pop("project", None)
    assert app.pipeline.steps
    data = pickle.dumps(sys.modules["deeper.inner"].Rule())
    zipped = tmp_path / "code.zip"
    zipped.write_bytes(code.archive(root))
    importing.forget()
    assert "deeper" in native.modules_of(zipped)
    with native._own_code(zipped):
        assert pickle.loads(data).share == 0.5
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(data)


def test_numbers_without_a_literal_are_given_to_a_notebook() -> None:
    for value in (float("nan"), float("inf"), float("-inf"), 0.5):
        assert repr(eval(notebook_kind._literal(value))) == repr(value)


def test_two_files_cannot_make_one_step(app: App, root: Path) -> None:
    (root / "pipeline.py").write_text("from instar import source\nraw = source('raw')\n")
    with pytest.raises(PipelineError, match="two steps have this name"):
        _ = app.pipeline
