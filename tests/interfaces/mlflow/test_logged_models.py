"""Logged models of MLflow 3 from their first file to a bundle, and found again by what is known of them."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from instar.core import lineage
from instar.core.store import Store
from instar.train import logged_models
from instar.train.bundle import load_manifest
from tests.interfaces.mlflow.conftest import Api
from tests.interfaces.mlflow.test_registry import MLMODEL, PROXY, patch


def create(api: Api, **about: Any) -> dict[str, Any]:
    made: dict[str, Any] = api.post("logged-models", experiment_id="0", **about)["model"]
    return made


def fill(http: TestClient, model: dict[str, Any], files: dict[str, bytes]) -> None:
    root = model["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
    for name, body in files.items():
        assert http.put(f"{PROXY}/{root}/{name}", content=body).status_code == 200


def test_from_open_to_bundle(api: Api, http: TestClient, store: Store) -> None:
    run = api.run()
    model = create(
        api, name="trees", source_run_id=run, model_type="classifier", params=[{"key": "depth", "value": "3"}],
        tags=[{"key": "a", "value": "b"}],
    )  # fmt: skip
    info = model["info"]
    assert (info["status"], info["source_run_id"]) == ("LOGGED_MODEL_PENDING", run)
    assert len(info["model_id"]) == 34
    assert info["model_id"].startswith("m-")
    fill(http, model, {"MLmodel": MLMODEL, "model.onnx": b"graph", "code/mine.py": b"x = 1"})
    path = f"logged-models/{info['model_id']}"
    listed = api.get(f"{path}/artifacts/directories")
    assert [one["path"] for one in listed["files"]] == ["MLmodel", "code", "model.onnx"]
    assert (
        http.get(f"/api/2.0/mlflow/{path}/artifacts/files", params={"artifact_file_path": "MLmodel"}).content == MLMODEL
    )
    closed = patch(http, path, status="LOGGED_MODEL_READY")["model"]["info"]
    assert closed["status"] == "LOGGED_MODEL_READY"
    assert patch(http, path, status=2)["model"]["info"]["status"] == "LOGGED_MODEL_READY"  # a retried request
    kept = logged_models.get(store, info["model_id"])
    manifest = load_manifest(store.blobs, kept.bundle or "")
    assert manifest.folder is not None
    assert (manifest.run, manifest.parameters, manifest.folder.flavors) == (
        run,
        {"depth": "3"},
        ("onnx", "python_function"),
    )
    with store.database.read() as tx:
        assert {edge.source for edge in lineage.up(tx, kept.bundle or "")} == {run, kept.id}
    api.post("registered-models/create", name="delay")
    version = api.post("model-versions/create", name="delay", source=f"models:/{kept.id}", model_id=kept.id)[
        "model_version"
    ]
    assert (version["model_id"], version["run_id"]) == (kept.id, run)
    again = api.get(path)["model"]["info"]
    assert again["registrations"] == [{"name": "delay", "version": "1"}]
    assert {one["key"] for one in again["tags"]} == {"a", "mlflow.modelVersions"}


def test_what_cannot_be_read_is_ready_all_the_same_and_says_why(api: Api, http: TestClient) -> None:
    for text, why in (
        (b"\x00:", "cannot be read"),
        (b"a: &x 1\nb: *x", "aliases"),
        (b"[]", "no mapping"),
        (b"{}", "flavours"),
    ):
        model = create(api, name="odd")
        fill(http, model, {"MLmodel": text})
        info = patch(http, f"logged-models/{model['info']['model_id']}", status="LOGGED_MODEL_READY")["model"]["info"]
        assert info["status"] == "LOGGED_MODEL_READY"
        assert why in info["status_message"]


def test_tags_params_failure_and_deletion(api: Api, http: TestClient) -> None:
    model = create(api)  # a name is made up
    assert model["info"]["name"]
    path = f"logged-models/{model['info']['model_id']}"
    patch(http, f"{path}/tags", tags=[{"key": "x/y", "value": "1"}, {"key": "z", "value": "2"}])
    assert http.delete(f"/api/2.0/mlflow/{path}/tags/x/y").status_code == 200
    assert http.delete(f"/api/2.0/mlflow/{path}/tags/x/y").status_code == 404
    api.post(f"{path}/params", params=[{"key": "p", "value": "1"}])
    api.post(f"{path}/params", params=[{"key": "p", "value": "1"}])
    assert api.refused(f"{path}/params", params=[{"key": "q", "value": "1"}, {"key": "p", "value": "2"}])[0] == 400
    found = api.get(path)["model"]
    assert (found["data"]["params"], found["info"]["tags"]) == (
        [{"key": "p", "value": "1"}],
        [{"key": "z", "value": "2"}],
    )
    assert api.refused(path, "PATCH", status="LOGGED_MODEL_PENDING")[1] == "INVALID_PARAMETER_VALUE"
    assert (
        patch(http, path, status="LOGGED_MODEL_UPLOAD_FAILED")["model"]["info"]["status"]
        == "LOGGED_MODEL_UPLOAD_FAILED"
    )
    assert http.delete(f"/api/2.0/mlflow/{path}").status_code == 200
    for method in ("GET", "PATCH"):
        assert api.refused(path, method, status="LOGGED_MODEL_READY")[1] == "RESOURCE_DOES_NOT_EXIST"
    for name in ("a/b", "a:b", "a.b", "a%b", "'", " "):
        assert api.refused("logged-models", experiment_id="0", name=name)[1] == "INVALID_PARAMETER_VALUE"
    assert api.refused("logged-models", experiment_id="exp_nobody", name="a")[1] == "RESOURCE_DOES_NOT_EXIST"
    assert (
        api.refused("logged-models", experiment_id="0", name="a", source_run_id="run_x")[1] == "RESOURCE_DOES_NOT_EXIST"
    )


@pytest.fixture
def three(api: Api) -> list[str]:
    """Three models with a metric each, measured on different data sets."""
    run = api.run()
    found = []
    for number, name in enumerate(("first", "second", "third")):
        id = create(api, name=name, source_run_id=run, params=[{"key": "depth", "value": str(number)}])["info"][
            "model_id"
        ]
        for step, value in enumerate((0.1, 0.5 + number / 10)):
            api.post(
                "runs/log-metric", run_id=run, key="auc", value=value, timestamp=1000 + step, step=step, model_id=id,
                dataset_name="test" if number else "train", dataset_digest="d",
            )  # fmt: skip
        found.append(id)
    return found


def test_search(api: Api, three: list[str]) -> None:
    def names(**asked: Any) -> list[str]:
        found = api.post("logged-models/search", experiment_ids=["0"], **asked)
        return [one["info"]["name"] for one in found.get("models", [])]

    assert names() == ["third", "second", "first"]
    assert names(filter="metrics.auc >= 0.6 AND params.depth != '2'") == ["second"]
    assert names(filter="metrics.auc > 0.2", datasets=[{"dataset_name": "train"}]) == ["first"]
    assert names(filter="metrics.auc = 0.1") == []  # the latest value counts
    assert names(order_by=[{"field_name": "metrics.auc", "ascending": False}]) == ["third", "second", "first"]
    assert names(order_by=[{"field_name": "metrics.auc", "dataset_name": "test"}]) == ["second", "third", "first"]
    assert names(filter="name ILIKE 'F%' OR status = 'READY'") == ["first"]
    page = api.post("logged-models/search", experiment_ids=["0"], max_results=2)
    rest = api.post("logged-models/search", experiment_ids=["0"], max_results=2, page_token=page["next_page_token"])
    assert [one["info"]["name"] for one in rest["models"]] == ["first"]
    metric = rest["models"][0]["data"]["metrics"]
    assert [(one["key"], one["value"], one["step"], one["dataset_name"]) for one in metric] == [
        ("auc", 0.5, 1, "train")
    ]
    assert api.refused("logged-models/search", experiment_ids=[])[1] == "INVALID_PARAMETER_VALUE"
    assert api.refused("logged-models/search", experiment_ids=["0"], filter="params.")[1] == "INVALID_PARAMETER_VALUE"


def test_a_metric_of_a_model_that_is_not_there_keeps_nothing(api: Api) -> None:
    run = api.run()
    status, _, _ = api.refused("runs/log-metric", run_id=run, key="m", value=1, timestamp=1, model_id="m-" + "0" * 32)
    assert status == 404
    assert api.data(run)["metrics"] == {}


def test_long_values_are_kept_whole_and_deleting_again_is_nothing(api: Api, http: TestClient) -> None:
    """A client that logs a model with a long parameter, or that got no answer, must not fail for it."""
    long = "x" * 100_000
    info = create(api, name="big", params=[{"key": "p", "value": long}], tags=[{"key": "t", "value": long}])["info"]
    path = f"logged-models/{info['model_id']}"
    found = api.get(path)["model"]
    assert (found["data"]["params"][0]["value"], found["info"]["tags"][0]["value"]) == (long, long)
    assert api.refused(f"{path}/params", params=[{"key": "q", "value": long + "x"}])[:2] == (
        400,
        "INVALID_PARAMETER_VALUE",
    )
    for _ in range(2):
        assert http.delete(f"/api/2.0/mlflow/{path}").json() == {}
    assert api.refused(path, "GET")[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    search = {"experiment_ids": [info["experiment_id"]], "max_results": 5000}
    assert api.post("logged-models/search", **search) == {}
