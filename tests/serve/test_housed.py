"""Versions whose environments are not ours: built from their locks, side by side in one server, and what goes wrong with them."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from instar.core.errors import Blocked, Damaged, InstarError, StepFailed, Unavailable
from instar.core.store import Store
from instar.serve.publishing import snapshot
from instar.serve.traffic import routing
from instar.serve.traffic.routes import bundle_folder, read_snapshot
from instar.serve.worker import housed, loading, shim
from instar.train import bundle, environment, environments, own_environment
from tests.serve.conftest import acknowledged, start
from tests.serve.lamps import lamp_bundle, published
from tests.serve.lamps import links as links
from tests.train import wheels

ROWS = {"distance": [1000.0, 2000.0], "carrier": ["UA", None]}


def prepared(store: Store, digest: str) -> tuple[Path, str]:
    """An unpacked bundle, and the name of its environment, which is ready."""
    folder = bundle_folder(store.folder, digest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder, own_environment.prepare(store, bundle.unpack(store.blobs, digest, folder))


def started(store: Store, name: str, **terms: Any) -> housed.Line:
    """A line to a process of an environment."""
    return housed.Line(lambda status: None, lambda: str(environments.places.python(store.folder, name)), **terms)


@pytest.fixture
def load(store: Store) -> Any:
    """Loads a bundle in its environment; its process ends with the test."""
    lines: list[housed.Line] = []

    def loaded(digest: str) -> Any:
        folder, name = prepared(store, digest)
        lines.append(started(store, name))
        return housed.load(folder, loading.verified, lines[-1])

    yield loaded
    for line in lines:
        line.close()


def test_two_versions_of_a_library_answer_side_by_side(store: Store, links: Path, load: Any) -> None:
    first, second = (load(lamp_bundle(store, links, version)) for version in ("1.0", "2.0"))
    assert list(first.score(ROWS)) == pytest.approx([0.2, 0.3])
    assert list(second.score(ROWS)) == pytest.approx([0.6, 0.7])
    assert list(first.score({"distance": [], "carrier": []})) == []


def test_one_environment_is_built_once_for_all_bundles_that_name_it(store: Store, links: Path) -> None:
    names = {prepared(store, lamp_bundle(store, links, "1.0", threshold=one))[1] for one in (0.2, 0.3)}
    assert [built.digest for built in environments.listing(store)] == list(names)
    manifest = bundle.load_manifest(store.blobs, lamp_bundle(store, links, "1.0"))
    state = own_environment.state_of(store, manifest)
    assert state is not None
    assert (state.state, state.reason) == ("ready", "")


def test_what_fails_is_said_in_its_own_words_and_it_goes_on(store: Store, links: Path, load: Any) -> None:
    model = load(lamp_bundle(store, links, "1.0"))
    with pytest.raises(StepFailed, match="ValueError: a lamp broke"):
        model.score({"distance": [1.0], "carrier": ["boom"]})
    with pytest.raises(StepFailed, match="No module named 'instar'"):  # nothing of ours is in there
        model.score({"distance": [1.0], "carrier": ["own"]})
    assert list(model.score({"distance": [1000.0], "carrier": ["UA"]})) == pytest.approx([0.2])
    with pytest.raises(Unavailable, match="ended"):
        model.score({"distance": [1.0], "carrier": ["die"]})


def test_a_missing_package_is_named(store: Store, links: Path) -> None:
    from instar.serve.worker.models import Models

    digest = lamp_bundle(store, links, "1.0", lock="# empty\n")
    assert prepared(store, digest)[1] == ""  # nothing is pinned, so nothing is amiss
    digest = lamp_bundle(store, links, "1.0", lock=f"--no-index\n--find-links {links}\nbulb==1.0\n")
    wheels.make(links, "bulb", "1.0", {"bulb.py": ""})
    folder, name = prepared(store, digest)
    loader = loading.EnvironmentLoader(store.folder, name)
    with pytest.raises(InstarError, match="package lamp is not installed"):
        Models(loader).get(digest, str(folder))
    loader.close()


def test_a_broken_lock_is_refused_with_the_words_of_the_builder(store: Store, links: Path) -> None:
    digest = lamp_bundle(store, links, "3.0")
    with pytest.raises(Blocked, match=r"lamp==3\.0"):
        prepared(store, digest)
    assert environments.listing(store) == []
    manifest = bundle.load_manifest(store.blobs, digest)
    state = own_environment.state_of(store, manifest)
    assert state is not None
    assert state.state == "failed"
    assert "lamp==3.0" in state.reason
    with pytest.raises(Unavailable, match=r"lamp==3\.0"):
        loading.EnvironmentLoader(store.folder, state.environment)(bundle_folder(store.folder, digest))
    wheels.make(links, "lamp", "3.0", {"lamp.py": "LIGHT = 0.9\n"})
    own_environment.prepare(store, manifest)
    mended = own_environment.state_of(store, manifest)
    assert mended is not None
    assert mended.state == "ready"


def test_a_lock_of_what_is_installed_here_needs_no_other_environment(store: Store, links: Path) -> None:
    version = environment.capture().distributions["numpy"]
    digest = lamp_bundle(store, links, "1.0", lock=f"numpy=={version}\n")
    assert own_environment.name_of(store, bundle.load_manifest(store.blobs, digest)) == ""
    assert own_environment.state_of(store, bundle.load_manifest(store.blobs, digest)) is None


def test_an_environment_that_nobody_can_read_holds_up_no_routes(store: Store, links: Path) -> None:
    digests = {
        1: lamp_bundle(store, links, "1.0", environment=store.blobs.put(b"[]")),
        2: lamp_bundle(store, links, "3.0"),
    }
    for version in digests:
        routing.set_policy(store, "flights", f"lamp{version}", champion=version, bundles=digests, cause="test")
    snapshot.publish(store)
    routes = read_snapshot(store.folder).endpoints
    assert routes["lamp1"].versions[1].environment == ""
    assert (
        routes["lamp2"].versions[2].environment.startswith("b3:")
    )  # it could not be built, and says so when it is asked


def test_what_crosses_the_line_is_what_was_sent() -> None:
    from socket import socketpair

    ours, theirs = socketpair()
    with ours, theirs:
        shim.send(ours, {"do": "x"}, [b"\x00\x01", b"", b"abc"])
        head, parts = shim.receive(theirs)
        assert (head["do"], [bytes(part) for part in parts]) == ("x", [b"\x00\x01", b"", b"abc"])
        ours.close()
        with pytest.raises(EOFError):
            shim.receive(theirs)


@pytest.mark.parametrize("form", ["columns", "pandas", "polars", "pyarrow"])
def test_rows_arrive_in_the_frame_that_the_native_form_would_get(form: str) -> None:
    from instar.train.frames import as_form, frame_of

    inputs = [
        bundle.Column(f"{kind.lower()}{'_gaps' * gaps}", kind)
        for kind in ("BOOL", "INT32", "INT64", "FP32", "FP64", "BYTES")
        for gaps in (0, 1)
    ]
    whole: dict[str, list[Any]] = {"BOOL": [True, False], "BYTES": ["é", "b"]}
    given = {one.name: [*whole.get(one.datatype, [1, 2]), None if "gaps" in one.name else 0] for one in inputs}
    for one in inputs:
        if not one.name.endswith("gaps"):
            given[one.name][2] = {"BOOL": False, "BYTES": ""}.get(one.datatype, 3)
    columns: dict[str, Any] = {}
    for one in inputs:
        data, gone = housed._packed(given[one.name], one.datatype)
        columns[one.name] = one.datatype, bytearray(data), gone
    made = shim._frame(columns, 3, form)
    wanted = as_form(frame_of(given, inputs), form)
    if form == "pandas":
        import pandas

        pandas.testing.assert_frame_equal(made, wanted)
    else:
        assert made.equals(wanted) if form != "columns" else made == wanted


def test_the_shim_ends_with_its_host(store: Store, links: Path) -> None:
    _, name = prepared(store, lamp_bundle(store, links, "1.0"))
    line = started(store, name)
    process = line._process
    assert process is not None
    assert line._line is not None
    line._line.close()
    assert process.wait(20) == 0


def test_a_busy_shim_ends_with_its_host_too(store: Store, links: Path) -> None:
    folder, name = prepared(store, lamp_bundle(store, links, "1.0"))
    line = started(store, name)
    housed.load(folder, loading.verified, line)
    parts = [housed._packed(values, kind)[0] for values, kind in (([1.0], "FP64"), (["for ever"], "BYTES"))]
    assert line._line is not None
    shim.send(line._line, {"do": "score", "rows": 1, "missing": [False, False]}, parts)
    line._line.close()
    assert line._process is not None
    assert line._process.wait(20) == 0


def test_a_pickle_that_may_not_be_loaded_never_reaches_the_shim(store: Store, links: Path, load: Any) -> None:
    evil = pickle.dumps(subprocess.Popen)
    with pytest.raises(InstarError, match="subprocess"):
        load(lamp_bundle(store, links, "1.0", pickled=evil))


@pytest.mark.parametrize("swapped", ["native.pickle", "code.zip"])
def test_a_file_that_is_swapped_after_it_was_looked_at_is_not_loaded(
    store: Store, links: Path, load: Any, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    asked = housed.request

    def swap(folder: Path, manifest: bundle.Manifest) -> dict[str, Any]:
        looked_at = asked(folder, manifest)
        (folder / swapped).write_bytes(pickle.dumps(subprocess.Popen))
        return looked_at

    monkeypatch.setattr(housed, "request", swap)
    with pytest.raises(Damaged, match=f"{swapped} was changed after it was looked at"):
        load(lamp_bundle(store, links, "1.0"))


def test_a_file_that_is_swapped_before_it_is_looked_at_is_not_loaded(store: Store, links: Path, load: Any) -> None:
    folder, _ = prepared(store, lamp_bundle(store, links, "1.0"))
    manifest = loading.verified(folder)
    (folder / "native.pickle").write_bytes(pickle.dumps([1]))
    with pytest.raises(Damaged, match=r"native\.pickle was changed"):
        housed.request(folder, manifest)


WARM = """
import os
IMPORTED_BY = os.getpid()

class Lamp:
    def predict(self, frame):
        return [float(IMPORTED_BY != os.getpid())] * len(frame["distance"])
"""


def body(carrier: str = "UA") -> dict[str, Any]:
    return {
        "inputs": [
            {"name": "distance", "shape": [1], "datatype": "FP64", "data": [1000.0]},
            {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": [carrier]},
        ]
    }


def test_a_second_version_in_one_environment_is_forked_and_imports_nothing_anew(store: Store, links: Path) -> None:
    wheels.make(links, "sklearn", "0.0", {"sklearn/__init__.py": "", "sklearn/linear_model.py": WARM})
    lock = f"--no-index\n--find-links {links}\nsklearn==0.0\n"
    pickled = b"\x80\x02csklearn.linear_model\nLamp\n)\x81."
    digests = {one: lamp_bundle(store, links, "1.0", lock=lock, pickled=pickled, threshold=0.1 * one) for one in (1, 2)}
    for version in digests:
        routing.set_policy(store, "flights", f"lamp{version}", champion=version, bundles=digests, cause="test")
    number = published(store)
    with (
        start(store.folder, loader="instar.serve.worker.loading:load") as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        acknowledged(store.folder, number)
        for version in digests:
            answer = client.post(f"/v2/models/lamp{version}/infer", json=body())
            assert answer.json()["outputs"][0]["data"] == [1.0], answer.text


@pytest.mark.parametrize("fork", ["on", "off"])
def test_both_versions_serve_in_one_server_and_a_dead_one_is_replaced(store: Store, links: Path, fork: str) -> None:
    digests = {1: lamp_bundle(store, links, "1.0"), 2: lamp_bundle(store, links, "2.0")}
    for name, version in (("old", 1), ("new", 2)):
        routing.set_policy(store, "flights", name, champion=version, bundles=digests, cause="test")
    number = published(store)
    routes = read_snapshot(store.folder)
    assert len({one.environment for route in routes.endpoints.values() for one in route.held}) == 2
    with (
        start(store.folder, loader="instar.serve.worker.loading:load", environment={"INSTAR_FORK": fork}) as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        acknowledged(store.folder, number)

        def score(endpoint: str, carrier: str = "UA") -> Any:
            return client.post(f"/v2/models/{endpoint}/infer", json=body(carrier))

        assert [score(name).json()["outputs"][0]["data"][0] for name in ("old", "new")] == pytest.approx([0.2, 0.6])
        assert score("old", "boom").status_code == 500
        assert "a lamp broke" in score("old", "boom").text
        assert "ended the process" in score("old", "die").text
        assert score("old").json()["outputs"][0]["data"] == pytest.approx([0.2])


class Block:
    """The line to a shim that answers here: with how often each row's place was, and keeps the frame it was given."""

    def __init__(self, inputs: Sequence[bundle.Column], form: str) -> None:
        self.loaded: Any = object.__new__(shim.Loaded)
        self.loaded._asked = {"columns": [(one.name, one.datatype) for one in inputs], "form": form}
        self.loaded._predict, self.loaded._bare = self.keep, None
        self.given: Any = None
        self.missing: Any = None

    def keep(self, given: Any) -> list[float]:
        self.given = given
        return [0.5] * self.rows

    def ask(self, head: dict[str, Any], parts: Sequence[bytes]) -> tuple[dict[str, Any], list[bytearray]]:
        self.rows, self.missing = head["rows"], head["missing"]
        answer, values = self.loaded.answer(head, [bytearray(part) for part in parts])
        return answer, [bytearray(value) for value in values]


@pytest.mark.parametrize("form", ["columns", "pandas", "polars", "pyarrow"])
@pytest.mark.parametrize("kind", ["BOOL", "INT32", "INT64", "FP32", "FP64"])
@pytest.mark.parametrize("gaps", [False, True])
def test_columns_of_one_type_cross_as_one_block_and_are_the_same_frame(form: str, kind: str, gaps: bool) -> None:
    from instar.train.frames import as_form, frame_of

    inputs = [bundle.Column(name, kind, nullable=True) for name in ("a", "b", "c")]
    values: list[Any] = [True, False, True] if kind == "BOOL" else [1, 2, 3] if "INT" in kind else [0.25, 1.0, 3.5]
    given = {"a": values, "b": values[::-1], "c": [values[0], None if gaps else values[1], values[2]]}
    line: Any = Block(inputs, form)
    manifest: Any = SimpleNamespace(inputs=inputs, form=form)
    assert housed.HousedTable(line, manifest, True).score(given).tolist() == [0.5] * 3
    assert (line.missing is None) == (not gaps or (form == "pandas" and kind in ("FP32", "FP64")))
    wanted = as_form(frame_of(given, inputs), form)
    if form == "pandas":
        import pandas

        pandas.testing.assert_frame_equal(line.given, wanted)
    else:
        assert line.given.equals(wanted) if form != "columns" else line.given == wanted


def test_a_shim_asks_an_estimator_without_a_data_frame_where_that_is_the_same(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pandas = pytest.importorskip("pandas")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names = ["a", "b"]
    rows = pandas.DataFrame([[0.5, 2.0], [1.5, -1.0], [3.0, 0.25], [-1.0, 1.0]], columns=names)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, [0, 1, 1, 0])
    file = tmp_path / "native.pickle"
    file.write_bytes(pickle.dumps(model))
    loaded = shim.Loaded({
        "way": "pickle", "file": str(file), "checked": {str(file): hashlib.sha256(file.read_bytes()).hexdigest()}, "code": "",
        "logged": False, "form": "pandas", "columns": [(name, "FP64") for name in names],
    })  # fmt: skip
    assert loaded._bare is not None
    block = rows.to_numpy().T.tobytes()
    _, (scores,) = loaded.answer({"do": "score", "rows": 4, "missing": None}, [bytearray(block)])
    assert scores == model.predict_proba(rows)[:, 1].tobytes()
