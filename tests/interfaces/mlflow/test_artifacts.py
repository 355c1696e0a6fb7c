"""Artifacts through MLflow's proxy: what is sent comes back, and no path leads anywhere else."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from instar.core.store import Store
from instar.release import scan_files
from instar.train import artifacts, bundles, logged_models
from instar.train.bundle import load_manifest
from tests.evaluate.bundles import make_bundle
from tests.interfaces.mlflow.conftest import API, Api

PROXY = "/api/2.0/mlflow-artifacts/artifacts"


@pytest.fixture
def run(api: Api) -> str:
    return api.run()


@pytest.fixture
def root(api: Api, run: str) -> str:
    uri: str = api.get("runs/get", run_id=run)["run"]["info"]["artifact_uri"]
    return uri.removeprefix("mlflow-artifacts:/")


def names(http: TestClient, path: str) -> list[tuple[str, bool]]:
    reply = http.get(PROXY, params={"path": path})
    assert reply.status_code == 200, reply.text
    return [(one["path"], one.get("is_dir", False)) for one in reply.json().get("files", [])]


def test_a_file_comes_back_and_is_listed(http: TestClient, api: Api, run: str, root: str, store: Store) -> None:
    body = bytes(range(256)) * 5000
    for name in ("plots/über & co.bin", "plots/deep/er/x.txt", "notes.md"):
        reply = http.put(f"{PROXY}/{root}/{name}", content=body)
        assert (reply.status_code, reply.json()) == (200, {})
        back = http.get(f"{PROXY}/{root}/{name}")
        assert back.content == body
    assert names(http, root) == [("notes.md", False), ("plots", True)]
    assert names(http, f"{root}/plots") == [("deep", True), ("über & co.bin", False)]
    assert names(http, f"{root}/notes.md") == []
    listed = http.get("/api/2.0/mlflow/artifacts/list", params={"run_id": run, "path": "plots"}).json()
    assert [one["path"] for one in listed["files"]] == ["plots/deep", "plots/über & co.bin"]
    assert listed["files"][1]["file_size"] == len(body)
    assert listed["root_uri"] == f"mlflow-artifacts:/{root}"
    got = http.get("/get-artifact", params={"run_uuid": run, "path": "notes.md"})
    assert got.content == body
    assert got.headers["content-disposition"] == "attachment"
    assert len(list(store.blobs.digests())) == 1  # one content, kept once


def test_a_path_again_replaces_and_deleting_takes_the_folder(http: TestClient, root: str) -> None:
    for body in (b"one", b"two"):
        http.put(f"{PROXY}/{root}/a/b.txt", content=body)
    assert http.get(f"{PROXY}/{root}/a/b.txt").content == b"two"
    http.put(f"{PROXY}/{root}/a/c.txt", content=b"")
    assert http.get(f"{PROXY}/{root}/a/c.txt").content == b""
    assert http.put(f"{PROXY}/{root}/a", content=b"x").status_code == 400  # it is a folder
    assert http.delete(f"{PROXY}/{root}/a").status_code == 200
    assert names(http, root) == []
    assert http.delete(f"{PROXY}/{root}/a").status_code == 404
    assert http.get(f"{PROXY}/{root}/a/b.txt").status_code == 404


@pytest.mark.parametrize(
    "way",
    [
        "..%2f..%2fsecret", "%2e%2e/%2e%2e/secret", "a/%2e%2e/%2e%2e/b", "%252e%252e%252fsecret", "a%5c..%5cb", "a%00b",
        "a/%2e/b", "%25252e%25252e/x", "C%3A/windows", "%2fetc/passwd", "a%0ab", "a//b", "%" + "25" * 12 + "2e",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_no_path_leads_out(http: TestClient, root: str, way: str, method: str, store: Store) -> None:
    reply = http.request(method, f"{PROXY}/{root}/{way}", content=b"x" if method == "PUT" else None)
    assert reply.status_code in (400, 404), reply.text
    if method == "PUT":
        assert reply.status_code == 400, reply.text
        assert reply.json()["error_code"] in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
        assert list(store.blobs.digests()) == []
    assert http.get(PROXY, params={"path": f"{root}/../../x"}).status_code == 400


@pytest.mark.parametrize(
    "path", ["", "x", "x/y", "exp/run_nobody/artifacts/a", "exp/models/m-0/artifacts/a", "exp/other/a"]
)
def test_places_that_are_not_there(http: TestClient, path: str) -> None:
    reply = http.put(f"{PROXY}/{path}", content=b"x")
    assert reply.status_code in (400, 404)
    assert reply.json()["error_code"]


def test_a_deleted_run_takes_no_files(http: TestClient, api: Api, run: str, root: str) -> None:
    api.post("runs/delete", run_id=run)
    reply = http.put(f"{PROXY}/{root}/a", content=b"x")
    assert (reply.status_code, reply.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("never",))


def test_an_unsafe_pickle_is_kept_and_flagged(http: TestClient, root: str, run: str, store: Store) -> None:
    for name, thing in (("good.pkl", {"a": 1}), ("bad.pkl", Evil()), ("hidden.txt", Evil())):
        http.put(f"{PROXY}/{root}/{name}", content=pickle.dumps(thing))
    found = {one.path: one.blob or "" for one in artifacts.all_artifacts(store, run)}
    flagged = scan_files.findings(store, list(found.values()))
    assert set(flagged) == {found["bad.pkl"]} == {found["hidden.txt"]}
    assert "builtins.print" in flagged[found["bad.pkl"]].refused


def test_files_of_a_logged_model(http: TestClient, api: Api, store: Store) -> None:
    model = logged_models.create(store, "default", experiment="exp_1", name="model")
    root = f"exp_1/models/{model.id}/artifacts"
    http.put(f"{PROXY}/{root}/MLmodel", content=b"flavors: {}")
    assert names(http, root) == [("MLmodel", False)]
    logged_models.delete(store, model.id)
    assert http.put(f"{PROXY}/{root}/more", content=b"x").status_code == 404


def test_another_project_sees_nothing(http: TestClient, root: str) -> None:
    http.put(f"{PROXY}/{root}/a", content=b"x")
    other = http.get(f"{PROXY}/{root}/a", headers={"x-mlflow-workspace": "elsewhere"})
    assert other.status_code == 404


def test_a_bundle_is_a_folder_that_nobody_writes_to(http: TestClient, store: Store) -> None:
    digest = make_bundle(store)
    manifest = load_manifest(store.blobs, digest)
    store.database.write(lambda tx: bundles.record(tx, store, "default", digest, manifest, "fit"), durable=True)
    root = f"bundles/{digest.removeprefix('b3:')}"
    other = {"x-mlflow-workspace": "elsewhere"}
    assert http.get(f"{PROXY}/{root}/MLmodel", headers=other).status_code == 404
    http.post(f"{API}registered-models/create", json={"name": "mine"}, headers=other)
    taken = http.post(
        f"{API}model-versions/create", json={"name": "mine", "source": f"mlflow-artifacts:/{root}"}, headers=other
    )
    assert (taken.status_code, "no model version with the files" in taken.text) == (404, True)
    assert {"MLmodel", "manifest.json", "requirements.txt"} <= {name for name, _ in names(http, root)}
    text = http.get(f"{PROXY}/{root}/MLmodel").text
    assert "instar.serve.pyfunc" in text
    assert http.put(f"{PROXY}/{root}/MLmodel", content=b"x").status_code == 403
    assert http.delete(f"{PROXY}/{root}/MLmodel").status_code == 403
    assert http.get(f"{PROXY}/{root}/nothing").status_code == 404
    assert http.get(f"{PROXY}/bundles/{'0' * 64}/MLmodel").status_code == 404


def test_a_full_disk_loses_nothing(http: TestClient, root: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from instar.core.errors import StoreFull

    http.put(f"{PROXY}/{root}/a", content=b"before")

    def full(path: Path) -> str:
        raise StoreFull("a file cannot be kept: No space left on device", subject="store")

    monkeypatch.setattr(store.blobs, "adopt", full)
    reply = http.put(f"{PROXY}/{root}/a", content=b"after")
    assert (reply.status_code, reply.json()["error_code"]) == (507, "RESOURCE_LIMIT_EXCEEDED")
    assert http.get(f"{PROXY}/{root}/a").content == b"before"
    assert list((store.folder / "uploads").iterdir()) == []
