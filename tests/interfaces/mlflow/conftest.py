"""MLflow's protocol over the ASGI application, on an empty store without a project."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from instar.app import App
from instar.core.store import Store
from instar.interfaces.api.application import Application
from instar.interfaces.mlflow import routes

API = "/api/2.0/mlflow/"


class Api:
    """Calls as a client makes them; a refusal is an error of the test unless it is asked for."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def post(self, path: str, /, **message: Any) -> Any:
        return self._told(self.client.post(API + path, json=message))

    def get(self, path: str, /, **message: Any) -> Any:
        return self._told(self.client.get(API + path, params=message))

    def refused(self, path: str, /, method: str = "POST", **message: Any) -> tuple[int, str, str]:
        """Status, code and message of a refusal."""
        if method == "GET":
            reply = self.client.get(API + path, params=message)
        else:
            reply = self.client.request(method, API + path, json=message)
        assert reply.status_code >= 400, reply.text
        body = reply.json()
        return reply.status_code, body["error_code"], body["message"]

    def run(self, **about: Any) -> str:
        """The id of a new run."""
        id: str = self.post("runs/create", experiment_id="0", **about)["run"]["info"]["run_id"]
        return id

    def data(self, run: str) -> Any:
        """What a run logged, as dictionaries by key."""
        data = self.get("runs/get", run_id=run)["run"].get("data", {})
        return {
            "metrics": {one["key"]: one["value"] for one in data.get("metrics", ())},
            "params": {one["key"]: one.get("value", "") for one in data.get("params", ())},
            "tags": {one["key"]: one.get("value", "") for one in data.get("tags", ())},
        }

    @staticmethod
    def _told(reply: Any) -> Any:
        assert reply.status_code == 200, reply.text
        return reply.json()


@pytest.fixture
def http(store: Store) -> Iterator[TestClient]:
    application = Application(App(store, None), routes.all_routes())
    with TestClient(application, base_url="http://127.0.0.1:5000", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def api(http: TestClient) -> Api:
    return Api(http)
