"""Bad input over MLflow's protocol: refused with a code and the place, never a failure of ours, and nothing of it is kept."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from instar.core.lineage import lineage_edge
from instar.core.store import Store
from instar.interfaces.mlflow import routes
from instar.train import logged_models

from .conftest import API, Api

NOW = 1_700_000_000_000
INVALID, ABSENT = "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"
WINES = {"name": "wines", "digest": "7f3a", "source_type": "local", "source": "wines.csv"}


def good_batch(**changes: Any) -> dict[str, Any]:
    """A batch of one metric, one parameter and one tag, with some of it changed."""
    return {
        "metrics": [{"key": "auc", "value": 0.9, "timestamp": NOW, "step": 0}],
        "params": [{"key": "depth", "value": "3"}],
        "tags": [{"key": "team", "value": "ships"}],
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metrics": [{"key": "a/../b", "value": 1, "timestamp": NOW}]}, "lead elsewhere"),
        ({"metrics": [{"key": "/etc/passwd", "value": 1, "timestamp": NOW}]}, "lead elsewhere"),
        ({"metrics": [{"key": "..", "value": 1, "timestamp": NOW}]}, "lead elsewhere"),
        ({"metrics": [{"key": "nul\0", "value": 1, "timestamp": NOW}]}, "control characters"),
        ({"metrics": [{"key": "line\n", "value": 1, "timestamp": NOW}]}, "control characters"),
        ({"metrics": [{"key": "k" * 251, "value": 1, "timestamp": NOW}]}, "maximum length of 250"),
        ({"metrics": [{"key": "", "value": 1, "timestamp": NOW}]}, "metrics[0].key"),
        ({"metrics": [{"value": 1, "timestamp": NOW}]}, "metrics[0].key"),
        ({"metrics": [{"key": "a", "timestamp": NOW}]}, "metrics[0].value"),
        ({"metrics": [{"key": "a", "value": "much", "timestamp": NOW}]}, "metrics[0].value"),
        ({"metrics": [{"key": "a", "value": True, "timestamp": NOW}]}, "metrics[0].value"),
        ({"metrics": [{"key": "a", "value": [1], "timestamp": NOW}]}, "metrics[0].value"),
        ({"metrics": [{"key": "a", "value": 1}]}, "metrics[0].timestamp"),
        ({"metrics": [{"key": "a", "value": 1, "timestamp": -1}]}, "nonnegative"),
        ({"metrics": [{"key": "a", "value": 1, "timestamp": 2**62}]}, "nonnegative"),
        ({"metrics": [{"key": "a", "value": 1, "timestamp": 2**63}]}, "metrics[0].timestamp"),
        ({"metrics": [{"key": "a", "value": 1, "timestamp": NOW, "step": 2**63}]}, "metrics[0].step"),
        ({"metrics": [{"key": "a", "value": 1, "timestamp": NOW, "step": 0.5}]}, "metrics[0].step"),
        ({"metrics": {"key": "a"}}, "metrics"),
        ({"metrics": [3]}, "metrics[0]"),
        ({"metrics": [{"key": f"m{n}", "value": 1, "timestamp": NOW} for n in range(1001)]}, "at most 1000 metrics"),
        ({"metrics": [{"key": f"m{n}", "value": 1, "timestamp": NOW} for n in range(999)]}, "at most 1000 metrics, params"),
        ({"params": [{"key": f"p{n}", "value": "1"} for n in range(101)]}, "at most 100 params"),
        ({"tags": [{"key": f"t{n}", "value": "1"} for n in range(101)]}, "at most 100 tags"),
        ({"params": [{"key": "p", "value": "1"}, {"key": "p", "value": "2"}]}, "Duplicate parameter keys"),
        ({"params": [{"key": "p", "value": 1}]}, "params[0].value"),
        ({"params": [{"key": "p", "value": "nul\0"}]}, "NUL"),
        ({"params": [{"value": "1"}]}, "params[0].key"),
        ({"tags": [{"key": "t", "value": "x" * 10_000_000}]}, "maximum length"),
        ({"tags": [{"key": "t\0", "value": "x"}]}, "control characters"),
        ({"tags": [{"key": "mlflow.runName", "value": "n" * 501}]}, "name of a run is too long"),
    ],
)  # fmt: skip
def test_of_a_bad_batch_nothing_is_kept(api: Api, changes: dict[str, Any], words: str) -> None:
    run = api.run(run_name="steady")
    status, code, message = api.refused("runs/log-batch", run_id=run, **good_batch(**changes))
    assert (status, code) == (400, INVALID)
    assert words in message
    assert len(message) < 2000
    assert api.data(run) == {"metrics": {}, "params": {}, "tags": {"mlflow.runName": "steady"}}


@pytest.mark.parametrize(
    "key", ["train/loss", "a b", "f1.score", "größe", "loss 📉", "a:b-c_d", "x" * 250, "'quoted\"", "100%"]
)
def test_odd_keys_that_can_be_kept_are_kept_whole(api: Api, key: str) -> None:
    run = api.run()
    api.post("runs/log-metric", run_id=run, key=key, value=1.5, timestamp=NOW)
    api.post("runs/log-parameter", run_id=run, key=key, value=key)
    api.post("runs/set-tag", run_id=run, key=key, value=key)
    found = api.data(run)
    assert (found["metrics"][key], found["params"][key], found["tags"][key]) == (1.5, key, key)
    (point,) = api.get("metrics/get-history", run_id=run, metric_key=key)["metrics"]
    assert point == {"key": key, "value": 1.5, "timestamp": NOW, "step": 0}


@pytest.mark.parametrize(
    "value",
    ["", " ", "x" * 100_000, '{"json": [1, "ü"]}', "line\nbreak\ttab", "🚀"],
    ids=lambda value: f"{value[:6]!r}",
)
def test_values_come_back_as_they_were_sent(api: Api, value: str) -> None:
    run = api.run()
    api.post("runs/log-batch", run_id=run, params=[{"key": "p", "value": value}], tags=[{"key": "t", "value": value}])
    found = api.data(run)
    assert (found["params"]["p"], found["tags"]["t"]) == (value, value)


def test_a_run_may_begin_with_many_tags(api: Api) -> None:
    run = api.run(tags=[{"key": f"t{n}", "value": "v"} for n in range(999)])
    assert len(api.data(run)["tags"]) == 1000  # and its name


def test_a_tag_of_ten_megabytes_is_refused(api: Api) -> None:
    run = api.run()
    status, code, message = api.refused("runs/set-tag", run_id=run, key="t", value="x" * 10_000_000)
    assert (status, code) == (400, INVALID)
    assert "maximum length" in message


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("runs/log-metric", {"key": "a", "value": 1, "timestamp": NOW}),
        ("runs/log-parameter", {"key": "a", "value": "1"}),
        ("runs/log-batch", {"params": [{"key": "a", "value": "1"}]}),
        ("runs/log-batch", {}),
        ("runs/set-tag", {"key": "a", "value": "1"}),
        ("runs/delete-tag", {"key": "a"}),
        ("runs/update", {"status": "FAILED"}),
        ("runs/delete", {}),
        ("runs/restore", {}),
        ("runs/log-inputs", {}),
        ("runs/outputs", {}),
        ("runs/log-model", {"model_json": '{"artifact_path":"","flavors":{},"utc_time_created":"","run_id":""}'}),
    ],
)
def test_a_run_that_is_not_there_is_said_so(api: Api, path: str, message: dict[str, Any]) -> None:
    real = api.run()
    # The beginning of an id is a help for people at a terminal; a program that sends it has a bug.
    for id in ("nothing", "run_" + "0" * 26, real[:-1], "../" + real, "nul\0", "x" * 5000):
        status, code, said = api.refused(path, run_id=id, **message)
        assert (status, code) == (404, ABSENT), said
        assert len(said) < 300
    assert api.refused(path, **message)[1] == INVALID


def test_a_run_of_another_project_is_not_there(api: Api, http: TestClient) -> None:
    run = api.run()
    told = {"X-MLFLOW-WORKSPACE": "ships"}
    for path, message in (
        ("runs/log-metric", {"key": "a", "value": 1, "timestamp": NOW}),
        ("runs/set-tag", {"key": "a", "value": "1"}),
        ("runs/update", {"status": "FAILED"}),
        ("runs/delete", {}),
    ):
        reply = http.post(API + path, json={"run_id": run, **message}, headers=told)
        assert (reply.status_code, reply.json()["error_code"]) == (404, ABSENT)
    assert http.get(API + "runs/get", params={"run_id": run}, headers=told).status_code == 404
    assert api.get("runs/get", run_id=run)["run"]["info"]["status"] == "RUNNING"


def test_an_experiment_of_another_project_is_not_there(api: Api, http: TestClient) -> None:
    made = api.post("experiments/create", name="trees")["experiment_id"]
    told = {"X-MLFLOW-WORKSPACE": "ships"}
    for path in ("experiments/delete", "experiments/restore", "runs/create"):
        reply = http.post(API + path, json={"experiment_id": made}, headers=told)
        assert (reply.status_code, reply.json()["error_code"]) == (404, ABSENT)
    assert http.post(API + "experiments/create", json={"name": "trees"}, headers=told).status_code == 200


def test_a_client_may_log_to_a_run_that_has_ended_and_open_it_again(api: Api) -> None:
    run = api.run()
    for status in ("FINISHED", "FAILED", 5):  # two clients end it, and they do not agree: the later wins
        api.post("runs/update", run_id=run, status=status, end_time=NOW + 5)
    assert api.get("runs/get", run_id=run)["run"]["info"]["status"] == "KILLED"
    api.post("runs/log-metric", run_id=run, key="late", value=1, timestamp=NOW)
    assert api.data(run)["metrics"] == {"late": 1}
    info = api.post("runs/update", run_id=run, status="RUNNING")["run_info"]
    assert info["status"] == "RUNNING"
    assert "end_time" not in info


@pytest.mark.parametrize(
    "message", [{"status": "DONE"}, {"status": 9}, {"status": [1]}, {"end_time": -5}, {"end_time": 2**62}]
)
def test_a_wrong_end_of_a_run_changes_nothing(api: Api, message: dict[str, Any]) -> None:
    run = api.run()
    before = api.get("runs/get", run_id=run)
    assert api.refused("runs/update", run_id=run, **message)[:2] == (400, INVALID)
    assert api.get("runs/get", run_id=run) == before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("experiments/create", {"name": "n" * 501}),
        ("experiments/create", {"name": "nul\0"}),
        ("experiments/create", {"name": ["a"]}),
        ("experiments/create", {"name": "a", "tags": [{"key": "k", "value": "v" * 20_001}]}),
        ("experiments/create", {"name": "a", "tags": [{"value": "v"}]}),
        ("experiments/create", {"name": "a", "tags": "k=v"}),
        ("experiments/update", {"experiment_id": "0", "new_name": ""}),
        ("experiments/set-experiment-tag", {"experiment_id": "0", "key": "a\0"}),
        ("experiments/set-experiment-tag", {"experiment_id": "0"}),
        ("runs/create", {"experiment_id": "0", "run_name": "n" * 501}),
        ("runs/create", {"experiment_id": "0", "run_name": "nul\0"}),
        ("runs/create", {"experiment_id": "0", "start_time": -1}),
        ("runs/create", {"experiment_id": "0", "start_time": "noon"}),
        ("runs/create", {"experiment_id": "0", "tags": [{"key": f"t{n}", "value": ""} for n in range(1001)]}),
        ("runs/log-inputs", {"datasets": [{"dataset": {**WINES, "name": "n" * 501}}]}),
        ("runs/log-inputs", {"datasets": [{"dataset": {**WINES, "source": "x" * 65_536}}]}),
        ("runs/log-inputs", {"datasets": [{"dataset": {**WINES, "name": "n\0"}}]}),
        ("runs/log-inputs", {"datasets": [{"dataset": {**WINES, "source_type": ""}}]}),
        ("runs/log-inputs", {"datasets": [{"dataset": WINES, "tags": [{"key": "", "value": ""}]}]}),
        ("runs/outputs", {"models": [{"model_id": ""}]}),
    ],
)  # fmt: skip
def test_other_wrong_messages_are_refused(api: Api, path: str, message: dict[str, Any]) -> None:
    if path.startswith("runs/log") or path == "runs/outputs":
        message = {"run_id": api.run(), **message}
    assert api.refused(path, **message)[:2] == (400, INVALID)


def test_a_model_that_is_not_there_is_said_so_and_nothing_is_kept(api: Api) -> None:
    run = api.run()
    metric = {"key": "auc", "value": 0.9, "timestamp": NOW, "model_id": "m-" + "0" * 32}
    assert api.refused("runs/log-batch", run_id=run, metrics=[metric])[:2] == (404, ABSENT)
    assert api.refused("runs/outputs", run_id=run, models=[{"model_id": "m-nothing"}])[:2] == (404, ABSENT)
    assert api.data(run)["metrics"] == {}


@pytest.mark.parametrize(
    "models", [[{"model_id": "m-" + "0" * 32}], [{"model_id": "{model}"}, {"model_id": "m-nothing"}]]
)
def test_of_inputs_with_a_model_that_is_not_there_nothing_is_kept(api: Api, store: Store, models: list[Any]) -> None:
    run = api.run()
    experiment = api.get("runs/get", run_id=run)["run"]["info"]["experiment_id"]
    made = logged_models.create(store, "default", experiment=experiment, name="model")
    message = {
        "datasets": [{"dataset": WINES}],
        "models": [{"model_id": one["model_id"].format(model=made.id)} for one in models],
    }
    assert api.refused("runs/log-inputs", run_id=run, **message)[:2] == (404, ABSENT)
    assert api.get("runs/get", run_id=run)["run"]["inputs"] == {}
    assert api.post("experiments/search-datasets", experiment_ids=[experiment]) == {"dataset_summaries": []}
    with store.database.read() as tx:
        assert tx.execute(sa.select(lineage_edge).where(lineage_edge.c.target == run)).all() == []
    api.post("runs/log-inputs", run_id=run, **{**message, "models": [{"model_id": made.id}]})
    inputs = api.get("runs/get", run_id=run)["run"]["inputs"]
    assert (len(inputs["dataset_inputs"]), inputs["model_inputs"]) == (1, [{"model_id": made.id}])


def test_a_model_of_another_project_is_not_there(api: Api, store: Store) -> None:
    run = api.run()
    other = logged_models.create(store, "ships", experiment="exp_1", name="model").id
    metric = {"key": "auc", "value": 0.9, "timestamp": NOW, "model_id": other}
    assert api.refused("runs/log-batch", run_id=run, metrics=[metric])[:2] == (404, ABSENT)
    assert api.refused("runs/log-metric", run_id=run, **metric)[:2] == (404, ABSENT)
    for path in ("runs/outputs", "runs/log-inputs"):
        assert api.refused(path, run_id=run, models=[{"model_id": other}])[:2] == (404, ABSENT)
    assert api.data(run)["metrics"] == {}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted({field for operation in routes.all_operations() for field in operation.message.__struct_fields__})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    operation=st.sampled_from([one for one in routes.all_operations() if one.root == "mlflow" and not one.upload]),
    message=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5),
)
def test_no_message_at_all_is_a_failure_of_ours(http: TestClient, operation: Any, message: dict[str, Any]) -> None:
    address = API + operation.path
    if operation.method == "GET":
        reply = http.get(address, params={key: str(value) for key, value in message.items()})
    else:
        reply = http.request(operation.method, address, json=message)
    # 501 is what MLflow's own server says of a store of artifacts that cannot do what was asked.
    assert reply.status_code in (200, 400, 403, 404, 409, 501), (operation.path, message, reply.text)
    if reply.status_code != 200:
        assert set(reply.json()) == {"error_code", "message"}
