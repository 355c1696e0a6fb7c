"""Models and artifacts by the unmodified client: logged, loaded back, registered, named, found, approved and served."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from instar.app import open_app
from instar.core.store import Store
from instar.operate import promotion
from instar.release import approval, registry
from tests.clients.conftest import project
from tests.evaluate.bundles import make_bundle
from tests.journeys import driving
from tests.journeys.driving import Server, instar, looked_at, looked_up, up, wait_for

os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true"
QUICK: dict[str, Any] = {"pip_requirements": []}  # else the client loads each model once more, in a process of its own
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of its own, since its server has settings of its own."""
    return project(tmp_path_factory.mktemp("trains"))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """A server that may call webhooks on this machine."""
    plain = driving.environment

    def environment(**changes: str) -> dict[str, str]:
        return plain(INSTAR_WEBHOOK_TARGETS="any", **changes)

    driving.environment = environment
    try:
        with up(folder) as server:
            yield server
    finally:
        driving.environment = plain


@pytest.fixture
def client(tracking: str, request: pytest.FixtureRequest) -> MlflowClient:
    mlflow.set_experiment(request.node.name)
    return MlflowClient()


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    with open_app(folder) as app:
        yield app.store


def data() -> tuple[pd.DataFrame, Any, Any]:
    random = np.random.default_rng(3)
    rows = pd.DataFrame({"distance": random.uniform(100, 3000, 300), "hour": random.integers(0, 24, 300)})
    number = rows.distance / 100 + rows.hour
    return rows, (number > number.median()).astype(int), number


def test_files_up_and_down(client: MlflowClient, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(500):
        place = tree / f"part {number % 7}" / f"é{number}.bin"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(bytes([number % 256]) * number)
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(tree), "tree")
        mlflow.log_text("one", "notes/a.txt")
        mlflow.log_dict({"a": 1}, "notes/b.json")
    back = Path(
        mlflow.artifacts.download_artifacts(
            run_id=run.info.run_id, artifact_path="tree", dst_path=str(tmp_path / "back")
        )
    )
    found = {str(one.relative_to(back)): one.read_bytes() for one in back.rglob("*") if one.is_file()}
    assert found == {str(one.relative_to(tree)): one.read_bytes() for one in tree.rglob("*") if one.is_file()}
    assert [one.path for one in client.list_artifacts(run.info.run_id, "notes")] == ["notes/a.txt", "notes/b.json"]
    assert mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/notes/b.json") == {"a": 1}
    for path in ("../x", "/x", "a/../../b"):
        with pytest.raises(MlflowException):
            client.log_text(run.info.run_id, "x", path)


def test_a_gigabyte_streams_through_in_bounded_memory(client: MlflowClient, server: Server, tmp_path: Path) -> None:
    big = tmp_path / "big.bin"
    with big.open("wb") as file:
        file.truncate(1024 * MEGABYTE)
        file.seek(700 * MEGABYTE)
        file.write(b"somewhere in the middle")
    processes = psutil.Process(server.process.pid).children(recursive=True)
    before = sum(one.memory_info().rss for one in processes)
    most, stop = [before], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            most[0] = max(most[0], sum(one.memory_info().rss for one in processes if one.is_running()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(big))
    back = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path="big.bin", dst_path=str(tmp_path / "back")
    )
    stop.set()
    watcher.join()
    with open(back, "rb") as file:
        file.seek(700 * MEGABYTE)
        assert file.read(23) == b"somewhere in the middle"
        assert file.seek(0, os.SEEK_END) == 1024 * MEGABYTE
    assert most[0] - before < 200 * MEGABYTE, f"{(most[0] - before) / MEGABYTE:.0f} MB more"
    client.delete_run(run.info.run_id)


def logged() -> list[tuple[str, Any]]:
    """Name of the flavour, and what logs a model of it and returns its address and answers."""

    def sklearn_skops() -> tuple[Any, Any]:
        rows, late, _ = data()
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, late)
        about = mlflow.sklearn.log_model(
            model, name="skops", signature=infer_signature(rows, model.predict(rows)), **QUICK
        )
        return about, model.predict(rows)

    def sklearn_pickle() -> tuple[Any, Any]:
        rows, late, _ = data()
        model = RandomForestClassifier(5).fit(rows, late)
        about = mlflow.sklearn.log_model(
            model, name="pickled", serialization_format="cloudpickle", signature=infer_signature(rows, model.predict(rows)),
            **QUICK,
        )  # fmt: skip
        return about, model.predict(rows)

    def xgboost() -> tuple[Any, Any]:
        from xgboost import XGBClassifier

        rows, late, _ = data()
        model = XGBClassifier(n_estimators=5).fit(rows, late)
        about = mlflow.xgboost.log_model(
            model, name="xgb", signature=infer_signature(rows, model.predict(rows)), **QUICK
        )
        return about, model.predict(rows)

    def lightgbm() -> tuple[Any, Any]:
        from lightgbm import LGBMClassifier

        rows, late, _ = data()
        model = LGBMClassifier(n_estimators=5, verbose=-1).fit(rows, late)
        booster = model.booster_
        about = mlflow.lightgbm.log_model(
            booster, name="lgb", signature=infer_signature(rows, booster.predict(rows)), **QUICK
        )
        return about, booster.predict(rows)

    def torch() -> tuple[Any, Any]:
        import torch

        rows = data()[0].to_numpy().astype(np.float32)
        model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
        said = model(torch.tensor(rows)).detach().numpy()
        about = mlflow.pytorch.log_model(
            model, name="torch", serialization_format="pickle", signature=infer_signature(rows, said), **QUICK
        )
        return about, said

    return [
        ("skops", sklearn_skops),
        ("pickled", sklearn_pickle),
        ("xgb", xgboost),
        ("lgb", lightgbm),
        ("torch", torch),
    ]


@pytest.mark.parametrize(("name", "log"), logged(), ids=[name for name, _ in logged()])
def test_a_model_is_logged_loaded_back_and_registered(client: MlflowClient, folder: Path, name: str, log: Any) -> None:
    with mlflow.start_run() as run:
        about, said = log()
    rows = data()[0]
    given = rows.to_numpy().astype(np.float32) if name == "torch" else rows
    back = mlflow.pyfunc.load_model(about.model_uri)
    assert np.asarray(back.predict(given)) == pytest.approx(np.asarray(said), rel=1e-5)
    model = mlflow.get_logged_model(about.model_id)
    assert (model.status.value, model.source_run_id, model.name) == ("READY", run.info.run_id, name)
    version = mlflow.register_model(about.model_uri, f"{name}-model")
    assert (str(version.version), version.status, version.source) == ("1", "READY", about.model_uri)
    again = mlflow.pyfunc.load_model(f"models:/{name}-model/1")
    assert np.asarray(again.predict(given)) == pytest.approx(np.asarray(said), rel=1e-5)
    assert f"{name}-model@1" in {one["version"] for one in looked_up(folder, "models", "ls")}
    assert "logged" in looked_at(folder, "models", "show", f"{name}-model@1")
    outputs = client.get_run(run.info.run_id).outputs.model_outputs
    assert [one.model_id for one in outputs] == [about.model_id]


def test_names_stages_tags_and_searches(client: MlflowClient) -> None:
    rows, late, _ = data()
    with mlflow.start_run() as run:
        mlflow.log_param("c", 1)
        about = mlflow.sklearn.log_model(
            LogisticRegression().fit(rows, late), name="lr", registered_model_name="named", params={"c": "1"}, **QUICK
        )
        mlflow.log_metric("auc", 0.8, model_id=about.model_id)
    client.create_model_version("named", f"runs:/{run.info.run_id}/lr", run.info.run_id, description="again")
    client.set_registered_model_alias("named", "Candidate", "2")
    assert mlflow.pyfunc.load_model("models:/named@Candidate").predict(rows).shape == (300,)
    assert client.get_model_version_by_alias("named", "Candidate").version in (2, "2")
    client.set_model_version_tag("named", "2", "checked", "yes")
    client.transition_model_version_stage("named", "1", "Staging")
    assert [one.version for one in client.get_latest_versions("named", ["Staging"])] in ([1], ["1"])
    found = client.search_model_versions("name='named' AND tags.checked = 'yes'")
    assert [str(one.version) for one in found] == ["2"]
    assert found[0].tags == {"checked": "yes"}
    assert [one.name for one in client.search_registered_models("name LIKE 'nam%'")] == ["named"]
    frame = mlflow.search_logged_models(
        experiment_ids=[run.info.experiment_id], filter_string="metrics.auc > 0.7 AND params.c = '1'",
        order_by=[{"field_name": "metrics.auc", "ascending": False}],
    )  # fmt: skip
    assert list(frame.model_id) == [about.model_id]
    client.delete_registered_model_alias("named", "Candidate")
    client.rename_registered_model("named", "renamed")
    client.delete_model_version("renamed", "2")
    with pytest.raises(MlflowException, match="RESOURCE_DOES_NOT_EXIST"):
        client.get_model_version("renamed", "2")
    copied = client.copy_model_version("models:/renamed/1", "copied")
    assert str(copied.version) == "1"
    client.delete_registered_model("renamed")
    with pytest.raises(MlflowException, match="RESOURCE_DOES_NOT_EXIST"):
        client.get_registered_model("renamed")


def test_instars_own_versions_answer_as_the_endpoint_does(
    client: MlflowClient, folder: Path, store: Store, server: Server, tmp_path: Path
) -> None:
    version = registry.register(store, "trains", "delay", bundle=make_bundle(store), origin="recipe")
    approval.allow(store, version, note="test")
    promotion.promote(store, "trains", "delay", version, "test")
    loaded = mlflow.pyfunc.load_model("models:/delay@champion")
    inputs = {one.name: one.type for one in loaded.metadata.get_input_schema().inputs}
    row = {name: "UA" if str(kind) == "DataType.string" else 7 for name, kind in inputs.items()}
    rows = pd.DataFrame([row, row])
    said = loaded.predict(rows.astype({name: "float64" for name, kind in inputs.items() if "double" in str(kind)}))
    asked = [f"{name}={value}" for name, value in row.items()]
    wait_for(lambda: httpx2.get(f"{server.url}/v2/models/delay/ready", timeout=30).status_code == 200)
    (answer,) = json.loads(instar(folder, "predict", "delay", *asked, "--json").stdout)
    assert list(said["score"]) == [answer["score"]] * 2
    assert [int(one) for one in said["decision"]] == [answer["decision"]] * 2
    for name in ("champion", "challenger"):
        with pytest.raises(MlflowException, match=r"(?s)PERMISSION_DENIED.*instar promote delay@1"):
            client.set_registered_model_alias("delay", name, "1")
    with pytest.raises(MlflowException, match="PERMISSION_DENIED"):
        client.delete_registered_model("delay")


def test_what_was_logged_is_approved_served_and_traced(client: MlflowClient, folder: Path, server: Server) -> None:
    from xgboost import XGBClassifier

    rows, late, number = data()
    trees = XGBClassifier(n_estimators=5).fit(rows, late)
    pipe = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, late)
    boosted = GradientBoostingRegressor(n_estimators=5).fit(rows, number)
    with mlflow.start_run() as run:
        for model, name, flavor, more in (
            (trees, "trees", mlflow.xgboost, {}),
            (pipe, "pipe", mlflow.sklearn, {}),  # in skops, the client's own choice
            (boosted, "minutes", mlflow.sklearn, {"serialization_format": "cloudpickle"}),
        ):
            flavor.log_model(
                model, name=name, registered_model_name=f"{name}-served", signature=infer_signature(rows, model.predict(rows)),
                input_example=rows.head(2), **QUICK, **more,
            )  # fmt: skip
    assert "no approval" in instar(folder, "promote", "pipe-served@1", status=3).stderr
    row = rows.iloc[5]
    asked = [f"distance={row.distance}", f"hour={int(row.hour)}"]
    frame = rows.iloc[5:6]
    for name, wanted in (
        ("trees-served", trees.predict_proba(frame)[0, 1]),
        ("pipe-served", pipe.predict_proba(frame)[0, 1]),
        ("minutes-served", boosted.predict(frame)[0]),
    ):
        instar(folder, "approve", f"{name}@1", "--note", "looked at it")
        instar(folder, "promote", f"{name}@1")
        ready = f"{server.url}/v2/models/{name}/ready"
        wait_for(lambda ready=ready: httpx2.get(ready, timeout=60).status_code == 200)
        (answer,) = json.loads(instar(folder, "predict", name, *asked, "--json").stdout)
        assert answer["score"] == pytest.approx(float(wanted), rel=1e-6)
        assert (answer["decision"] is None) == (name == "minutes-served")
    told = looked_at(folder, "trace", answer["prediction"])
    assert "minutes-served@1" in told
    assert run.info.run_id in told


def test_what_runs_code_when_it_is_loaded_is_kept_and_not_served(client: MlflowClient, folder: Path) -> None:
    class Doubled(mlflow.pyfunc.PythonModel):
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return model_input["distance"] * 2

    rows = data()[0]
    with mlflow.start_run():
        about = mlflow.pyfunc.log_model(
            name="doubled", python_model=Doubled(), registered_model_name="doubled",
            signature=infer_signature(rows, rows.distance), **QUICK,
        )  # fmt: skip
    assert mlflow.pyfunc.load_model(about.model_uri).predict(rows).shape == (300,)
    assert "allow-list" in instar(folder, "approve", "doubled@1", status=3).stderr


def test_webhooks(client: MlflowClient, tmp_path: Path) -> None:
    from mlflow.entities.webhook import WebhookEvent
    from mlflow.webhooks.delivery import _generate_hmac_signature

    seen: list[tuple[dict[str, str], str]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            seen.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    try:
        hook = client.create_webhook(
            name="ci", url=f"http://127.0.0.1:{receiver.server_address[1]}/", secret="key",
            events=[WebhookEvent.from_str("registered_model.created")],
        )  # fmt: skip
        assert client.test_webhook(hook.webhook_id).success
        client.create_registered_model("told", tags={"a": "b"})
        wait_for(lambda: len(seen) == 2)
        headers, body = seen[1]
        assert json.loads(body)["data"]["name"] == "told"
        signed = _generate_hmac_signature("key", headers["x-mlflow-delivery-id"], headers["x-mlflow-timestamp"], body)
        assert headers["x-mlflow-signature"] == signed
        client.update_webhook(hook.webhook_id, status="DISABLED")
        assert [one.status.value for one in client.list_webhooks()] == ["DISABLED"]
        client.delete_webhook(hook.webhook_id)
        assert list(client.list_webhooks()) == []
    finally:
        receiver.shutdown()
        receiver.server_close()
