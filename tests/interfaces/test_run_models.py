"""A model that a run logs is a logged model with a bundle, like one of MLflow's client; delivered twice it is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from instar.core import ids
from instar.core.errors import BadInput
from instar.core.store import Store
from instar.interfaces.sdk import models
from instar.release import packing
from instar.train import artifacts, intake, logged_models, mlmodel
from instar.train.bundle import load_manifest
from instar.train.delivery import Batch
from instar.train.runs import get_run
from instar.train.spool import MAIN
from instar.train.spool_records import Model, Start, encode

from .test_run import Begin, begin, here, store  # noqa: F401

linear_model = pytest.importorskip("sklearn.linear_model")

ROWS = pl.DataFrame({"weight": [1.0, 2.0, 3.0, 4.0], "fragile": [True, False, True, False]})


@pytest.fixture
def model() -> Any:
    return linear_model.LogisticRegression().fit(ROWS.to_numpy().astype(float), [0, 0, 1, 1])


def test_a_model_is_logged_packed_and_linked_to_its_run(begin: Begin, store: Store, model: Any) -> None:  # noqa: F811
    with begin() as run:
        logged = run.log_model(model, "parcel", sample=ROWS)
    found = logged_models.get(store, logged)
    assert (found.name, found.state, found.run, found.reason) == ("parcel", logged_models.READY, run.id, "")
    assert found.bundle is not None
    manifest = load_manifest(store.blobs, found.bundle)
    assert [(column.name, column.datatype) for column in manifest.inputs] == [("weight", "FP64"), ("fragile", "BOOL")]
    assert manifest.folder is not None
    assert manifest.folder.unservable == ""
    assert {one.path for one in artifacts.all_artifacts(store, logged)} == {"MLmodel", "model.pkl", "requirements.txt"}
    assert intake.REFUSED not in get_run(store, run.id).tags


def test_a_matrix_as_sample_and_no_sample_are_said_in_the_signature(model: Any) -> None:
    matrix = models.folder_of(model, np.zeros((2, 3)), run="run_1")["MLmodel"]
    described = mlmodel.read(matrix)
    assert (described.matrix, len(described.inputs or ()), described.run) == (True, 3, "run_1")
    assert "no signature" in mlmodel.read(models.folder_of(model, None, run="run_1")["MLmodel"]).why


def test_what_is_no_model_is_refused(begin: Begin, model: Any) -> None:  # noqa: F811
    with begin() as run:
        for wrong, why in ((object(), "by itself"), ("text", "by itself")):
            with pytest.raises(BadInput, match=why):
                run.log_model(wrong)
        with pytest.raises(BadInput, match="name of a model"):
            run.log_model(model, "a/b")
        for sample in (3, np.zeros(3)):
            with pytest.raises(BadInput, match="sample of rows"):
                run.log_model(model, sample=sample)


def test_a_model_that_is_delivered_twice_is_one_and_one_without_its_content_is_refused(
    store: Store,  # noqa: F811
    model: Any,
    tmp_path: Path,
) -> None:
    run, logged = ids.new_id("run"), models.new_id()
    files = [(path, store.blobs.put(data), len(data)) for path, data in models.folder_of(model, ROWS, run=run).items()]
    missing = ("model.pkl", ids.digest(b"never sent"), 1)
    records = [
        Start("parcels", "late", 1),
        Model(logged, "m", files),
        Model("m-2", "m", [missing]),
        Model("3", "m", []),
    ]
    batch = Batch("parcels", run, MAIN, 0, [encode(one) for one in records])
    intake.apply(store, Batch("parcels", run, MAIN, 0, batch.frames[:2]), packing.close)
    store.database.write(lambda tx: tx.exec_driver_sql("UPDATE run_spool SET applied = 1"))  # as if the answer was lost
    assert intake.apply(store, batch, packing.close) == 4
    assert logged_models.get(store, logged).state == logged_models.READY
    assert get_run(store, run).tags[intake.REFUSED].startswith("2: ")
