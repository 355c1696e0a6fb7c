from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn")
pytest.importorskip("treelite")

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from instar.train.conversion import convert, parity
from instar.train.frames import as_form
from instar.train.native import NativeModel
from instar.train.portable import PortableModel
from instar.train.signature import normalise, signature

NAN = float("nan")
TEXT, NUMBERS = ["carrier", "dest"], ["num", "hour", "wind", "flag"]


def table(rows: int = 600, seed: int = 0) -> tuple[pl.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "num": rng.normal(size=rows),
            "carrier": rng.choice(["AA", "UA", "B6"], rows),
            "hour": rng.choice([1, 2, 7, 12, 23], rows),
            "dest": rng.choice([None, "X", "Y", "Z"], rows).tolist(),
            "wind": [None if x < 0.1 else x for x in rng.random(rows)],
            "flag": rng.random(rows) < 0.5,
        }
    )
    odds = (
        (frame["hour"].to_numpy() > 6) * 1.0
        + (frame["carrier"].to_numpy() == "AA") * 2.0
        + frame["dest"].is_null().to_numpy() * 1.5
        + rng.normal(size=rows)
    )
    return normalise(frame), (odds > 1.8).astype(int)


def trees(unknown: float, **options: Any) -> Pipeline:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=unknown)
    front = ColumnTransformer([("text", encoder, TEXT)], remainder="passthrough")
    model = HistGradientBoostingClassifier(max_iter=12, max_leaf_nodes=8, min_samples_leaf=5, random_state=0, **options)
    return Pipeline([("encode", front), ("trees", model)])


def fitted(estimator: Any, form: str, columns: list[str] | None = None) -> tuple[PortableModel, NativeModel, Any]:
    frame, y = table()
    frame = frame.select(columns or frame.columns)
    estimator.fit(as_form(frame, form), y)
    converted = convert(estimator, frame, form)
    assert converted.portable is not None, converted.why
    inputs = signature(frame, nullable=frame.columns)
    return PortableModel.from_bytes(converted.portable, converted.data), NativeModel(estimator, inputs, form), converted


@pytest.mark.parametrize("form", ["polars", "pandas"])
@pytest.mark.parametrize("unknown", [NAN, -1])
def test_encoded_trees_answer_alike_on_unknown_and_missing_values(form: str, unknown: float) -> None:
    if form == "pandas":
        pytest.importorskip("pandas")
    portable, native, converted = fitted(trees(unknown, categorical_features=[0, 1]), form)
    assert converted.portable.form == "treelite"
    frame, _ = table(200, seed=1)
    odd = frame.with_columns(carrier=pl.lit("??"), dest=pl.lit("nowhere"))
    none = frame.with_columns(dest=pl.lit(None, dtype=pl.String), wind=pl.lit(None, dtype=pl.Float64))
    rows = pl.concat([frame, odd, none])
    asked = native.score_frame(rows)
    found = portable.score({name: rows[name].to_list() for name in rows.columns})
    assert np.abs(found - asked).max() < 1e-12
    assert len(set(np.round(asked, 6))) > 20


@functools.cache
def pair() -> tuple[PortableModel, NativeModel]:
    return fitted(trees(-1, categorical_features=[0, 1, 3]), "polars")[:2]


value = {
    "carrier": st.sampled_from(["AA", "UA", "B6", "", "nan", "None", "aa", "\x00never seen"])
    | st.text(max_size=3)
    | st.none(),
    "dest": st.sampled_from(["X", "Y", "Z", "W"]) | st.none(),
    "hour": st.integers(-3, 30),
    "num": st.floats(-5, 5) | st.none(),
    "wind": st.floats(0, 1) | st.none(),
    "flag": st.booleans(),
}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.fixed_dictionaries(value), min_size=1, max_size=9))
def test_any_row_scores_as_natively_however_many_rows_a_call_has(rows: list[dict[str, Any]]) -> None:
    # `hour` is a category of the trees itself: an hour that was never seen is missing to the native form.
    portable, native = pair()
    columns = {name: [row[name] for row in rows] for name in value}
    asked = native.score(columns)
    assert np.abs(portable.score(columns) - asked).max() < 1e-12
    one_by_one = [portable.score({name: [row[name]] for name in value})[0] for row in rows]
    assert np.abs(np.array(one_by_one) - asked).max() < 1e-12


@pytest.mark.parametrize("form", ["polars", "pandas"])
@pytest.mark.parametrize(
    ("estimator", "kind", "tolerance"),
    [
        (HistGradientBoostingClassifier(max_iter=9, random_state=0), "treelite", 1e-12),
        (HistGradientBoostingClassifier(max_iter=9, categorical_features=[1], random_state=0), "treelite", 1e-12),
        (RandomForestClassifier(9, random_state=0), "treelite", 1e-12),
        (make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()), "onnx", 1e-5),
    ],
)
def test_bare_models_on_numbers(estimator: Any, kind: str, tolerance: float, form: str) -> None:
    if form == "pandas":
        pytest.importorskip("pandas")
    if kind == "onnx":
        pytest.importorskip("skl2onnx")
    portable, native, converted = fitted(estimator, form, ["num", "hour", "wind"])
    assert (converted.portable.form, converted.portable.layout) == (kind, "matrix")
    rows = table(300, seed=2)[0].select("num", "hour", "wind")
    found = portable.score({name: rows[name].to_list() for name in rows.columns})
    assert np.abs(found - native.score_frame(rows)).max() < tolerance


def test_one_hot_texts_become_tables_before_trees() -> None:
    front = ColumnTransformer(
        [("text", OneHotEncoder(handle_unknown="ignore", drop="first"), TEXT), ("rest", "passthrough", ["hour", "num"])]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn says which unknown values become zeros
        portable, native, converted = fitted(make_pipeline(front, RandomForestClassifier(7, random_state=0)), "polars")
        assert converted.portable.form == "treelite"
        assert {field.column for field in converted.portable.fields} == {"carrier", "dest", "hour", "num"}
        rows = pl.concat([table(50, seed=3)[0], table(50, seed=4)[0].with_columns(carrier=pl.lit("?"))])
        found = portable.score({name: rows[name].to_list() for name in rows.columns})
        assert np.abs(found - native.score_frame(rows)).max() < 1e-12


def test_scaled_numbers_beside_one_hot_texts_become_one_graph() -> None:
    pytest.importorskip("skl2onnx")
    front = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["num", "hour", "wind"]),
            ("text", OneHotEncoder(handle_unknown="ignore"), ["carrier"]),
        ]
    )
    portable, native, converted = fitted(make_pipeline(front, LogisticRegression()), "polars")
    assert (converted.portable.form, converted.portable.layout) == ("onnx", "columns")
    rows = pl.concat([table(50, seed=3)[0], table(50, seed=4)[0].with_columns(carrier=pl.lit("?"))])
    for few in (rows, rows.head(1)):
        found = portable.score({name: few[name].to_list() for name in few.columns})
        assert np.abs(found - native.score_frame(few)).max() < 1e-5


def test_what_has_no_portable_form_says_why() -> None:
    frame, y = table()
    front = ColumnTransformer([("text", OrdinalEncoder(), ["carrier"])])
    refusing = make_pipeline(front, HistGradientBoostingClassifier(max_iter=3)).fit(frame, y)
    converted = convert(refusing, frame, "polars")
    assert converted.portable is None
    assert "has not seen" in converted.why

    class Own:
        classes_ = (0, 1)

    assert "not a class of scikit-learn" in convert(Own(), frame, "polars").why
    assert parity(convert(Own(), frame, "polars"), pair()[1].score_frame, frame, signature(frame)) is None


def test_parity_is_measured_with_unknown_and_missing_values_and_fails_when_the_forms_differ() -> None:
    frame, y = table()
    estimator = trees(-1, categorical_features=[0, 1]).fit(frame, y)
    inputs = signature(frame)
    converted = convert(estimator, frame, "polars")
    native = NativeModel(estimator, inputs, "polars")
    held_out, _ = table(100, seed=9)
    good = parity(converted, native.score_frame, held_out, inputs)
    assert good is not None
    assert good.passed
    assert good.rows > 150
    off = parity(converted, lambda rows: native.score_frame(rows) + 1e-6, held_out, inputs)
    assert off is not None
    assert not off.passed
    assert off.max_difference == pytest.approx(1e-6)
