"""`MLmodel` in and out: what MLflow wrote is read as our columns, and what we write is a promise to its clients."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.core.errors import BadInput
from instar.core.store import Store
from instar.serve.pyfunc import _load_pyfunc
from instar.train import bundle, mlmodel, mlmodel_writing
from instar.train.environment import Environment
from tests.evaluate.bundles import make_bundle
from tests.train.folders import pack

GOLDEN = Path(__file__).parent / "golden" / "mlmodel"


def golden(name: str, text: str) -> None:
    """Hold a text to its file; `INSTAR_RENEW_GOLDEN=1` writes it anew."""
    file = GOLDEN / name
    if os.environ.get("INSTAR_RENEW_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


def test_what_mlflow_wrote_becomes_a_manifest(store: Store) -> None:
    """The file is MLflow 3.17.2's own, of a pipeline of scikit-learn."""
    files = {name: (GOLDEN / "sklearn" / name).read_bytes() for name in ("MLmodel", "requirements.txt")}
    manifest = bundle.load_manifest(store.blobs, pack(store, {**files, "model.skops": b"x"}, run="run_1"))
    environment = msgspec.json.decode(store.blobs.get(manifest.environment), type=Environment)
    said = {"manifest": msgspec.json.decode(bundle.encode(manifest)), "environment": msgspec.to_builtins(environment)}
    golden("manifest.json", msgspec.json.format(msgspec.json.encode(said, order="sorted"), indent=1).decode() + "\n")


def test_our_own_mlmodel(store: Store) -> None:
    manifest = bundle.load_manifest(store.blobs, make_bundle(store))
    columns = (
        bundle.Column("distance", "FP64"), bundle.Column("hour", "INT64", nullable=True),
        bundle.Column("carrier", "BYTES", nullable=True), bundle.Column("holiday", "BOOL"),
    )  # fmt: skip
    fixed = msgspec.structs.replace(manifest, inputs=columns, run="run_1", step="trees", threshold=0.25)
    golden("MLmodel", mlmodel_writing.mlmodel(fixed, "b3:" + "0" * 64).decode())
    read = mlmodel.read(mlmodel_writing.mlmodel(fixed, "b3:0"))
    assert [one.name for one in read.inputs or ()] == ["distance", "hour", "carrier", "holiday"]
    assert read.pyfunc["loader_module"] == "instar.serve.pyfunc"


def test_a_folder_of_ours_answers_in_a_client_as_in_a_worker(store: Store, tmp_path: Path) -> None:
    import pandas as pd

    from instar.serve.worker.loading import load

    digest = make_bundle(store)
    folder = tmp_path / digest.removeprefix("b3:")
    manifest = bundle.unpack(store.blobs, digest, folder)
    there = tmp_path / "downloaded elsewhere"
    folder.rename(there)
    for name, text in mlmodel_writing.texts(manifest, digest).items():
        (there / name).write_bytes(text)
    row: dict[str, Any] = {one.name: "UA" if one.datatype == "BYTES" else 3.0 for one in manifest.inputs}
    said = _load_pyfunc(str(there)).predict(pd.DataFrame([row, row]))
    wanted = load(there, named=digest).score({name: [value] for name, value in row.items()})
    assert list(said["score"]) == [wanted[0]] * 2
    assert list(said["decision"]) == [wanted[0] >= manifest.threshold] * 2


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_text_is_a_failure_of_ours(text: bytes) -> None:
    with contextlib.suppress(BadInput):
        mlmodel.read(text)


@pytest.mark.parametrize(
    "text",
    [b"a: &a [x]\nb: [*a, *a]", b"!!python/object/apply:os.system [ls]", b"- 1", b"flavors: [a]", b"flavors: {a: 1}",
     b"flavors: {}\nsignature: {inputs: 'not json'}", b"flavors: {}\nsignature: {inputs: '[1]'}", b"[" * 5000, b"\xff\xfe"],
)  # fmt: skip
def test_what_is_no_mlmodel(text: bytes) -> None:
    with pytest.raises(BadInput):
        mlmodel.read(text)
