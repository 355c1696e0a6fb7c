"""Steps as declared, and how they hang together."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
import pytest

from instar.core.errors import CycleError, PipelineError, UnknownTable
from instar.plan.pipeline import DEFAULT_FORM, Input, baseline, check, gold, model, notebook, silver, source

STEPS = """
import polars as pl
from instar import baseline, check, gold, model, silver, source
from helpers import tidy

visits = source("visits", by="month", key="id", columns={"id": pl.Int64})

@silver(key=["id"])
def clean(visits: pl.LazyFrame, least: int = 3) -> pl.LazyFrame:
    return tidy(visits)

@gold(entity="id", event_time="at")
def features(clean: "pl.DataFrame", visits):
    return clean

@model("back", search={"depth": [2, 3]}, seed=7)
def trees(features: pl.DataFrame, depth: int = 2):
    return depth

@baseline("back")
def rule(features: pl.DataFrame):
    return None

@check("clean", severity="warn")
def enough():
    return {"rows": pl.len() > 0}
"""


def test_discovers_steps_with_inputs_forms_parameters_and_options(folder) -> None:
    folder.write({"pipeline.py": STEPS, "helpers.py": "def tidy(frame):\n    return frame\n"})
    pipeline = folder.pipeline()
    assert list(pipeline.steps) == ["visits", "clean", "features", "trees", "rule"]
    clean = pipeline.step("clean")
    assert (clean.kind, clean.inputs, clean.parameters) == (
        "silver",
        (Input("visits", "polars.LazyFrame"),),
        {"least": 3},
    )
    assert clean.options["key"] == ("id",)
    assert pipeline.step("features").inputs == (Input("clean", "polars.DataFrame"), Input("visits", DEFAULT_FORM))
    assert pipeline.step("features").options["key"] == ("id",)
    assert pipeline.step("trees").options["search"] == {"depth": (2, 3)}
    assert (pipeline.step("trees").problem, pipeline.step("visits").problem) == ("back", None)
    assert pipeline.step("visits").options["columns"] == {"id": pl.Int64}
    assert [found.name for found in pipeline.checks["clean"]] == ["enough"]
    assert {Path(path).name for path in pipeline.sources} == {"pipeline.py", "helpers.py"}


def test_orders_steps_and_finds_ancestors_and_consumers(folder) -> None:
    folder.write({"pipeline.py": STEPS, "helpers.py": "def tidy(frame):\n    return frame\n"})
    pipeline = folder.pipeline()
    assert pipeline.order() == ["visits", "clean", "features", "trees", "rule"]
    assert pipeline.order(["rule"]) == ["visits", "clean", "features", "rule"]
    assert pipeline.ancestors("clean") == {"visits"}
    assert pipeline.consumers("features") == ["trees", "rule"]
    with pytest.raises(UnknownTable, match="Did you mean 'clean'"):
        pipeline.order(["claen"])


def test_a_decorated_function_stays_a_plain_function() -> None:
    @silver(key="id")
    def doubled(numbers: list, times: int = 2):
        return [times * number for number in numbers]

    assert doubled([1, 2]) == [2, 4]
    assert doubled([1], times=3) == [3]


def test_edits_within_one_second_are_seen_and_other_projects_do_not_leak(folder, tmp_path: Path) -> None:
    folder.write({"pipeline.py": STEPS, "helpers.py": "def tidy(frame):\n    return 1\n"})
    assert folder.pipeline().step("clean").function(None) == 1
    folder.write({"helpers.py": "def tidy(frame):\n    return 2\n"})
    assert folder.pipeline().step("clean").function(None) == 2
    other = type(folder)(tmp_path).write({"pipeline.py": STEPS, "helpers.py": "def tidy(frame):\n    return 3\n"})
    assert other.pipeline().step("clean").function(None) == 3
    assert folder.pipeline().step("clean").function(None) == 2
    assert sys.modules["helpers"].__file__ == str(folder.root / "helpers.py")


def test_steps_may_be_spread_over_files_and_folders(folder) -> None:
    folder.edit("instar.toml", 'owner = "tests"', 'owner = "tests"\npipeline = "steps/*.py"')
    folder.write(
        {
            "steps/one.py": "from instar import source\nfrom shared.words import NAME\nraw = source(NAME)\n",
            "steps/two.py": "from instar import silver\n@silver()\ndef fine(raw):\n    return raw\n",
            "shared/words.py": "NAME = 'raw'\n",
        }
    )
    assert folder.pipeline().order() == ["raw", "fine"]


def test_a_parameter_that_names_no_table_is_refused_with_the_nearest(folder) -> None:
    folder.write(
        {"pipeline.py": STEPS.replace("def features(clean:", "def features(claen:"), "helpers.py": "tidy = len"}
    )
    with pytest.raises(UnknownTable) as caught:
        folder.pipeline()
    assert "step features in pipeline.py" in caught.value.subject
    assert "'claen'" in caught.value.what
    assert caught.value.next_step == "Did you mean 'clean'?"


def test_a_model_is_no_table(folder) -> None:
    folder.write({"pipeline.py": STEPS.replace("def rule(features", "def rule(trees"), "helpers.py": "tidy = len"})
    with pytest.raises(UnknownTable, match="'trees' names a model"):
        folder.pipeline()


def test_a_ring_is_refused_and_shown(folder) -> None:
    ring = """
from instar import silver
@silver()
def one(three): ...
@silver()
def two(one): ...
@silver()
def three(two): ...
"""
    folder.write({"pipeline.py": ring})
    with pytest.raises(CycleError, match="one <- three <- two <- one"):
        folder.pipeline()


def test_a_check_on_no_table_an_unknown_problem_and_two_steps_of_one_name_are_refused(folder) -> None:
    folder.write({"helpers.py": "tidy = len"})
    folder.write({"pipeline.py": STEPS.replace('@check("clean"', '@check("cleen"')})
    with pytest.raises(UnknownTable, match="Did you mean 'clean'"):
        folder.pipeline()
    folder.write({"pipeline.py": STEPS.replace('@baseline("back")', '@baseline("bakc")')})
    with pytest.raises(PipelineError, match="Did you mean 'back'"):
        folder.pipeline()
    folder.write({"pipeline.py": STEPS + '\nagain = source("clean")\n'})
    with pytest.raises(PipelineError, match="two steps have this name"):
        folder.pipeline()


def test_a_file_that_is_missing_or_broken_says_where(folder) -> None:
    with pytest.raises(PipelineError, match=r"pipeline\.py"):
        folder.pipeline()
    folder.write({"pipeline.py": "import polars\n\nraise RuntimeError('no')\n"})
    with pytest.raises(PipelineError, match=r"pipeline\.py, line 3: .*RuntimeError: no"):
        folder.pipeline()
    folder.write({"pipeline.py": "x = (\n"})
    with pytest.raises(PipelineError, match=r"pipeline\.py, line 1: .*SyntaxError"):
        folder.pipeline()


def test_what_cannot_be_a_step_is_refused() -> None:
    with pytest.raises(PipelineError, match="cannot name a table"):
        silver()(lambda_with_stars)
    with pytest.raises(PipelineError, match="reads no table"):
        gold()(nothing)
    with pytest.raises(PipelineError, match="severity"):
        check("clean", severity="warning")(nothing)
    with pytest.raises(
        PipelineError, match=r"(?s)step one: its declaration has no argument 'retry'.*Did you mean 'retries'"
    ):
        silver(retry=2)(one)  # type: ignore[call-arg]
    with pytest.raises(PipelineError, match=r"notebook a\.ipynb: its declaration has no argument 'timeuot'"):
        notebook("a.ipynb", timeuot="5m")  # type: ignore[call-arg]


def one(table: object) -> None: ...


def lambda_with_stars(*tables: object) -> None: ...


def nothing() -> None: ...


def test_decorators_name_their_words() -> None:
    assert source("raw", by="month").options["landed"] == "_landed_at"
    assert model("p")(lambda_model).__name__ == "lambda_model"
    assert baseline("p")(lambda_model) is lambda_model


def lambda_model(table: object) -> None: ...
