"""A version that was logged: approved by a person after a trial, served on an endpoint of its own, on the record, traced."""

from __future__ import annotations

import json
import pickle
import platform
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from instar.core.errors import BadInput, Blocked, Conflict, InstarError, NotAllowed, StepFailed, Unavailable
from instar.core.identity import SYSTEM
from instar.core.store import Store
from instar.operate import audit, promotion, proposal, review, rollout_walk, trace
from instar.plan import revisions
from instar.plan.project import Project, load_project
from instar.release import approval, registered_models, registry
from instar.release.card import card
from instar.release.registry import ModelVersion
from instar.serve.log.calls import CallLog
from instar.serve.publishing import snapshot, trial
from instar.serve.root.process import ServerTree
from instar.serve.traffic import routing
from instar.serve.traffic.routes import read_snapshot
from instar.train import bundles
from instar.train.bundle import load_manifest
from tests.train import wheels
from tests.train.folders import flights, mlmodel, pack, sklearn_files

ROW = {"distance": 1400.0, "hour": 8}


def estimators() -> tuple[Any, Any]:
    given, late, minutes = flights()
    rows = pd.DataFrame(given, columns=["distance", "hour"]).astype({"hour": int})
    return LogisticRegression(max_iter=500).fit(rows, late), LinearRegression().fit(rows, minutes)


def register(store: Store, name: str, files: dict[str, bytes]) -> ModelVersion:
    digest = pack(store, files, name=name, run="run_nobody")
    manifest = load_manifest(store.blobs, digest)
    store.database.write(lambda tx: bundles.record(tx, store, "default", digest, manifest, fit_key=digest))
    try:
        registered_models.get(store, "default", name)
    except InstarError:
        registered_models.create(store, "default", name)
    return registry.register_logged(
        store, "default", name, bundle=digest, source="runs:/x/model", description="said so"
    )


@pytest.fixture
def contract(tmp_path: Path) -> Project:
    """A project whose problem is `delay`."""
    (tmp_path / "instar.toml").write_text(
        '[project]\nname = "default"\nobjective = "x"\nowner = "x"\n[problem.delay]\ntask = "binary"\ntarget = "late"\n'
        'metric = "cost"\ncost = { false_negative = 3.0, false_positive = 1.0, unit = "EUR" }\n'
        '[problem.delay.split]\ndecide = "14d"\njudge = "14d"\n[problem.delay.outcome]\ndue = "1d"\n'
    )
    return load_project(tmp_path)


def ask(client: httpx2.Client, endpoint: str, row: dict[str, Any] = ROW) -> httpx2.Response:
    kinds = {"distance": "FP64", "hour": "INT64"}
    inputs = [{"name": name, "shape": [1], "datatype": kinds[name], "data": [value]} for name, value in row.items()]
    return client.post(f"/v2/models/{endpoint}/infer", json={"inputs": inputs})


@pytest.fixture
def served(store: Store) -> Iterator[tuple[httpx2.Client, Any, Any]]:
    """Two endpoints of logged models, and what these answer."""
    classifier, regressor = estimators()
    for name, model in (("late", classifier), ("minutes", regressor)):
        version = register(store, name, sklearn_files(model))
        review.approve(store, None, version, note="looked at it")
        promotion.promote(store, "default", name, version, "by hand")
    with (
        ServerTree.start(store.folder, control=False) as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client, classifier, regressor


def test_it_answers_is_on_the_record_and_can_be_traced(store: Store, served: tuple[httpx2.Client, Any, Any]) -> None:
    client, classifier, regressor = served
    frame = pd.DataFrame([ROW])
    late, minutes = ask(client, "late"), ask(client, "minutes")
    assert (late.status_code, minutes.status_code) == (200, 200), (late.text, minutes.text)
    outputs = {one["name"]: one["data"][0] for one in late.json()["outputs"]}
    assert outputs["score"] == pytest.approx(classifier.predict_proba(frame)[0, 1], abs=0)
    assert outputs["decision"] == int(outputs["score"] >= 0.5)
    assert [one["name"] for one in minutes.json()["outputs"]] == ["score"]
    assert minutes.json()["outputs"][0]["data"][0] == pytest.approx(regressor.predict(frame)[0], abs=0)
    about = client.get("/v2/models/minutes").json()
    assert ([one["name"] for one in about["inputs"]], [one["name"] for one in about["outputs"]]) == (
        ["distance", "hour"],
        ["score"],
    )
    assert ask(client, "late", {"distance": 1.0}).status_code == 400
    log = CallLog(store)
    found = log.find(minutes.headers["instar-call"])
    assert found is not None
    assert (found["version"], found["decision"], found["threshold"]) == (1, None, None)
    hops = trace.backward(store, log, "default", f"{minutes.headers['instar-call']}/0").walk()
    kinds = [hop.kind for hop in hops]
    assert {"prediction", "model version", "approval", "bundle"} <= set(kinds)
    assert ("minutes@1", "answered by") in {(hop.name, hop.relation) for hop in hops}
    assert audit.verify(store, "default").consistent


def test_a_person_approves_after_a_trial(store: Store) -> None:
    classifier, _ = estimators()
    version = register(store, "late", sklearn_files(classifier))
    with pytest.raises(Blocked, match="no approval"):
        promotion.promote(store, "default", "late", version, "by hand")
    with pytest.raises(NotAllowed, match="only a person"):
        review.approve(replace(store, actor=SYSTEM), None, version)
    given = review.approve(store, None, version, note="fine")
    assert (given.policy, given.approved_by, given.reason, given.evidence) == ("person", "ada", "fine", version.bundle)
    assert review.approve(store, None, version).id == given.id
    assert registry.find(store, "default", "late@1").state == "approved"
    found = trial.trial_of(store, version.bundle)
    assert found is not None
    assert found.task == trial.BINARY
    assert found.facts["asked"] == {"distance": 1400.0, "hour": 8}
    assert found.facts["score"] == pytest.approx(classifier.predict_proba(pd.DataFrame([ROW]))[0, 1])
    assert approval.holding(store, version) is not None


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("never",))


def test_what_cannot_answer_is_refused_at_approval_with_the_reason(store: Store) -> None:
    given, _, _ = flights()
    rows = pd.DataFrame(given, columns=["distance", "hour"])
    three = LogisticRegression(max_iter=500).fit(rows, np.arange(len(rows)) % 3)
    for name, files, why in (
        ("three", sklearn_files(three), "more than two classes"),
        ("evil", {**sklearn_files(None), "model.pkl": pickle.dumps(Evil())}, r"builtins\.print"),
        ("bare", {"MLmodel": mlmodel({"sklearn": {}}, None)}, "no signature"),
        ("torn", {**sklearn_files(None), "model.pkl": pickle.dumps(three)[:-9]}, "not a pickle that can be followed"),
        ("none", {"notes.txt": b"x"}, "no MLmodel"),
    ):
        version = register(store, name, files)
        with pytest.raises(Blocked, match=why):
            review.approve(store, None, version)
        assert approval.approvals(store, "default", version=version.id) == []


def test_a_model_that_fails_on_its_own_example_is_not_approved(store: Store) -> None:
    classifier, _ = estimators()
    example = json.dumps({"columns": ["distance", "hour"], "data": [["far", 8]]}).encode()
    version = register(store, "late", {**sklearn_files(classifier), "input_example.json": example})
    with pytest.raises(StepFailed):
        review.approve(store, None, version)


def test_it_cannot_be_the_champion_of_a_problem(store: Store, contract: Project) -> None:
    classifier, _ = estimators()
    version = register(store, "delay", sklearn_files(classifier))
    with pytest.raises(Conflict, match="cannot be the champion of a problem"):
        review.approve(store, contract, version)
    other = register(store, "late", sklearn_files(classifier))
    assert review.approve(store, contract, other).state == "approved"
    with pytest.raises(BadInput, match="judged by no gates"):
        review.judge_again(_loop(store, contract), other)


def _loop(store: Store, contract: Project) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(store=store, project=contract)


def test_what_was_approved_before_there_was_a_problem_gets_no_new_route_and_keeps_its_old_one(
    store: Store, contract: Project
) -> None:
    classifier, _ = estimators()
    first = register(store, "delay", sklearn_files(classifier))
    review.approve(store, None, first, note="there are no gates as yet")
    promotion.promote(store, "default", "delay", first, "by hand")
    second = register(store, "delay", sklearn_files(LogisticRegression(C=0.5, max_iter=500).fit(*flights()[:2])))
    review.approve(store, None, second, note="there are no gates as yet")
    revisions.record_contract(store, contract)  # from here on, there is a problem of that name
    with pytest.raises(Blocked, match="before there was a problem of its name"):
        promotion.promote(store, "default", "delay", second, "by hand")
    terms = rollout_walk.terms_of(contract.contract.problem["delay"], refit=False)
    with pytest.raises(Blocked, match="before there was a problem of its name"):
        rollout_walk.start(store, "default", "delay", second, terms, "user")
    live = routing.current(store, "delay")
    assert live is not None
    assert live.policy.champion == first.number
    assert (
        proposal.champion_of(_loop(store, contract), "delay") is None
    )  # whatever passes the gates first takes its place
    elsewhere = register(store, "late", sklearn_files(classifier))
    review.approve(store, contract, elsewhere, note="no problem of that name")
    promotion.promote(store, "default", "late", elsewhere, "by hand")


GONE = b"lamp==1.0\n"


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels instead of an index, and an empty cache."""
    names = {"UV_CACHE_DIR": str(tmp_path / "cache"), "UV_FIND_LINKS": str(tmp_path / "wheels")}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "wheels").mkdir()
    return tmp_path / "wheels"


def test_a_folder_whose_requirements_cannot_be_had_answers_from_here_and_says_why(store: Store, links: Path) -> None:
    classifier, _ = estimators()
    version = register(store, "late", {**sklearn_files(classifier), "requirements.txt": GONE})
    review.approve(store, None, version)
    found = trial.trial_of(store, version.bundle)
    assert found is not None
    assert "lamp==1.0" in found.facts["not_its_own"]
    shown = card(store, version)["model"]["own_environment"]
    assert (shown["environment"], shown["state"]) == ("", "failed")
    assert "lamp==1.0" in shown["reason"]
    broken = {**sklearn_files(classifier), "requirements.txt": GONE, "model.pkl": b"\x80\x04clamp\nLamp\n)\x81."}
    with pytest.raises(InstarError, match="lamp"):
        review.approve(store, None, register(store, "lamp", broken))


# An `mlflow.pyfunc` as small as its part that a shim asks for.
PYFUNC = """
import os

class Model:
    def __init__(self, path):
        with open(os.path.join(path, "factor.txt")) as file:
            self.factor = float(file.read())

    def predict(self, frame):
        import lamp
        return [lamp.LIGHT + self.factor * one for one in frame.distance]

load_model = Model
"""
PANDAS = """
class DataFrame:
    def __init__(self, arrays):
        vars(self).update(arrays)
"""
NUMPY = """
def frombuffer(data, dtype):
    import array
    found = array.array({"float64": "d", "int64": "q"}[dtype])
    found.frombytes(bytes(data))
    return Numbers(found)

class Numbers(list):
    def copy(self):
        return self
"""


def pyfunc_files(requirements: str) -> dict[str, bytes]:
    flavors = {"python_function": {"loader_module": "mlflow.pyfunc.model", "python_version": platform.python_version()}}
    return {"MLmodel": mlmodel(flavors), "factor.txt": b"0.5", "requirements.txt": requirements.encode()}


def test_a_pyfunc_answers_from_its_own_environment(store: Store, links: Path) -> None:
    for name, files in {
        "mlflow": {"mlflow/__init__.py": "", "mlflow/pyfunc.py": PYFUNC},
        "pandas": {"pandas.py": PANDAS}, "numpy": {"numpy.py": NUMPY}, "lamp": {"lamp.py": "LIGHT = 0.25\n"},
    }.items():  # fmt: skip
        wheels.make(links, name, "0.0.1", files)
    whole = "mlflow==0.0.1\npandas==0.0.1\nnumpy==0.0.1\nlamp\n"
    version = register(store, "lights", pyfunc_files(whole))
    review.approve(store, None, version)
    found = trial.trial_of(store, version.bundle)
    assert found is not None
    assert (found.task, set(found.facts)) == (trial.NUMBER, {"python", "lock"})
    shown = card(store, version)["model"]["own_environment"]
    assert shown["state"] == "ready"
    promotion.promote(store, "default", "lights", version, "by hand")
    (held,) = read_snapshot(store.folder).endpoints["lights"].held
    assert held.environment == shown["environment"]
    shutil.rmtree(store.folder / "environments" / "locks")  # somebody made room; the lock is on the record
    snapshot.publish(store, whole=True)
    (held,) = read_snapshot(store.folder).endpoints["lights"].held
    assert held.environment == shown["environment"]
    with (
        ServerTree.start(store.folder, control=False) as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        answer = ask(client, "lights")
        assert answer.json()["outputs"][0]["data"] == [700.25], answer.text
    without = register(store, "none", pyfunc_files("pandas==0.0.1\nnumpy==0.0.1\n"))
    with pytest.raises(Unavailable, match="package mlflow is not installed in the environment of this version"):
        review.approve(store, None, without)
