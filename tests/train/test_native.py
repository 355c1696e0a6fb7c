from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from instar.core.errors import MissingInput, StepFailed
from instar.train.bundle import Column
from instar.train.frames import frame_of
from instar.train.native import NativeModel, dump

INPUTS = (
    Column("share", "FP64", nullable=True),
    Column("count", "INT64", nullable=True),
    Column("flag", "BOOL", nullable=True),
    Column("name", "BYTES", nullable=True),
    Column("small", "FP32"),
)
VALUES: dict[str, list[Any]] = {
    "name": ["a", None, ""],
    "share": [1, None, 0.5],
    "count": [2**60, None, -1],
    "flag": [True, None, False],
    "small": [0.5, 1, 2],
    "other": [object()] * 3,
}


@pytest.mark.parametrize("times", [1, 20])
def test_a_frame_has_the_types_and_the_order_of_the_signature_however_many_rows(times: int) -> None:
    frame = frame_of({name: values * times for name, values in VALUES.items()}, INPUTS)
    assert frame.schema == {
        "share": pl.Float64, "count": pl.Int64, "flag": pl.Boolean, "name": pl.String, "small": pl.Float32,
    }  # fmt: skip
    expected = [(1.0, 2**60, True, "a", 0.5), (None, None, None, None, 1.0), (0.5, -1, False, "", 2.0)]
    assert frame.rows() == expected * times


@pytest.mark.parametrize("rows", [1, 30])
def test_a_column_that_is_null_throughout_keeps_its_type(rows: int) -> None:
    columns = {name: [None] * rows for name in ("share", "count", "flag", "name")} | {"small": np.ones(rows)}
    assert frame_of(columns, INPUTS).dtypes == [pl.Float64, pl.Int64, pl.Boolean, pl.String, pl.Float32]


def test_a_missing_column_is_named() -> None:
    with pytest.raises(MissingInput, match="count"):
        frame_of({"share": [1.0]}, INPUTS)


class Answers:
    def __init__(self, value: Any) -> None:
        self.value = value

    def predict(self, frame: pl.DataFrame) -> Any:
        return self.value


def test_no_rows_score_to_nothing() -> None:
    model = NativeModel(Answers(None), INPUTS, "polars")
    assert model.score({column.name: [] for column in INPUTS}).shape == (0,)


@pytest.mark.parametrize("value", [[0.1], [0.1, float("nan")], 0.5, ["x", "y"], [[0.1, 0.2]] * 2, None])
def test_an_answer_that_is_not_one_number_a_row_is_refused(value: Any) -> None:
    model = NativeModel(Answers(value), INPUTS[:1], "polars", "model m")
    with pytest.raises(StepFailed, match="model m"):
        model.score({"share": [1.0, 2.0]})
    assert NativeModel(Answers([True, False]), INPUTS[:1], "polars").score({"share": [1, 2]}).tolist() == [1.0, 0.0]


def test_what_cannot_be_pickled_says_so() -> None:
    with pytest.raises(StepFailed, match="cannot be saved"):
        dump(lambda: 0, "step s")


class OneClass:
    def __init__(self, seen: int) -> None:
        self.classes_ = [seen]

    def predict_proba(self, frame: pl.DataFrame) -> Any:
        return np.ones((frame.height, 1))


@pytest.mark.parametrize("seen", [0, 1])
def test_a_model_that_saw_one_class_is_sure_of_it(seen: int) -> None:
    assert NativeModel(OneClass(seen), INPUTS[:1], "polars").score({"share": [1.0]}).tolist() == [float(seen)]
