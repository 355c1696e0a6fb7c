"""A model that is given a matrix says what it says of the data frame."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from instar.train.bundle import Column
from instar.train.frames import Frames
from instar.train.native import NativeModel, _scores

pytest.importorskip("sklearn")
pandas = pytest.importorskip("pandas")

NAMES = [f"x{at}" for at in range(12)]


def inputs_of(datatype: str = "FP64") -> tuple[Column, ...]:
    return tuple(Column(name, datatype, nullable=True) for name in NAMES)


def table(rows: int = 120, seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    frame = pandas.DataFrame(random.normal(size=(rows, len(NAMES))), columns=NAMES)
    return frame, frame["x1"] + 0.3 * random.normal(size=rows) > 0


def logistic() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression())


def trees() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=10)


def imputed() -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(SimpleImputer(add_indicator=True), "passthrough", LogisticRegression())


def forest() -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(n_estimators=5, random_state=0)


@pytest.mark.parametrize("make", [logistic, trees, imputed, forest])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 33])
def test_the_answer_is_the_same_to_the_last_bit_and_without_a_warning(make: Any, named: bool, rows: int) -> None:
    frame, truth = table()
    model = make().fit(frame if named else frame.to_numpy(), truth)
    asked, _ = table(rows, seed=1)
    if make in (trees, imputed):
        asked.iloc[0, 3] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = _scores(model, asked)
    live = NativeModel(model, inputs_of(), "pandas")
    assert live._quick is not None
    columns = {name: [None if value != value else value for value in asked[name].tolist()] for name in NAMES}
    found = live.score(columns)
    assert found.tobytes() == wanted.tobytes()
    assert live.model is model  # and it is as it was
    assert hasattr(model, "feature_names_in_") is named


def own_step() -> Any:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    class ByName(TransformerMixin, BaseEstimator):  # type: ignore[misc]
        def fit(self, X: Any, y: Any = None) -> Any:
            self.n_features_in_ = X.shape[1]
            return self

        def transform(self, X: Any) -> Any:
            return X[["x1", "x0"]]

    return make_pipeline(ByName(), LogisticRegression())


def by_columns() -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(make_column_transformer((StandardScaler(), ["x1", "x2"])), LogisticRegression())


def handed_on() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    return make_pipeline(FunctionTransformer(), LogisticRegression())


def framed() -> Any:
    return logistic().set_output(transform="pandas")


def nothing_first() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline("passthrough", LogisticRegression())


@pytest.mark.parametrize("make", [own_step, by_columns, handed_on, framed, nothing_first])
def test_what_may_ask_for_a_name_keeps_its_data_frame(make: Any) -> None:
    frame, truth = table()
    model = make().fit(frame, truth)
    live = NativeModel(model, inputs_of(), "pandas")
    assert live._quick is None
    columns = {name: frame[name].tolist() for name in NAMES}
    assert live.score(columns).tobytes() == _scores(model, frame).tobytes()


def test_names_types_and_numbers_of_columns_must_be_those_of_the_fit() -> None:
    frame, truth = table()
    model = logistic().fit(frame, truth)
    turned = tuple(reversed(inputs_of()))
    mixed = (*inputs_of()[:-1], Column("x11", "INT64"))
    for inputs in (turned, mixed, inputs_of()[:-1], (*inputs_of()[:-1], Column("x11", "BYTES"))):
        assert Frames(inputs, "pandas").without(model, _scores) is None
    assert Frames(inputs_of(), "pandas").without(model, _scores) is not None
    assert Frames(inputs_of("INT64"), "pandas").without(model, _scores) is not None


def test_a_fault_of_the_rows_is_told_in_the_same_words() -> None:
    frame, truth = table()
    live = NativeModel(logistic().fit(frame, truth), inputs_of(), "pandas")
    columns: dict[str, list[Any]] = {name: [0.0, None] for name in NAMES}
    assert live._quick is not None
    with pytest.raises(Exception, match="Input X contains NaN"):
        live.score(columns)
    with pytest.raises(Exception, match="Input X contains NaN"):
        _scores(live.model, Frames(inputs_of(), "pandas").make(columns))
