"""Signed addresses: of one content, in ranges, until a moment; nobody reads or writes anything else with them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient

from instar.core.clock import SystemClock
from instar.core.store import Store
from instar.train import artifacts, bundles, logged_models
from instar.train.bundle import load_manifest
from tests.evaluate.bundles import make_bundle
from tests.interfaces.mlflow.conftest import Api

PROXY = "/api/2.0/mlflow-artifacts"
BODY = bytes(range(256)) * 40


@pytest.fixture
def run(api: Api) -> str:
    return api.run()


@pytest.fixture
def root(http: TestClient, api: Api, run: str) -> str:
    uri: str = api.get("runs/get", run_id=run)["run"]["info"]["artifact_uri"]
    root = uri.removeprefix("mlflow-artifacts:/")
    http.put(f"{PROXY}/artifacts/{root}/plots/ü & b.bin", content=BODY)
    return root


@pytest.fixture
def url(http: TestClient, root: str) -> str:
    reply = http.get(f"{PROXY}/presigned/{root}/plots/ü & b.bin").json()
    assert reply["file_size"] == len(BODY)
    url: str = reply["url"]
    return url


def test_ranges_are_of_one_content_even_when_another_takes_its_place(http: TestClient, root: str, url: str) -> None:
    first = http.get(url, headers={"range": "bytes=0-99"})
    assert (first.status_code, first.content) == (206, BODY[:100])
    http.put(f"{PROXY}/artifacts/{root}/plots/ü & b.bin", content=b"another")
    rest = http.get(url, headers={"range": f"bytes=100-{len(BODY) - 1}"})
    assert first.content + rest.content == BODY
    assert http.get(url).content == BODY
    assert http.get(url).headers["content-disposition"] == "attachment"


def test_nothing_else_is_read_or_written_with_it(
    http: TestClient, api: Api, url: str, run: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = artifacts.log_artifact(store, run, "secret", b"secret")
    blob = url.partition("blob=")[2].partition("&")[0]
    until = url.partition("until=")[2].partition("&")[0]
    for wrong in (
        url.replace(blob, secret.replace(":", "%3A")), url.replace("plots", "plot"), url.partition("&")[0],
        url.replace(f"until={until}", f"until={int(until) + 1}"), url.replace("/projects/default/", "/projects/other/"),
    ):  # fmt: skip
        assert wrong != url
        assert http.get(wrong).status_code == 403, wrong
    assert http.put(url, content=b"x").status_code == 403
    monkeypatch.setattr(SystemClock, "wall", lambda self: datetime.fromtimestamp(int(until), UTC))
    assert http.get(url).status_code == 403


def test_a_file_is_put_where_it_was_allowed_and_nowhere_else(
    http: TestClient, api: Api, run: str, store: Store
) -> None:
    model = logged_models.create(store, "default", experiment="exp_1", name="model")
    for owner in ({"run_id": run}, {"model_id": model.id}):
        url = api.post("artifacts/presigned-upload-url", path="a/b.txt", **owner)["presigned_url"]
        assert http.put(url, content=b"text").json() == {}
        assert artifacts.open(store, next(iter(owner.values())), "a/b.txt").read_bytes() == b"text"
        assert http.put(url.replace("b.txt", "c.txt"), content=b"x").status_code == 403
        assert http.get(url).status_code == 403
    for wrong in (
        {},
        {"run_id": run, "model_id": model.id},
        {"run_id": run, "path": "../x"},
        {"run_id": run, "path": ""},
    ):
        message = {"path": "a", **wrong}
        assert api.refused("artifacts/presigned-upload-url", **message)[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert api.refused("artifacts/presigned-upload-url", run_id="nobody", path="a")[0] == 404
    url = api.post("artifacts/presigned-upload-url", path="late.txt", run_id=run)["presigned_url"]
    api.post("runs/delete", run_id=run)
    assert http.put(url, content=b"x").status_code == 400


def test_what_is_not_there_has_no_address(http: TestClient, api: Api, root: str, run: str) -> None:
    for path in ("nothing", "plots", ""):
        assert http.get(f"{PROXY}/presigned/{root}/{path}").status_code == 404
    assert http.get(f"{PROXY}/presigned/{root}/../x").status_code in (400, 404)
    assert api.refused("artifacts/presigned-download-url", run_id=run, path="nothing")[0] == 404
    assert api.refused("artifacts/presigned-download-url", path="a")[:2] == (400, "INVALID_PARAMETER_VALUE")
    for seconds in (0, -1, 604_801, "soon"):
        refused = api.refused(
            "artifacts/presigned-download-url", run_id=run, path="plots/ü & b.bin", expiration=seconds
        )
        assert refused[:2] == (400, "INVALID_PARAMETER_VALUE")


def test_files_of_a_bundle(http: TestClient, store: Store) -> None:
    digest = make_bundle(store)
    manifest = load_manifest(store.blobs, digest)
    store.database.write(lambda tx: bundles.record(tx, store, "default", digest, manifest, "fit"), durable=True)
    root = f"bundles/{digest.removeprefix('b3:')}"
    listed = http.get(f"{PROXY}/artifacts", params={"path": root}).json()["files"]
    seen = set()
    for one in listed:
        if one.get("is_dir"):
            continue
        told = http.get(f"{PROXY}/presigned/{root}/{one['path']}").json()
        seen.add("file_size" in told)
        assert http.get(told["url"]).content == http.get(f"{PROXY}/artifacts/{root}/{one['path']}").content
    assert False in seen  # MLmodel is made when somebody asks
    assert http.get(f"{PROXY}/presigned/{root}/nothing").status_code == 404
    other = {"x-mlflow-workspace": "elsewhere"}
    assert http.get(f"{PROXY}/presigned/{root}/MLmodel", headers=other).status_code == 404


def test_the_key_is_the_servers_alone(url: str, store: Store) -> None:
    key = store.folder / "secrets" / "addresses"
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(key.read_bytes()) == 32
    assert [one.name for one in key.parent.iterdir()] == ["addresses"]
