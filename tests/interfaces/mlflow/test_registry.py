"""Registered models, versions and names over MLflow's protocol: the same registry as Instar's own, in MLflow's words."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from instar.core.store import Store
from instar.release import registered_models, registry
from instar.serve.traffic import routing
from instar.train.bundle import load_manifest
from tests.evaluate.bundles import make_bundle
from tests.interfaces.mlflow.conftest import Api

PROXY = "/api/2.0/mlflow-artifacts/artifacts"
MLMODEL = b"""flavors:
  onnx: {data: model.onnx}
  python_function: {loader_module: mlflow.onnx, data: model.onnx, python_version: 3.11.7}
signature:
  inputs: '[{"type": "double", "name": "a", "required": true}]'
  outputs: '[{"type": "double", "required": true}]'
"""


@pytest.fixture
def logged(api: Api, http: TestClient) -> str:
    """A run with a model's folder among its artifacts; returns the address of the folder."""
    uri: str = api.get("runs/get", run_id=api.run())["run"]["info"]["artifact_uri"]
    root = uri.removeprefix("mlflow-artifacts:/")
    for name, body in (
        ("MLmodel", MLMODEL),
        ("model.onnx", b"graph"),
        ("requirements.txt", b"onnx==1.17.0\nother>=1\n"),
    ):
        assert http.put(f"{PROXY}/{root}/model/{name}", content=body).status_code == 200
    return f"{uri}/model"


def register(api: Api, source: str, name: str = "delay", **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = api.post("model-versions/create", name=name, source=source, **more)["model_version"]
    return found


def delete(http: TestClient, path: str, **message: Any) -> tuple[int, Any]:
    reply = http.request("DELETE", f"/api/2.0/mlflow/{path}", json=message)
    return reply.status_code, reply.json()


def patch(http: TestClient, path: str, **message: Any) -> Any:
    reply = http.request("PATCH", f"/api/2.0/mlflow/{path}", json=message)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_a_model_is_made_described_tagged_and_given_up(api: Api, http: TestClient) -> None:
    made = api.post(
        "registered-models/create", name="delay", description="Late?", tags=[{"key": "team", "value": "ops"}]
    )
    assert made["registered_model"]["name"] == "delay"
    assert api.refused("registered-models/create", name="delay")[:2] == (400, "RESOURCE_ALREADY_EXISTS")
    for name in ("a/b", "a:b", "", " ", "x" * 201):
        assert api.refused("registered-models/create", name=name)[1] == "INVALID_PARAMETER_VALUE"
    api.post("registered-models/set-tag", name="delay", key="tier", value="gold")
    patch(http, "registered-models/update", name="delay", description="Will it be late?")
    found = api.get("registered-models/get", name="delay")["registered_model"]
    assert found["description"] == "Will it be late?"
    assert found["tags"] == [{"key": "team", "value": "ops"}, {"key": "tier", "value": "gold"}]
    assert delete(http, "registered-models/delete-tag", name="delay", key="tier") == (200, {})
    assert delete(http, "registered-models/delete-tag", name="delay", key="tier") == (200, {})
    api.post("registered-models/rename", name="delay", new_name="delay")  # is nothing
    api.post("registered-models/rename", name="delay", new_name="late")
    assert api.refused("registered-models/get", "GET", name="delay")[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    assert delete(http, "registered-models/delete", name="late") == (200, {})
    api.post("registered-models/create", name="late")  # the name is free again


def test_a_version_is_the_bundle_of_its_folder(api: Api, http: TestClient, logged: str, store: Store) -> None:
    api.post("registered-models/create", name="delay")
    run = logged.split("/")[2]
    made = register(api, logged, run_id=run, description="first", tags=[{"key": "a", "value": "b"}])
    assert (made["name"], made["version"], made["status"], made["source"]) == ("delay", "1", "READY", logged)
    assert (made["run_id"], made["current_stage"], made["description"]) == (run, "None", "first")
    version = registry.find(store, "default", "delay@1")
    manifest = load_manifest(store.blobs, version.bundle)
    assert manifest.folder is not None
    assert set(manifest.folder.files) == {"MLmodel", "model.onnx", "requirements.txt"}
    assert (manifest.folder.served_as, manifest.folder.unservable, [one.name for one in manifest.inputs]) == (
        "onnx",
        "",
        ["a"],
    )
    # What is uploaded later to the same place changes the run, not the version.
    http.put(f"{PROXY}/{logged.removeprefix('mlflow-artifacts:/')}/model.onnx", content=b"another graph")
    uri = api.get("model-versions/get-download-uri", name="delay", version="1")["artifact_uri"]
    assert http.get(f"{PROXY}/{uri.removeprefix('mlflow-artifacts:/')}/model.onnx").content == b"graph"
    got = http.get("/model-versions/get-artifact", params={"name": "delay", "version": "1", "path": "MLmodel"})
    assert got.status_code in (200, 404)
    again = register(api, logged)
    assert (again["version"], registry.find(store, "default", "delay@2").bundle == version.bundle) == ("2", False)
    assert (
        register(api, f"runs:/{run}/model")["version"] == "3"
    )  # the same folder again is another version all the same
    assert registry.find(store, "default", "delay@3").bundle == registry.find(store, "default", "delay@2").bundle
    copied = register(api, "models:/delay/1")
    assert registry.find(store, "default", f"delay@{copied['version']}").bundle == version.bundle


@pytest.mark.parametrize(
    "source",
    ["s3://bucket/model", "file:///etc", "/etc/passwd", "models:/nobody/1", "models:/m-00000000000000000000000000000000",
     "mlflow-artifacts:/../../x", "runs:/run_nobody/model", "dbfs:/x", "models:/delay/Nostage", "http://elsewhere/x"],
)  # fmt: skip
def test_sources_that_are_not_here(api: Api, source: str) -> None:
    api.post("registered-models/create", name="delay")
    status, code, _ = api.refused("model-versions/create", name="delay", source=source)
    assert status in (400, 404)
    assert code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
    assert api.get("model-versions/search").get("model_versions", []) == []


def test_a_folder_without_mlmodel_is_kept_and_cannot_be_served(api: Api, store: Store) -> None:
    api.post("registered-models/create", name="odd")
    run = api.run()
    register(api, f"runs:/{run}/nothing", "odd")
    folder = load_manifest(store.blobs, registry.find(store, "default", "odd@1").bundle).folder
    assert folder is not None
    assert folder.unservable == "its folder has no MLmodel"


def test_aliases_and_stages(api: Api, http: TestClient, logged: str) -> None:
    api.post("registered-models/create", name="delay")
    for _ in range(3):
        register(api, logged)
    api.post("registered-models/alias", name="delay", alias="Blue-1", version="2")
    api.post("registered-models/alias", name="delay", alias="champion", version="1")  # no endpoint answers: free
    assert api.get("registered-models/alias", name="delay", alias="Blue-1")["model_version"]["version"] == "2"
    assert api.get("registered-models/alias", name="delay", alias="champion")["model_version"]["version"] == "1"
    assert api.get("model-versions/get", name="delay", version="2")["model_version"]["aliases"] == ["Blue-1"]
    assert (
        api.refused("registered-models/alias", name="delay", alias="latest", version="1")[1]
        == "INVALID_PARAMETER_VALUE"
    )
    assert api.refused("registered-models/alias", name="delay", alias="v2", version="1")[1] == "INVALID_PARAMETER_VALUE"
    assert api.refused("registered-models/alias", name="delay", alias="x", version="9")[1] == "RESOURCE_DOES_NOT_EXIST"
    assert delete(http, "registered-models/alias", name="delay", alias="Blue-1") == (200, {})
    assert api.refused("registered-models/alias", "GET", name="delay", alias="Blue-1")[1] == "INVALID_PARAMETER_VALUE"

    for number in ("1", "2"):
        api.post("model-versions/transition-stage", name="delay", version=number, stage="production",
                 archive_existing_versions=True)  # fmt: skip
    stages = {one["version"]: one["current_stage"] for one in api.get("model-versions/search")["model_versions"]}
    assert stages == {"1": "Archived", "2": "Production", "3": "None"}
    newest = api.post("registered-models/get-latest-versions", name="delay", stages=["Production"])["model_versions"]
    assert [one["version"] for one in newest] == ["2"]
    refused = api.refused("model-versions/transition-stage", name="delay", version="1", stage="Best")
    assert refused[1] == "INVALID_PARAMETER_VALUE"


def test_search_speaks_the_language_of_all_searches(api: Api, logged: str) -> None:
    for name, team in (("delay", "ops"), ("price", "sales"), ("delay-2", "ops")):
        api.post("registered-models/create", name=name, tags=[{"key": "team", "value": team}])
        register(api, logged, name, tags=[{"key": "kind", "value": name[:5]}])
    register(api, logged, "price")

    def models(**asked: Any) -> list[str]:
        return [one["name"] for one in api.get("registered-models/search", **asked).get("registered_models", [])]

    def versions(**asked: Any) -> list[str]:
        found = api.get("model-versions/search", **asked).get("model_versions", [])
        return [f"{one['name']}/{one['version']}" for one in found]

    assert models() == ["delay", "delay-2", "price"]
    assert models(filter="name LIKE 'delay%'", order_by="name DESC") == ["delay-2", "delay"]
    assert models(filter="name = 'price' AND tag.`mlflow.prompt.is_prompt` != 'true'") == ["price"]  # as clients ask
    assert models(filter="tag.`mlflow.prompt.is_prompt` = 'true'") == []
    assert models(filter="tags.team = 'ops' OR name = 'price'", max_results=2) == ["delay", "delay-2"]
    first = api.get("registered-models/search", max_results=2)
    rest = api.get("registered-models/search", max_results=2, page_token=first["next_page_token"])
    assert [one["name"] for one in rest["registered_models"]] == ["price"]
    assert "next_page_token" not in rest
    assert versions(filter="name='price'", order_by="version_number DESC") == ["price/2", "price/1"]
    assert versions(filter="tags.kind = 'delay'", order_by="name ASC") == ["delay/1", "delay-2/1"]
    assert api.refused("model-versions/search", "GET", filter="nonsense ~ 3")[1] == "INVALID_PARAMETER_VALUE"
    assert api.refused("registered-models/search", "GET", max_results=5000)[1] == "INVALID_PARAMETER_VALUE"


def test_deleted_versions_keep_their_numbers_to_themselves(
    api: Api, http: TestClient, logged: str, store: Store
) -> None:
    api.post("registered-models/create", name="delay")
    register(api, logged)
    register(api, logged)
    api.post("registered-models/alias", name="delay", alias="stable", version="2")
    assert delete(http, "model-versions/delete", name="delay", version="2") == (200, {})
    assert api.refused("model-versions/get", "GET", name="delay", version="2")[1] == "RESOURCE_DOES_NOT_EXIST"
    assert registry.aliases(store, "default", "delay") == {}
    assert register(api, logged)["version"] == "3"
    delete(http, "registered-models/delete", name="delay")
    api.post("registered-models/create", name="delay")
    assert register(api, logged)["version"] == "1"


def test_instars_own_versions_are_here_and_names_of_an_endpoint_are_read_only(
    api: Api, http: TestClient, store: Store, logged: str
) -> None:
    for noise in (0.0, 0.1):
        registry.register(store, "default", "delay", bundle=make_bundle(store, noise=noise), origin="recipe")
    first = registry.find(store, "default", "delay@1")
    routing.set_policy(store, "default", "delay", champion=1, bundles={1: first.bundle}, cause="test")
    found = api.get("registered-models/get", name="delay")["registered_model"]
    assert found["aliases"] == [{"alias": "champion", "version": "1"}]
    champion = api.get("registered-models/alias", name="delay", alias="champion")["model_version"]
    assert (champion["version"], champion["aliases"]) == ("1", ["champion"])
    for name in ("champion", "challenger"):
        status, code, message = api.refused("registered-models/alias", name="delay", alias=name, version="2")
        assert (status, code) == (403, "PERMISSION_DENIED")
        assert "instar promote delay@2" in message
        assert delete(http, "registered-models/alias", name="delay", alias=name)[0] == 403
    assert (
        api.refused("registered-models/alias", "GET", name="delay", alias="challenger")[1] == "INVALID_PARAMETER_VALUE"
    )
    api.post("registered-models/alias", name="delay", alias="stable", version="2")
    assert delete(http, "model-versions/delete", name="delay", version="1")[0] == 403
    assert delete(http, "model-versions/delete", name="delay", version="2") == (200, {})
    assert delete(http, "registered-models/delete", name="delay")[0] == 403
    assert api.refused("registered-models/rename", name="delay", new_name="other")[:2] == (403, "PERMISSION_DENIED")
    # Another project's model of that name is free: no endpoint of that project answers.
    registered_models.create(store, "elsewhere", "delay")
    reply = http.get("/projects/elsewhere/api/2.0/mlflow/registered-models/get", params={"name": "delay"})
    assert "aliases" not in reply.json()["registered_model"]


def test_prompts_are_declined(api: Api) -> None:
    tags = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
    assert api.refused("registered-models/create", name="p", tags=tags)[:2] == (501, "NOT_IMPLEMENTED")
