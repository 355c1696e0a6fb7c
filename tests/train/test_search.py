"""The search language: what it reads, what it refuses, and that SQL and plain Python answer alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instar.adapters import migrations
from instar.app import open_database
from instar.core.errors import BadInput
from instar.core.store import Store
from instar.testing import memory_store
from instar.train import datasets, run_search, runs
from instar.train.run_fields import STATUS, VOCABULARY
from instar.train.run_records import Columns, Run
from instar.train.run_values import to_text
from instar.train.search_grammar import parse, parse_order
from instar.train.search_match import matches
from instar.train.search_words import And, Comparison, Field, Not, Or, Tree, write

LOSS, MODEL = Field("metric", "loss", "number"), Field("parameter", "model", "text")
NAME = Field("attribute", "run_name", "text")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metrics.loss < 0.5", Comparison(LOSS, "<", 0.5)),
        ("metric.loss>=-1e-3", Comparison(LOSS, ">=", -1e-3)),
        ("  metrics.`loss` != 5  ", Comparison(LOSS, "!=", 5)),
        ('params."model" = "trees"', Comparison(MODEL, "=", "trees")),
        ("`params`.model LIKE 'tr%'", Comparison(MODEL, "LIKE", "tr%")),
        ("param.model ilike 'TR_'", Comparison(MODEL, "ILIKE", "TR_")),
        ("parameters.model = 'it''s'", Comparison(MODEL, "=", "it''s")),
        ('parameter.model = "it\'s"', Comparison(MODEL, "=", "it's")),
        ("parameter.model = e'it\\'s \"so\"'", Comparison(MODEL, "=", 'it\'s "so"')),
        ("tags.mlflow.source.name = 'x'", Comparison(Field("tag", "mlflow.source.name", "text"), "=", "x")),
        ("tag.`a b` IS NULL", Comparison(Field("tag", "a b", "text"), "IS NULL")),
        ("tags.a is not null", Comparison(Field("tag", "a", "text"), "IS NOT NULL")),
        ("metrics.val/loss (best) > 1", None),
        ("metrics.val/loss best-of 3 > 1", Comparison(Field("metric", "val/loss best-of 3", "number"), ">", 1)),
        ("params.time in bed = 'x'", Comparison(Field("parameter", "time in bed", "text"), "=", "x")),
        ("run name = 'a'", Comparison(NAME, "=", "a")),
        ("attributes.\"run name\" = 'a'", Comparison(NAME, "=", "a")),
        ("attr.run_name = 'a'", Comparison(NAME, "=", "a")),
        ("run.run_name = 'a'", Comparison(NAME, "=", "a")),
        ("created > 5", Comparison(Field("attribute", "start_time", "time"), ">", 5)),
        ("start_time >= '2026-01-01'", Comparison(Field("attribute", "start_time", "time"), ">=", "2026-01-01")),
        ("run_id IN ('a', \"b\",)", Comparison(Field("attribute", "run_id", "text"), "IN", ("a", "b"))),
        ("attributes.run_id not in ('a')", Comparison(Field("attribute", "run_id", "text"), "NOT IN", ("a",))),
        ("dataset.name IN ('a')", Comparison(Field("dataset", "name", "text"), "IN", ("a",))),
        ("datasets.context = 'train'", Comparison(Field("dataset", "context", "text"), "=", "train")),
        ("metrics.loss = inf", Comparison(LOSS, "=", math.inf)),
        ("metrics.loss == 1", Comparison(LOSS, "=", 1)),
        ("metrics.loss <> 1", Comparison(LOSS, "!=", 1)),
    ],
)
def test_one_comparison_is_read_as_mlflow_means_it_and_more(text: str, expected: Comparison | None) -> None:
    if expected is None:
        with pytest.raises(BadInput):
            parse(text, VOCABULARY)
    else:
        assert parse(text, VOCABULARY) == expected


def test_and_binds_before_or_and_brackets_before_both() -> None:
    one, two, three = (f"metrics.{name} > 1" for name in "abc")
    a, b, c = (parse(text, VOCABULARY) for text in (one, two, three))
    assert a is not None
    assert b is not None
    assert c is not None
    assert parse(f"{one} or {two} AND {three}", VOCABULARY) == Or((a, And((b, c))))
    assert parse(f"({one} OR {two}) and not {three}", VOCABULARY) == And((Or((a, b)), Not(c)))
    assert parse("", VOCABULARY) is None


@pytest.mark.parametrize(
    ("text", "position", "found", "asked"),
    [
        ("metrics.loss", 13, "the end", "a comparison"),
        ("metrics.loss < ", 16, "the end", "a number"),
        ("metrics.loss < 'a'", 16, "'a'", "a number for metric loss"),
        ("params.lr = 0.1", 13, "'0.1'", "a text in quotes for parameter lr"),
        ("params.lr > '1'", 11, ">", "for parameter lr one of ="),
        ("loss < 0.5", 1, "loss", "metrics.loss"),
        ("colour.red = 'x'", 1, "colour", "before the dot"),
        ("metrics.a > 1 metrics.b > 2", 15, "metrics.b", "AND, OR or the end"),
        ("metrics.a AND metrics.b > 2", 10, " AND", "a comparison"),
        ("(metrics.a > 1", 15, "the end", "closing bracket"),
        ("metrics.a > 1 AND", 18, "the end", "a name"),
        ("run_id IN ('a' 'b')", 16, "'b'", "a comma"),
        ("run_id IN ()", 12, "')'", "a text in quotes"),
        ("metrics.a > 1;", 14, "';'", "AND, OR or the end"),
        ("params.a = 'open", 12, "'open", "a text in quotes"),
        ("dataset.size = 'x'", 1, "dataset", "context, digest, name"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(text: str, position: int, found: str, asked: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(text, VOCABULARY)
    assert f"at character {position}" in caught.value.what
    assert found in str(caught.value.found)
    assert asked in str(caught.value.asked)


def test_a_filter_that_could_overload_the_database_is_refused() -> None:
    for text in (
        " AND ".join(["metrics.a > 1"] * 501),
        "(" * 60 + "metrics.a > 1" + ")" * 60,
        "NOT " * 60 + "metrics.a > 1",
        "params.a = '" + "x" * 200_000 + "'",
    ):
        with pytest.raises(BadInput):
            parse(text, VOCABULARY)
    assert parse(" OR ".join(["metrics.a > 1"] * 500), VOCABULARY) is not None


def test_orders_have_several_keys_and_directions() -> None:
    found = parse_order("metrics.`a, b` DESC, params.some name asc , start_time", VOCABULARY)
    assert [(order.field.key, order.ascending) for order in found] == [
        ("a, b", False),
        ("some name", True),
        ("start_time", True),
    ]
    for text in ("loss DESC", "metrics.a down, metrics.'b", "", "metrics.a DESC DESC x'"):
        with pytest.raises(BadInput):
            parse_order(text, VOCABULARY)


# ---- SQL and plain Python answer alike

KEYS = ("a", "b c", "q\"u`o'te")
TEXTS = (
    "",
    "x",
    "X",
    "x%",
    "a_b",
    "[a]*?",
    "é",
    "it's",
    "x" * 250,
    "x" * 251,
    "x" * 250 + "Y",
    "back\\slash",
    "two\nlines",
)
NUMBERS = (0.0, -1.5, 1.0, 2.0, math.inf, -math.inf, math.nan, 1e300)
START = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """A store full of odd runs, and the runs as plain records."""

    def __init__(self, store: Store, runs: list[Run], inputs: Mapping[str, list[tuple[str, str, str | None]]]) -> None:
        self.store, self.runs, self.inputs = store, runs, inputs


def _fill(store: Store) -> World:
    inputs: dict[str, list[tuple[str, str, str | None]]] = {}
    for number in range(40):
        keys = [key for place, key in enumerate(KEYS) if (number >> place) & 1]
        run = runs.start(
            store, "p", experiment=f"e{number % 2}", name=TEXTS[number % len(TEXTS)], step="s" if number % 3 else None,
            parameters={key: TEXTS[(number * 7 + place) % len(TEXTS)] for place, key in enumerate(keys)},
            tags={key: TEXTS[(number * 5 + place) % len(TEXTS)] for place, key in enumerate(keys)},
            started=START.replace(microsecond=number * 700), capture=False,
        )  # fmt: skip
        metrics = {key: NUMBERS[(number * 3 + place) % len(NUMBERS)] for place, key in enumerate(keys)}
        runs.log_metrics(store, run.id, metrics)
        if number % 4:
            runs.update(
                store, run.id, state=["finished", "failed", "killed"][number % 3], ended=START.replace(hour=number % 24)
            )
        if number % 5 == 0:
            tags = {datasets.CONTEXT: "train"} if number % 10 else {}
            datasets.log_inputs(store, run.id, [(datasets.dataset("p", "d%", str(number % 3), "local", "x"), tags)])
            inputs[run.id] = [("d%", str(number % 3), tags.get(datasets.CONTEXT))]
    return World(store, list(run_search.search(store, view="all", limit=1000).items), inputs)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("world")
    store = memory_store(folder)
    if request.param == "postgresql":
        import psycopg

        server = request.getfixturevalue("postgres")
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS search_world")
            connection.execute("CREATE DATABASE search_world")
        store.database.close()
        store = replace(store, database=open_database(f"{server}/search_world"))
        migrations.prepare(store.database)
    yield _fill(store)
    store.database.close()


def value_of(world: World, run: Run, field: Field) -> str | int | float | None:
    if field.kind == "metric":
        return run.metrics.get(field.key)
    if field.kind == "parameter":
        return to_text(run.parameters[field.key])[0] if field.key in run.parameters else None
    if field.kind == "tag":
        return run.tags.get(field.key)
    times = {"start_time": run.started, "end_time": run.ended}
    if field.key in times:
        moment = times[field.key]
        return None if moment is None else round(moment.timestamp() * 1e6)
    return {
        "run_id": run.id, "run_name": run.name or run.step or run.id, "status": STATUS[run.state],
        "user_id": run.actor, "step": run.step,
        "seconds": run.seconds, "experiment": run.experiment,
    }[field.key]  # fmt: skip


def answer(world: World, run: Run, tree: Tree) -> bool:
    """The tree evaluated in plain Python."""
    match tree:
        case And(parts):
            return all(answer(world, run, part) for part in parts)
        case Or(parts):
            return any(answer(world, run, part) for part in parts)
        case Not(part):
            return not answer(world, run, part)
        case Comparison(field):
            if field.kind != "dataset":
                return matches(tree, value_of(world, run, field))
            place = ("name", "digest", "context").index(field.key)
            values = [one[place] for one in world.inputs.get(run.id, [])]
            if tree.operator == "IS NULL":
                return all(value is None for value in values)
            return any(matches(tree, value) for value in values)


texts = st.sampled_from(TEXTS) | st.text("xX%_[]*?\\'\"é", max_size=4)
patterns = texts | st.sampled_from(["%", "x%", "%X", "_", "%_b", "[%", "%*", "\\%"])
numbers = st.sampled_from([one for one in NUMBERS if one == one]) | st.integers(-3, 3) | st.floats(allow_nan=False)
times = st.integers(1767225600000, 1767225600030) | st.sampled_from([1767225600001.5, "2026-01-01", "2026-01-01T05:00"])
TEXT_FIELDS = [Field(kind, key, "text") for kind in ("parameter", "tag") for key in KEYS] + [
    Field("attribute", key, "text") for key in ("run_name", "status", "user_id", "step", "experiment", "run_id")
] + [Field("dataset", key, "text") for key in ("name", "digest", "context")]  # fmt: skip
NUMBER_FIELDS = [Field("metric", key, "number") for key in KEYS] + [Field("attribute", "seconds", "number")]
TIME_FIELDS = [Field("attribute", key, "time") for key in ("start_time", "end_time")]


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    field = draw(st.sampled_from(TEXT_FIELDS + NUMBER_FIELDS + TIME_FIELDS))
    if draw(st.integers(0, 9)) == 0:
        return Comparison(field, draw(st.sampled_from(["IS NULL", "IS NOT NULL"])))
    values: st.SearchStrategy[str | int | float] = {
        "text": texts | st.sampled_from(["FINISHED", "ada", "s", "train"]),
        "number": numbers,
        "time": times,
    }[field.type]  # type: ignore[assignment]
    if draw(st.integers(0, 3)) == 0:
        many = draw(st.lists(values, min_size=1, max_size=3))
        return Comparison(field, draw(st.sampled_from(["IN", "NOT IN"])), tuple(many))
    if field.type != "text":
        return Comparison(field, draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">="])), draw(values))
    operator = draw(st.sampled_from(["=", "!=", "LIKE", "ILIKE", "NOT LIKE", "NOT ILIKE"]))
    return Comparison(field, operator, draw(patterns if "LIKE" in operator else values))


def _trees(children: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    several = st.lists(children, min_size=2, max_size=3).map(tuple)
    return several.map(And) | several.map(Or) | children.map(Not)


trees: st.SearchStrategy[Tree] = st.recursive(comparisons(), _trees, max_leaves=6)
quiet = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@quiet
@given(tree=trees)
def test_a_tree_written_out_is_read_back_as_the_same(tree: Tree) -> None:
    assert parse(write(tree), VOCABULARY) == _flat(tree)


def _flat(tree: Tree) -> Tree:
    match tree:
        case And(parts):
            return And(tuple(_flat(part) for part in parts))
        case Or(parts):
            return Or(tuple(_flat(part) for part in parts))
        case Not(part):
            return Not(_flat(part))
        case _:
            return tree


@quiet
@given(tree=trees)
def test_the_database_finds_what_plain_python_finds(world: World, tree: Tree) -> None:
    expected = [run.id for run in world.runs if answer(world, run, tree)]
    found = run_search.search(world.store, filter=write(tree), limit=1000, columns=Columns((), (), ()))
    assert [run.id for run in found.items] == expected
    assert run_search.count(world.store, filter=write(tree)) == len(expected)


orders = st.lists(
    st.tuples(
        st.sampled_from(
            [f"metrics.{key}" for key in ("a", "`b c`")]
            + ["params.a", "tags.`b c`", "start_time", "end_time", "run_name", "step", "status", "seconds"]
        ),
        st.sampled_from(["ASC", "DESC"]),
    ),
    max_size=3,
    unique_by=lambda pair: pair[0],
)


def _expected_order(world: World, order: list[tuple[str, str]]) -> list[str]:
    found = sorted(world.runs, key=lambda run: (-run.started.timestamp(), run.id))
    for key, direction in reversed(order):
        (field,) = (one.field for one in parse_order(key, VOCABULARY))
        values = {run.id: value_of(world, run, field) for run in found}

        def rank(run: Run, values: dict[str, str | int | float | None] = values) -> int:
            value = values[run.id]
            return 2 if value is None else 1 if value != value else 0

        cut = 250 if field.kind in ("parameter", "tag") else None  # beyond it texts count as equal

        def head(run: Run, values: dict[str, str | int | float | None] = values, cut: int | None = cut) -> object:
            value = values[run.id]
            return value[:cut] if isinstance(value, str) else value

        good = sorted((run for run in found if rank(run) == 0), key=head, reverse=direction == "DESC")  # type: ignore[arg-type]
        found = good + [run for run in found if rank(run) == 1] + [run for run in found if rank(run) == 2]
    return [run.id for run in found]


@quiet
@given(order=orders, size=st.integers(3, 50))
def test_pages_follow_the_order_and_lose_nothing(world: World, order: list[tuple[str, str]], size: int) -> None:
    texts = [f"{key} {direction}" for key, direction in order]
    found: list[str] = []
    token = None
    while True:
        page = run_search.search(world.store, order_by=texts, limit=size, token=token, columns=Columns((), (), ()))
        found += [run.id for run in page.items]
        token = page.token
        if token is None:
            break
        assert len(page.items) == size
    assert found == _expected_order(world, order)


def test_pages_are_stable_while_runs_arrive(store: Store) -> None:
    for number in range(6):
        runs.start(store, "p", experiment="e", name=str(number), capture=False)
    first = run_search.search(store, projects=["p"], limit=3)
    late = runs.start(store, "p", experiment="e", name="late", capture=False)
    second = run_search.search(store, projects=["p"], limit=3, token=first.token)
    assert [run.name for run in (*first.items, *second.items)] == ["5", "4", "3", "2", "1", "0"]
    assert second.token is None
    assert run_search.search(store, projects=["p"], limit=1).items[0].id == late.id
    for token in ("x", "é", first.token + "A" if first.token else ""):
        with pytest.raises(BadInput):
            run_search.search(store, projects=["p"], limit=3, token=token)
    with pytest.raises(BadInput, match="another search"):
        run_search.search(store, projects=["q"], limit=3, token=first.token)


def test_only_the_columns_asked_for_are_fetched(store: Store) -> None:
    run = runs.start(store, "p", experiment="e", parameters={"a": 1, "b": 2}, tags={"t": "1"}, capture=False)
    runs.log_metrics(store, run.id, {"m": 1.0, "n": 2.0})
    (found,) = run_search.search(store, columns=Columns(metrics=["n", "none"], parameters=(), tags=None)).items
    assert (found.metrics, found.parameters, found.tags) == ({"n": 2.0}, {}, {"t": "1"})


def test_runs_without_the_metric_are_told_apart(store: Store) -> None:
    for value in (1.0, None, math.nan):
        run = runs.start(store, "p", experiment="e", capture=False)
        if value is not None:
            runs.log_metrics(store, run.id, {"m": value})
    with store.database.read() as tx:
        found = run_search.find(tx, ["p"], None, "", ["metrics.m DESC"], "active", 10, None)
    assert len(found.keys) == 3
    assert found.without == {found.keys[-1]}


def test_views_show_active_deleted_or_all(store: Store) -> None:
    kept, gone = (runs.start(store, "p", experiment="e", capture=False) for _ in range(2))
    runs.delete(store, gone.id)
    names = {view: {run.id for run in run_search.search(store, view=view).items} for view in run_search.VIEWS}
    assert names == {"active": {kept.id}, "deleted": {gone.id}, "all": {kept.id, gone.id}}
    with pytest.raises(BadInput, match="view"):
        run_search.search(store, view="hidden")
