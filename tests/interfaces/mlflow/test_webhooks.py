"""Webhooks over MLflow's protocol: asked for, changed, tried; secrets are never shown."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from instar.core.store import Store
from instar.release import webhooks
from tests.interfaces.mlflow.conftest import Api
from tests.interfaces.mlflow.test_registry import patch

EVENT = {"entity": "REGISTERED_MODEL", "action": "CREATED"}


def test_asked_for_changed_and_given_up(api: Api, http: TestClient, store: Store) -> None:
    made = api.post(
        "webhooks", name="ci", url="https://ci.example.org/hook?x=1", events=[EVENT, {"entity": 3, "action": 4}],
        secret="very secret",
    )["webhook"]  # fmt: skip
    assert (made["name"], made["status"]) == ("ci", "ACTIVE")
    assert made["events"] == [EVENT, {"entity": "MODEL_VERSION_TAG", "action": "SET"}]
    path = f"webhooks/{made['webhook_id']}"
    hook = webhooks.get(store, "default", made["webhook_id"])
    assert hook.secret == f"file:secrets/{hook.id}"
    assert webhooks.secret_of(store, hook) == "very secret"
    assert (store.folder / "secrets" / hook.id).stat().st_mode & 0o077 == 0
    patch(http, path, status="DISABLED", description="off")
    changed = api.get(path)
    assert (changed["webhook"]["status"], changed["webhook"]["description"]) == ("DISABLED", "off")
    assert "secret" not in http.get(f"/api/2.0/mlflow/{path}").text.replace("very secret", "SHOWN")
    assert [one["name"] for one in api.get("webhooks")["webhooks"]] == ["ci"]
    assert http.delete(f"/api/2.0/mlflow/{path}").status_code == 200
    assert api.refused(path, "GET")[0] == 404
    assert not (store.folder / "secrets" / hook.id).exists()


@pytest.mark.parametrize(
    "url",
    ["ftp://a.example.org/", "http://a.example.org/", "https://127.0.0.1/", "https://10.0.0.1/", "https://[::1]/", "nonsense",
     "https://user:pass@a.example.org/", "https:///x", "https://169.254.169.254/latest", "https://[::ffff:10.0.0.1]/",
     "https://a.example.org/\n", "https://a.example.org:99999/", "https://0.0.0.0/"],
)  # fmt: skip
def test_targets_that_are_not_called(api: Api, url: str) -> None:
    status, code, _ = api.refused("webhooks", name="ci", url=url, events=[EVENT])
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")


def test_bad_input(api: Api) -> None:
    good = {"name": "ci", "url": "https://a.example.org/", "events": [EVENT]}
    for change in ({"name": ""}, {"name": "-x"}, {"name": "x" * 64}, {"events": []}, {"status": "MAYBE"},
                   {"events": [{"entity": "PROMPT", "action": "CREATED"}]}, {"url": ""}):  # fmt: skip
        assert api.refused("webhooks", **{**good, **change})[1] == "INVALID_PARAMETER_VALUE"


def test_trying_says_why_it_failed(api: Api) -> None:
    id = api.post("webhooks", name="ci", url="https://nobody.invalid/", events=[EVENT])["webhook"]["webhook_id"]
    result = api.post(f"webhooks/{id}/test")["result"]
    assert result["success"] is False
    assert "leads nowhere" in result["error_message"]
