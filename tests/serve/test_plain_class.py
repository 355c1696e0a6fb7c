"""A plain class answers from its own process and environment: brought on the command line, tried out, approved, asked."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from click.testing import CliRunner

from instar.app import open_store
from instar.core.errors import InstarError
from instar.core.identity import Actor
from instar.core.store import Store
from instar.interfaces.cli.release import commands
from instar.operate import promotion, review
from instar.release import registry
from instar.release.card import card, to_markdown
from instar.serve.root.process import ServerTree
from instar.serve.traffic.routes import bundle_folder, read_snapshot
from instar.serve.worker import housed, loading
from instar.train import bundle
from instar.train.class_bundle import pack_brought, pack_class
from tests.train import wheels
from tests.train.test_class_bundle import folder
from tests.train.test_folder_lock import links as links

TOML = """
entry = "pack.model:Model"
threshold = 0.5
[[inputs]]
name = "distance"
datatype = "FP64"
[[inputs]]
name = "carrier"
datatype = "BYTES"
nullable = true
"""
CODE = """
import os
import lamp
from pack.helper import double

class Model:
    def __init__(self, folder):
        with open(os.path.join(folder, "factor.txt")) as file:
            self.factor = float(file.read())

    def predict(self, rows):
        assert rows["carrier"][0] in ("UA", None, "a"), rows
        if os.environ.get("HOSTED_BY") == str(os.getpid()):
            raise RuntimeError("it runs in the process that asks")
        return [double(lamp.LIGHT) + self.factor * one for one in rows["distance"]]
"""
FILES = {"pack/model.py": CODE, "pack/__init__.py": "", "pack/helper.py": "def double(one):\n    return 2 * one\n"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store as programs open it."""
    place = tmp_path / "store"
    opened = replace(open_store(place, f"sqlite:///{place / 'instar.db'}"), actor=Actor("ada"))
    yield opened
    opened.database.close()


def test_it_is_brought_approved_and_answers_from_its_own_environment(
    store: Store, tmp_path: Path, links: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels.make(links, "lamp", "1.0", {"lamp.py": "LIGHT = 0.125\n"})
    place = folder(tmp_path / "m", TOML, "", **FILES, **{"factor.txt": "0.001", "requirements.txt": "lamp\n"})
    monkeypatch.setenv("INSTAR_STORE", str(store.folder))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(commands["models"], ["import", str(place), "--name", "lights"], obj=None)
    assert done.exit_code == 0, done.output
    assert "lights@1: class" in done.output
    assert "class    pack.model:Model" in done.output
    version = registry.find(store, "default", "lights@1")
    review.approve(store, None, version)
    promotion.promote(store, "default", "lights", version, "by hand")
    facts = card(store, version)
    assert (facts["model"]["form"], facts["model"]["own_environment"]["state"]) == ("class", "ready")
    assert "pack.model:Model" in to_markdown(facts)
    with (
        ServerTree.start(store.folder, control=False) as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        body = {"records": [{"distance": 100.0, "carrier": "UA"}, {"distance": 400.0, "carrier": None}]}
        answer = client.post("/v2/models/lights/records", json=body)
        assert answer.status_code == 200, answer.text
        scores = [(one["score"], one["decision"]) for one in answer.json()["records"]]
        assert scores == [(pytest.approx(0.35), False), (pytest.approx(0.65), True)]
        refused = client.post("/v2/models/lights/records", json={"records": [{"distance": "far"}]})
        assert refused.status_code == 400


def loaded(store: Store, place: Path) -> Any:
    digest = pack_class(store, place, name="m")
    unpacked = bundle_folder(store.folder, digest)
    unpacked.parent.mkdir(parents=True, exist_ok=True)
    bundle.unpack(store.blobs, digest, unpacked)
    return loading.load(unpacked)


TENSORS = """
entry = "model:Model"
[[inputs]]
name = "image"
datatype = "FP32"
shape = [-1, 2, 2]
[[outputs]]
name = "mean"
datatype = "FP32"
shape = [-1]
[[outputs]]
name = "process"
datatype = "INT64"
shape = [1]
"""
TENSOR_CODE = """
import os

class Model:
    def infer(self, inputs):
        import numpy
        return {"mean": inputs["image"].mean(axis=(1, 2)), "process": numpy.array([os.getpid()])}
"""


def test_a_class_of_tensors_that_needs_nothing_of_its_own_has_its_own_process(store: Store, tmp_path: Path) -> None:
    model = loaded(store, folder(tmp_path / "m", TENSORS, TENSOR_CODE))
    try:
        found = model.infer({"image": np.arange(8, dtype=np.float32).reshape(2, 2, 2)})
        assert found["mean"].tolist() == [1.5, 5.5]
        assert found["process"][0] != os.getpid()
    finally:
        model.close()


ONE = '[[inputs]]\nname = "x"\ndatatype = "FP64"\n'


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("from gone import Model\n", "No module named 'gone'"),
        ("def Model(): ...\nModel = 3\n", "model has no class Model"),
        ("class Base: ...\nclass Model(Base): ...\n", "class Model has no method predict"),
        ("class Model:\n    predict = 3\n", "class Model has no method predict"),
        (
            "class Model:\n    def __init__(self): raise ValueError('no luck')\n    def predict(self, rows): ...\n",
            "no luck",
        ),
    ],
)
def test_what_does_not_load_says_why(store: Store, tmp_path: Path, code: str, why: str) -> None:
    digest = pack_brought(store, folder(tmp_path / "m", 'entry = "model:Model"\n' + ONE, code), name="m")
    unpacked = bundle_folder(store.folder, digest)
    unpacked.parent.mkdir(parents=True, exist_ok=True)
    bundle.unpack(store.blobs, digest, unpacked)

    line = housed.Line(lambda status: None, lambda: sys.executable)
    try:
        with pytest.raises(InstarError, match=why):
            housed.load(unpacked, loading.verified, line)
    finally:
        line.close()


def test_what_it_answers_badly_is_an_error_of_the_call(store: Store, tmp_path: Path) -> None:
    code = "class Model:\n    def predict(self, rows):\n        return [float('nan')] * len(rows['x'])\n"
    model = loaded(store, folder(tmp_path / "m", 'entry = "model:Model"\n' + ONE, code))
    try:
        with pytest.raises(InstarError, match="no number"):
            model.score({"x": [1.0]})
        assert json.dumps(model.decides) == "false"
    finally:
        model.close()


THREADS = """
import os

class Model:
    def predict(self, rows):
        assert os.environ["OMP_NUM_THREADS"] == "1"
        return [len(os.sched_getaffinity(0)) for one in rows["x"]]
"""


@pytest.mark.parametrize("own", [False, True])
def test_it_uses_no_more_than_its_resources_say(store: Store, tmp_path: Path, links: Path, own: bool) -> None:
    text = 'entry = "model:Model"\nresources = { threads = 1, memory = "256MiB" }\n' + ONE
    place = folder(tmp_path / "m", text, THREADS, **({"requirements.txt": "lamp\n"} if own else {}))
    digest = pack_brought(store, place, name="frugal")
    version = registry.register(store, "default", "frugal", bundle=digest, origin="file")
    review.approve(store, None, version)
    promotion.promote(store, "default", "frugal", version, "by hand")
    (held,) = read_snapshot(store.folder).endpoints["frugal"].held
    assert (held.threads, held.memory_bytes, bool(held.environment)) == (1, 256 * 1024**2, own)
    with (
        ServerTree.start(store.folder, control=False) as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        answer = client.post("/v2/models/frugal/records", json={"records": [{"x": 1.0}]})
        assert answer.json()["records"][0]["score"] == 1.0, answer.text
