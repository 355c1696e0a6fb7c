from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from instar.core.errors import MalformedRequest, NotFound
from instar.core.ids import call_id
from instar.core.store import Store
from instar.data.tables import TableVersion, write_version
from instar.operate import promotion
from instar.operate.outcomes import Item, post
from instar.operate.trace import backward, forward
from instar.operate.trace_records import Hop
from instar.release.registry import ModelVersion
from instar.testing import NOON
from instar.train import runs

KEY = ["carrier", "flight"]
Tables = dict[str, TableVersion]


@pytest.fixture
def tables(store: Store) -> Tables:
    """Bronze flights and weather, silver flights, and two gold tables: one that carries the key and one that does not."""
    arrived = pl.DataFrame(
        {
            "carrier": ["UA", "AA", "UA"], "flight": [1, 2, 3], "distance": [100, 200, 300],
            "_source": ["march"] * 3, "_row": [0, 1, 2],
        }
    )  # fmt: skip
    flights = write_version(store, "flights", "flights", "bronze", arrived, key=KEY)
    weather_rows = pl.DataFrame({"carrier": ["UA", "AA"], "temp": [20.0, 30.0]})
    weather = write_version(store, "flights", "weather", "bronze", weather_rows, key=["carrier"])
    clean_rows = arrived.drop("_source", "_row")
    clean = write_version(store, "flights", "clean", "silver", clean_rows, key=KEY, inputs=[flights.id])
    # The features of UA 3 were joined with another observation than the one with its key.
    gold_rows = clean_rows.with_columns(id=pl.format("{}-{}", *KEY), temp=pl.Series([20.0, 30.0, 25.0]), late=None)
    features = write_version(store, "flights", "features", "gold", gold_rows, key=["id"], inputs=[clean.id, weather.id])
    bare = write_version(
        store, "flights", "bare", "gold", gold_rows.select("id", "distance"), key=["id"], inputs=[clean.id]
    )
    return {"flights": flights, "weather": weather, "clean": clean, "features": features, "bare": bare}


@pytest.fixture
def champion(store: Store, tables: Tables, make_version: Callable[..., ModelVersion]) -> ModelVersion:
    run = runs.start(
        store,
        "flights",
        experiment="delay",
        step="delay_trees",
        parameters={"leaves": 15},
        inputs=[tables["features"].id],
    )
    version = make_version("trees", run=run.id, fitted_on=tables["features"].id)
    promotion.promote(store, "flights", "delay", version, "the first", publish=lambda _store: None)
    return version


def call(log: Any, entity: str | None, table: TableVersion | None) -> str:
    name: str = log.add(NOON, {1: 0.9}, entity=entity, table_version=table.id if table else None)
    return name


def one(hop: Hop, kind: str, name: str = "") -> Hop:
    (found,) = [inner for inner in hop.walk() if inner.kind == kind and inner.name.startswith(name)]
    return found


def below(hop: Hop, relation: str) -> Hop:
    (found,) = [inner for inner in hop.hops if inner.relation == relation]
    return found


def test_a_prediction_is_followed_to_its_rows_of_bronze(
    store: Store, log: Any, tables: Tables, champion: ModelVersion
) -> None:
    features = below(backward(store, log, "flights", call(log, "UA-1", tables["features"])), "decided on")
    assert (features.name, features.precision, features.facts["row"]["distance"]) == ("features@1", "row", 100)
    clean, weather = one(features, "table version", "clean"), one(features, "table version", "weather")
    assert (clean.precision, clean.facts["row"]) == ("row", {"carrier": "UA", "flight": 1, "distance": 100})
    assert (weather.precision, weather.facts["row"]["temp"]) == ("row", 20.0)
    bronze = one(clean, "table version", "flights")
    assert (bronze.precision, bronze.facts["source"], bronze.facts["row"]["_row"]) == ("row", "march", 0)


def test_rows_that_disagree_are_not_named(store: Store, log: Any, tables: Tables, champion: ModelVersion) -> None:
    features = below(backward(store, log, "flights", call(log, "UA-3", tables["features"])), "decided on")
    weather = one(features, "table version", "weather")
    assert (weather.precision, "row" in weather.facts) == ("version only", False)
    assert "other values" in weather.facts["why"]
    assert one(features, "table version", "clean").precision == "row"


def test_a_row_without_the_key_is_not_followed_and_the_hop_says_why(
    store: Store, log: Any, tables: Tables, champion: ModelVersion
) -> None:
    bare = below(backward(store, log, "flights", call(log, "UA-1", tables["bare"])), "decided on")
    assert bare.precision == "row"
    clean = one(bare, "table version", "clean")
    assert (clean.precision, clean.facts["why"]) == (
        "version only", "the row does not carry carrier, part of the key of clean",
    )  # fmt: skip
    assert one(clean, "table version", "flights").precision == "version only"


@pytest.mark.parametrize(("entity", "why"), [("UA-9", "no rows"), (None, "names no entity")])
def test_an_entity_that_is_not_there_gives_the_version_only(
    store: Store, log: Any, tables: Tables, champion: ModelVersion, entity: str | None, why: str
) -> None:
    features = below(backward(store, log, "flights", call(log, entity, tables["features"])), "decided on")
    assert features.precision == "version only"
    assert why in features.facts["why"]


def test_who_asked_what_answered_and_who_allowed_it(
    store: Store, log: Any, tables: Tables, champion: ModelVersion
) -> None:
    name = call(log, None, None)
    post(store, "flights", [Item(name, False)], log.seen)
    found = backward(store, log, "flights", name)
    assert (found.kind, found.precision, found.facts["decision"]) == ("prediction", "row", 1)
    assert below(found, "became").facts["value"] == 0.0
    asked = below(found, "asked in")
    assert (asked.precision, asked.facts["caller"], asked.facts["at"]) == ("row", "airline", NOON)
    policy = one(asked, "policy revision")
    assert (policy.precision, policy.facts["cause"], policy.facts["champion"]) == ("version only", "the first", 1)
    version = below(found, "answered by")
    assert version.name == "delay@1"
    assert one(version, "approval").facts["approved_by"] == "policy automatic"
    run = one(version, "run")
    assert (run.facts["parameters"], run.facts["actor"]) == ({"leaves": 15}, "ada")
    fitted = below(run, "was fitted on")
    assert {hop.precision for hop in fitted.walk()} == {"version only"}
    assert one(fitted, "table version", "flights").name == "flights@1"
    assert below(found, "decided on").name == "as sent by the caller"
    json.dumps(found.as_json(), allow_nan=False)


def test_a_failed_call_has_a_trace_too(store: Store, log: Any, tables: Tables, champion: ModelVersion) -> None:
    found = backward(store, log, "flights", log.add(NOON, {}, version=1, status=503))
    assert below(found, "was routed to, and failed in").name == "delay@1"
    assert below(found, "asked in").facts["status"] == 503


def test_forward_from_a_table_version_to_the_predictions_it_touched(
    store: Store, log: Any, tables: Tables, champion: ModelVersion
) -> None:
    names = [call(log, "UA-1", tables["features"]) for _ in range(3)]
    log.add(NOON + timedelta(hours=1), {1: 0.1}, version=1)
    log.add(NOON + timedelta(hours=2), {2: 0.1, 1: 0.2}, version=2)  # delay@1 only watched
    found = forward(store, log, "flights", "flights@1")
    assert [hop.name for hop in found.walk() if hop.kind == "table version"] == [
        "flights@1", "clean@1", "features@1", "bare@1",
    ]  # fmt: skip
    run = one(found, "run")
    assert run.relation == "was read by"
    json.dumps(found.as_json(), allow_nan=False)

    answered = one(forward(store, log, "flights", champion.bundle), "predictions")
    assert (answered.facts["predictions"], answered.facts["shadow_predictions"]) == (4, 1)
    assert answered.facts["first_at"] == NOON
    assert set(answered.facts["examples"]) <= {row["prediction"] for row in log.rows}
    decided = one(forward(store, log, "flights", "features@1"), "predictions")
    assert (decided.facts["predictions"], decided.relation) == (3, "was decided on by")
    assert decided.facts["examples"][0] == names[0]


def test_backward_from_any_record(store: Store, log: Any, tables: Tables, champion: ModelVersion) -> None:
    assert one(backward(store, log, "flights", "delay@1"), "bundle").id == champion.bundle
    walked = backward(store, log, "flights", "features@1")
    assert walked.name == "features@1"
    assert sorted(hop.name for hop in walked.hops) == ["clean@1", "weather@1"]
    assert one(walked, "table version", "clean").hops[0].name == "flights@1"
    assert backward(store, log, "flights", tables["clean"].id).name == "clean@1"


def test_unknown_names(store: Store, log: Any) -> None:
    with pytest.raises(MalformedRequest):
        backward(store, log, "flights", "call_1/0")
    with pytest.raises(NotFound):
        backward(store, log, "flights", call_id(1, 2, 3) + "/0")
    with pytest.raises(NotFound, match="nothing on the record"):
        backward(store, log, "flights", "nothing@1")
    for walk in (backward, forward):
        for name in ("mver_nothing", "run_nothing", "b3:" + 64 * "0", "b3:nothing"):
            with pytest.raises(NotFound, match="nothing is on the record"):
                walk(store, log, "flights", name)
