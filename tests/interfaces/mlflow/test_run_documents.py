"""Whole runs are made of rows and of JSON that the database writes: they say what the records say, on both databases."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instar.app import open_store
from instar.core.database import microseconds
from instar.core.store import Store
from instar.interfaces.mlflow.frame import ENCODER
from instar.interfaces.mlflow.run_documents import NAME_TAG, whole
from instar.train import histories, run_records, runs

ODD = {
    **{f"control {code}": f"a{chr(code)}b" for code in range(1, 32)},
    "quotes": "\"'`\\\"", "slash/dot.key": "\\u0041", "emoji 🚀": "🚀é\u2028\x7f", "json": '[{"key": 1}]', "empty": "",
    "null": "null", "long": "é" * 600 + '"', "exactly one head": "x" * 250, "one more": "y" * 251, "number": 0.1, "none": None,
    "true": True, "list": [1, "a"], "per cent": "%s %% ?",
}  # fmt: skip


@pytest.fixture(params=["sqlite", "postgresql"])
def any_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("store")
    url = request.getfixturevalue("postgres_database") if request.param == "postgresql" else None
    store = open_store(folder, url or f"sqlite:///{folder / 'instar.db'}")
    yield store
    store.database.close()


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=260)
numbers = st.floats() | st.integers(-5, 5).map(float)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(
    logged=st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(["a", "b", "lr", "x y"]), texts, max_size=4),
            st.dictionaries(st.sampled_from(["t", NAME_TAG, "u"]), texts, max_size=3),
            st.dictionaries(st.sampled_from(["m", "n"]), numbers, max_size=2),
        ),
        max_size=4,
    )
)
def test_a_page_says_what_the_records_say(
    any_store: Store, logged: list[tuple[dict[str, str], dict[str, str], dict[str, float]]]
) -> None:
    made = []
    for parameters, tags, metrics in logged:
        run = runs.start(any_store, "p", experiment="e", parameters=parameters, tags=tags, capture=False)
        runs.log(any_store, run.id, points=[(name, value, 3, 1_700_000_000_000_999) for name, value in metrics.items()])
        made.append(run.key)
    assert shown(any_store, made[::-1]) == expected(any_store, made[::-1])


def test_no_text_is_too_odd(any_store: Store) -> None:
    run = runs.start(any_store, "p", experiment="e", parameters=ODD, capture=False)
    runs.log(any_store, run.id, tags={key: str(value) for key, value in ODD.items()})
    named = runs.start(any_store, "p", experiment="e", tags={NAME_TAG: "of its own", "z": '"'}, capture=False)
    assert shown(any_store, [named.key, run.key]) == expected(any_store, [named.key, run.key])
    tags = {one["key"]: one["value"] for one in shown(any_store, [run.key])[0]["data"]["tags"]}
    assert tags == {key: str(value) for key, value in ODD.items()} | {NAME_TAG: run.id}


def test_runs_that_are_gone_are_left_out_and_none_are_no_question(any_store: Store) -> None:
    run = runs.start(any_store, "p", experiment="e", capture=False)
    assert shown(any_store, []) == []
    assert [one["info"]["run_id"] for one in shown(any_store, [run.key + 7, run.key])] == [run.id]


def shown(store: Store, keys: list[int]) -> list[Any]:
    found: list[Any] = json.loads(ENCODER.encode(whole(store, keys)))
    return found


def expected(store: Store, keys: list[int]) -> list[Any]:
    """The same from records, one value at a time."""
    with store.database.read() as tx:
        records = run_records.load(tx, keys)
    return [_document(store, run) for run in records]


def _document(store: Store, run: run_records.Run) -> dict[str, Any]:
    name = run.name or run.tags.get(NAME_TAG) or run.step or run.id
    metrics = []
    for key in sorted(run.metrics):
        newest = histories.metric_history(store, run.id, key)[-1]
        metrics.append(
            {
                "key": key,
                "value": _number(newest.value),
                "timestamp": microseconds(newest.at) // 1000,
                "step": newest.step,
            }
        )
    tags = [{"key": key, "value": value} for key, value in run.tags.items()]
    if NAME_TAG not in run.tags:
        tags.append({"key": NAME_TAG, "value": name})
    data = {
        "metrics": metrics,
        "params": [{"key": key, "value": _text(value)} for key, value in run.parameters.items()],
        "tags": tags,
    }
    return {
        "info": {
            "run_id": run.id, "run_uuid": run.id, "run_name": name, "experiment_id": run.experiment_id, "user_id": run.actor,
            "status": run.state.upper(), "start_time": microseconds(run.started) // 1000,
            "artifact_uri": f"mlflow-artifacts:/{run.experiment_id}/{run.id}/artifacts", "lifecycle_stage": run.lifecycle,
        },
        "data": {kind: rows for kind, rows in data.items() if rows},
        "inputs": {}, "outputs": {},
    }  # fmt: skip


def _number(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, list) else str(value)
