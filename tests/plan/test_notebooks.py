"""Notebooks in a pipeline: cells tagged as steps, whole notebooks as steps, what their keys see, and clear errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from instar.core.errors import PipelineError, UnknownTable
from instar.plan import notebooks
from instar.plan.keys import Ingredients, Keys
from tests.plan.conftest import CONTRACT
from tests.plan.notebook_files import notebook_file

SHARED = "import polars as pl\nfrom instar import gold, silver, source\nimport helpers\nLIMIT = 3\n%matplotlib inline"
HELPER = "def small(frame):\n    return frame.filter(pl.col('x') < LIMIT)"
SOURCE = "raw = source('raw', key='x')"
CLEAN = "@silver(key='x')\ndef clean(raw: pl.LazyFrame, least: int = 1):\n    # keep the small\n"
CLEAN += "    return helpers.kept(small(raw))"
LOOK = "frame = pl.DataFrame({'x': [1]})\nframe.head?\n!ls\nboom"
ANALYSIS = ("#md # Analysis", (SHARED, "instar"), (SOURCE, "step"), (HELPER, "instar"), LOOK, (CLEAN, "step", "slides"))

PIPELINE = (
    "from instar import notebook\nexplore = notebook('explore.ipynb', inputs=['clean'], parameters={'weeks': 5})\n"
)
EXPLORE = (
    ("weeks = 4\nlabel: str = 'late'\nwhen = str(weeks)", "parameters"),
    "%%time\nimport helpers\nfrom helpers import RATE as rate",
    "total = helpers.kept(clean).height * rate\nprint(total, display)",
)
HELPERS = "RATE = 2\nOTHER = 3\ndef kept(frame):\n    return deeper(frame)\ndef deeper(frame):\n    return frame\n"


@pytest.fixture
def book(folder):
    contract = CONTRACT.replace('owner = "tests"', 'owner = "tests"\npipeline = ["analysis.ipynb", "pipeline.py"]')
    return folder.write(
        {
            "instar.toml": contract,
            "analysis.ipynb": notebook_file(*ANALYSIS),
            "pipeline.py": PIPELINE,
            "explore.ipynb": notebook_file(*EXPLORE),
            "helpers.py": HELPERS,
        }
    )


def ingredients(book, step: str) -> Ingredients:
    pipeline = book.pipeline()
    return Keys(book.project(), pipeline).ingredients(pipeline.step(step), {"raw": "b3:1", "clean": "b3:2"})


def rewrite(book, name: str, cells: tuple[Any, ...], old: str, new: str, **more: Any) -> None:
    changed = [
        tuple(part.replace(old, new) for part in cell) if isinstance(cell, tuple) else cell.replace(old, new)
        for cell in cells
    ]
    assert old == new or changed != list(cells)
    book.write({name: notebook_file(*changed, **more)})


def test_tagged_cells_are_steps_and_the_others_are_not_run(book) -> None:
    pipeline = book.pipeline()
    assert {name: step.kind for name, step in pipeline.steps.items()} == {
        "raw": "source",
        "clean": "silver",
        "explore": "notebook",
    }
    clean = pipeline.step("clean")
    assert [item.form for item in clean.inputs] == ["polars.LazyFrame"]
    assert clean.parameters == {"least": 1}
    assert pipeline.order() == ["raw", "clean", "explore"]


def test_a_whole_notebook_has_the_parameters_of_its_cell(book) -> None:
    step = book.pipeline().step("explore")
    assert step.parameters == {"weeks": 5, "label": "late"}
    assert [item.name for item in step.inputs] == ["clean"]
    found = Keys(book.project(), book.pipeline(), {"explore.weeks": "8"}).parameters(step)
    assert found == {"weeks": 8, "label": "late"}


# What is edited in the notebook, and the ingredient by which `why` tells of it.
CHANGES = {
    "own body": (CLEAN, CLEAN.replace("small(raw)", "raw"), "analysis.clean"),
    "default": (CLEAN, CLEAN.replace("least: int = 1", "least: int = 2"), "analysis.clean"),
    "helper cell": (HELPER, HELPER.replace("<", "<="), "analysis.small"),
    "constant": ("LIMIT = 3", "LIMIT = 4", "analysis.LIMIT"),
}
SILENT = {
    "comment": ("# keep the small", "# keep only the small ones"),
    "layout": ("small(raw))", "small( raw ) )"),
    "cell without a tag": ("boom", "bang"),
    "text": ("# Analysis", "# Another analysis"),
    "display": ("%matplotlib inline", "%matplotlib widget"),
    "tag": ("slides", "notes"),
}


@pytest.mark.parametrize("edit", CHANGES)
def test_the_key_of_a_cell_sees_its_closure(book, edit: str) -> None:
    old, new, part = CHANGES[edit]
    before = ingredients(book, "clean")
    rewrite(book, "analysis.ipynb", ANALYSIS, old, new)
    after = ingredients(book, "clean")
    assert after.key() != before.key()
    assert before.parts[part] != after.parts[part]


@pytest.mark.parametrize("edit", SILENT)
def test_the_key_of_a_cell_sees_nothing_else(book, edit: str) -> None:
    before = ingredients(book, "clean")
    rewrite(book, "analysis.ipynb", ANALYSIS, *SILENT[edit])
    assert ingredients(book, "clean") == before


def test_running_a_notebook_changes_no_key(book) -> None:
    before = ingredients(book, "clean"), ingredients(book, "explore")
    run = {"outputs": [{"output_type": "stream", "name": "stdout", "text": ["late\n"]}], "count": 7}
    rewrite(book, "analysis.ipynb", ANALYSIS, "", "", **run)
    rewrite(book, "explore.ipynb", EXPLORE, "", "", **run)
    assert (ingredients(book, "clean"), ingredients(book, "explore")) == before


def test_a_helper_in_a_file_reaches_both(book) -> None:
    before = ingredients(book, "clean"), ingredients(book, "explore")
    book.edit("helpers.py", "return frame\n", "return frame * 2\n")
    for old, new in zip(before, (ingredients(book, "clean"), ingredients(book, "explore")), strict=True):
        assert old.key() != new.key()
        assert old.parts["helpers.deeper"] != new.parts["helpers.deeper"]


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("* rate", "+ rate", True),
        ("weeks = 4", "weeks = 6", True),  # though 5 is given: `when` is worked out of it
        ("%%time\n", "", True),
        ("import RATE", "import OTHER", True),
        ("total", "sum_of_all", True),  # a variable of a notebook is not a local: later cells and displays show it
        ("print(total, display)", "print( total, display )  # shown", False),
    ],
)
def test_the_key_of_a_whole_notebook_sees_its_cells(book, old: str, new: str, changes: bool) -> None:
    before = ingredients(book, "explore")
    assert before.unresolved == ()
    rewrite(book, "explore.ipynb", EXPLORE, old, new)
    assert (ingredients(book, "explore").key() != before.key()) is changes


def test_what_a_notebook_does_outside_is_named_with_its_cell(book) -> None:
    book.write({"explore.ipynb": notebook_file(*EXPLORE, "!pip list", "%%bash\nls", "x = open('a').read()\nunknown")})
    assert list(ingredients(book, "explore").unresolved) == [
        "explore, cell 4, line 1: starts a program with system",
        "explore, cell 5, line 1: runs what it cannot read, with %%bash",
        "explore, cell 6, line 1: reads a file with open",
        "explore: the name unknown is not known when the run is planned",
    ]


def error_of(book, kind: type[PipelineError] = PipelineError) -> str:
    with pytest.raises(kind) as caught:
        book.pipeline()
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "it is no JSON"),
        ("[]", "it has no list of cells"),
        ('{"worksheets": []}', "it has no list of cells"),
        ('{"cells": [3]}', "cell 1 is no cell"),
        ('{"cells": [{"cell_type": "code", "source": 3}]}', "cell 1 is no cell"),
    ],
)
def test_a_file_that_is_no_notebook_is_refused(book, text: str, says: str) -> None:
    book.write({"explore.ipynb": text})
    assert says in error_of(book)
    book.write({"explore.ipynb": notebook_file(*EXPLORE), "analysis.ipynb": text})
    assert "notebook analysis.ipynb" in error_of(book)


def test_a_notebook_without_tags_says_which_cell_looks_like_a_step(book) -> None:
    book.write({"analysis.ipynb": notebook_file(SHARED, SOURCE, CLEAN)})
    said = error_of(book)
    assert "cell 3 looks like a step" in said
    assert "the tag 'step'" in said


def test_a_name_from_a_cell_without_a_tag_is_told_with_that_cell(book) -> None:
    book.write(
        {"analysis.ipynb": notebook_file((SHARED, "instar"), "KEY = 'x'", ("raw = source('raw', key=KEY)", "step"))}
    )
    said = error_of(book)
    assert "analysis.ipynb, cell 3, line 1" in said
    assert "Cell 2 defines KEY: tag it 'instar'" in said


@pytest.mark.parametrize("line", ["!ls", "%%time\n1"])
def test_what_only_a_notebook_understands_has_no_place_in_a_step(book, line: str) -> None:
    book.write({"analysis.ipynb": notebook_file((SHARED, "instar"), (line, "instar"), (SOURCE, "step"))})
    assert "which only a notebook understands" in error_of(book)


def test_a_cell_that_is_no_python_is_told(book) -> None:
    book.write({"explore.ipynb": notebook_file(*EXPLORE, "1\nx = = 1")})
    assert "cell 4, line 2: a cell cannot be read as Python" in error_of(book)


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ("notebook('gone.ipynb')", "the notebook cannot be read"),
        ("notebook('explore.py')", "ends in .ipynb"),
        ("notebook('explore.ipynb', parameters={'week': 3})", "Did you mean 'weeks'?"),
        ("notebook('untagged.ipynb', parameters={'weeks': 3})", "no cell of the notebook is tagged 'parameters'"),
        ("notebook('twice.ipynb')", "several cells are tagged 'parameters'"),
        ("notebook('explore.ipynb', name='no name')", "a step cannot have that name"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(book, declared: str, says: str) -> None:
    twice = notebook_file(("a = 1", "parameters"), ("a = 2", "parameters"))
    book.write({"untagged.ipynb": notebook_file("weeks = 1"), "twice.ipynb": twice})
    book.write({"pipeline.py": f"from instar import notebook\nmade = {declared}\n"})
    assert says in error_of(book)


def test_an_input_must_be_a_table(book) -> None:
    book.write({"pipeline.py": PIPELINE.replace("['clean']", "['cleen']")})
    assert "Did you mean 'clean'?" in error_of(book, UnknownTable)
    book.write({"pipeline.py": PIPELINE + "more = notebook('explore.ipynb', name='more', inputs=['explore'])\n"})
    assert "names a notebook" in error_of(book, UnknownTable)


def test_a_contract_names_python_files_and_notebooks_only(book) -> None:
    book.write({"notes.md": ""})
    book.edit("instar.toml", '"pipeline.py"', '"notes.md"')
    assert "steps are declared in Python files and notebooks" in error_of(book)


def test_a_file_without_outputs_is_equal_however_often_it_was_run() -> None:
    fresh = notebook_file(*EXPLORE)
    run = json.loads(
        notebook_file(*EXPLORE, outputs=[{"output_type": "stream", "name": "stdout", "text": "x"}], count=3)
    )
    run["cells"][0]["metadata"]["execution"] = {"iopub": "2013"}
    run["cells"][1]["id"] = "abc"
    run["metadata"] = {"language_info": {"version": "3.13"}}
    kept = notebooks.without_outputs(json.dumps(run), "explore.ipynb")
    assert kept == notebooks.without_outputs(fresh, "explore.ipynb")
    assert notebooks.cells_of(kept, "x") == notebooks.cells_of(fresh, "x")
