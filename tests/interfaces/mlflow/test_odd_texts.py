"""Texts that a database does not keep, or not as they are, in every field of every message and in every path: refused or kept.

On PostgreSQL, which is the stricter of the two: it keeps no NUL, and its columns have a length.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from instar.app import App, open_store
from instar.core.store import Store
from instar.interfaces import all_routes
from instar.interfaces.api.application import Application
from instar.interfaces.mlflow import routes
from instar.interfaces.mlflow.frame import ROOTS, Message, Operation
from instar.train import artifacts, experiments, logged_models, runs

ODD = ("a\0b", "x" * 3000, "%_'\"\\", "../..", "\U0001f41b")
NOW = 1_700_000_000_000


@pytest.fixture
def kept(tmp_path: Path, postgres_database: str) -> Iterator[Store]:
    store = open_store(tmp_path, postgres_database)
    yield store
    store.database.close()


@pytest.fixture
def http(kept: Store) -> Iterator[TestClient]:
    application = Application(App(kept, None), all_routes.all_routes())
    with TestClient(application, base_url="http://127.0.0.1:5000", raise_server_exceptions=False) as client:
        yield client


def test_no_text_in_a_message_makes_the_server_fail(kept: Store, http: TestClient) -> None:
    good = _filled(kept)
    failed, taken = [], set()
    for one in routes.all_operations():
        address = ROOTS[one.root][0] + re.sub(r"\{(\w+)[^}]*\}", lambda found: good.get(found[1], "1"), one.path)
        for where, message in _messages(one, good):
            if one.method == "GET":
                flat = {key: value for key, value in message.items() if not isinstance(value, dict)}
                reply = http.get(address, params=flat)
            else:
                reply = http.request(one.method, address, json=message)
            if reply.status_code == 500:
                failed.append((one.method, one.path, where))
            if reply.status_code == 200:
                taken.add(one.path)
    assert failed == []
    assert len(taken) >= 40, sorted(taken)  # most of the messages are good but for one text


def test_no_text_in_a_path_makes_the_server_fail(kept: Store, http: TestClient) -> None:
    good = _filled(kept) | {"project": "default"}
    failed = []
    for route in all_routes.all_routes():
        names = re.findall(r"\{(\w+)", route.path)
        if route.path.startswith(("/projects/", "/ajax-api/", "/api/3.0/")):  # the same handlers
            continue
        for odd in names:
            for text in ODD:
                values = {**dict.fromkeys(names, "1"), **good, odd: text}
                path = re.sub(r"\{(\w+)[^}]*\}", lambda found: quote(values[found[1]], safe=""), route.path)  # noqa: B023
                if http.request(route.method, path, json={}).status_code == 500:
                    failed.append((route.method, route.path, odd, text[:5]))
    assert failed == []


def _filled(store: Store) -> dict[str, str]:
    """One record of each kind, by the names that fields and paths have for them."""
    run = runs.start(store, "default", experiment="e", capture=False)
    artifacts.log_artifact(store, run.id, "a.txt", b"a")
    model = logged_models.create(store, "default", experiment=run.experiment_id, name="m", run=run.id)
    experiments.create(store, "default", "other")
    ids = {"run_id": run.id, "run": run.id, "run_uuid": run.id, "experiment_id": run.experiment_id}
    return {
        **ids, "experiment": run.experiment_id, "model_id": model.id, "path": f"{run.experiment_id}/{run.id}/artifacts/a.txt",
        "workspace": "default", "key": "k", "webhook_id": "hook_1",
    }  # fmt: skip


def _messages(operation: Operation, good: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The operation's message with one odd text in it, for each place where a text may stand."""
    whole = _good(operation.message, good)
    yield "as it is", whole
    for path in _texts(operation.message):
        for odd in ODD:
            yield f"{'.'.join(path)} = {odd[:5]!r}", _with(whole, path, odd)


def _good(message: Any, good: dict[str, str]) -> dict[str, Any]:
    known = {**good, "name": "m", "version": "1", "timestamp": NOW, "value": "1", "status": None, "path": "a.txt"}
    found: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(message).items():
        inner = _message_of(kind)
        if inner is not None:
            found[name] = [_good(inner, good)] if _is_list(kind) else _good(inner, good)
        elif name in known and known[name] is not None:
            found[name] = [known[name]] if _is_list(kind) else known[name]
    return found


def _texts(message: Any) -> Iterator[tuple[str, ...]]:
    for name, kind in typing.get_type_hints(message).items():
        inner = _message_of(kind)
        if inner is not None:
            yield from ((name, *path) for path in _texts(inner))
        elif str in _parts(kind):
            yield (name,)


def _with(message: Any, path: tuple[str, ...], odd: str) -> Any:
    if not path:
        return [odd] if isinstance(message, list) else odd
    if isinstance(message, list):
        return [_with(message[0], path, odd)]
    return {**(message or {}), path[0]: _with((message or {}).get(path[0]), path[1:], odd)}


def _message_of(kind: Any) -> Any:
    return next((one for one in _parts(kind) if isinstance(one, type) and issubclass(one, Message)), None)


def _is_list(kind: Any) -> bool:
    return any(typing.get_origin(one) is list for one in (kind, *typing.get_args(kind)))


def _parts(kind: Any) -> list[Any]:
    inner = typing.get_args(kind)
    return [part for one in inner for part in _parts(one)] if inner else [kind]
