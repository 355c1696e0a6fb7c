"""Whatever filter or order MLflow's own client can read, our grammar reads with the same meaning."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.train.run_fields import VOCABULARY
from instar.train.search_grammar import parse, parse_order
from instar.train.search_words import And, Comparison


def theirs(text: str) -> list[tuple[str, str, str, Any]] | None:
    """What MLflow reads: kind, key, operator, value; None when it refuses."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.search_utils import SearchUtils

    try:
        found = SearchUtils.parse_search_filter(text)
        for one in found:
            kind, key, operator = one["type"], SearchUtils.translate_key_alias(one["key"]), one["comparator"].upper()
            known = (
                SearchUtils.is_metric(kind, operator)
                or SearchUtils.is_param(kind, operator)
                or SearchUtils.is_tag(kind, operator)
                or SearchUtils.is_attribute(kind, key, operator)
                or SearchUtils.is_dataset(kind, operator)
            )
            if not known or isinstance(one["value"], tuple) != operator.endswith("IN"):
                return None  # it reads `= ('a')`, and then no database does
            if kind == "metric":
                one["value"] = float(one["value"])
            one["key"], one["comparator"] = key, operator
    except (MlflowException, ValueError, KeyError):
        return None
    return [(one["type"], one["key"], one["comparator"], one["value"]) for one in found]


def ours(text: str) -> list[tuple[str, str, str, Any]]:
    tree = parse(text, VOCABULARY)
    parts = () if tree is None else tree.parts if isinstance(tree, And) else (tree,)
    found = []
    for part in parts:
        assert isinstance(part, Comparison)
        value = float(part.value) if part.field.kind == "metric" else part.value  # type: ignore[arg-type]
        found.append((part.field.kind, part.field.key, part.operator, value))
    return found


FILTERS = [
    "metrics.loss < 0.5", "metric.loss>=1", "metrics.`a b`!= -1.5", 'metrics."a.b" = 1e-3', "metrics.a.b.c <= 10",
    "metrics.loss = .5", "metrics.loss = 5.", "metrics.loss = 1E5", "metrics.loss = -0", "metrics.val_loss > 00012",
    "params.model = 'trees'", 'params.model = "trees"', "param.model != ''", "parameters.a LIKE 'x%'", "parameter.a ilike '%Y_'",
    "params.`a/b` = 'it''s'", 'params."x-y" = "it\'s"', "params.a = 'back\\\\slash'", "params.a = 'a AND b'", "params.a IS NULL",
    "tags.mlflow.source.name = 'x'", "tags.`mlflow.user` LIKE '%'", "tag.a is not null", "tags.a = 'é 🚀'",
    "attributes.status = 'RUNNING'", "attr.run_id IN ('a', 'b')", "run_id NOT IN ('a')", 'attribute.run_id in ("a",)',
    "start_time > 5", "attributes.end_time<=1700000000000", "created = 1", "`run name` = 'x'", "attributes.`Run name` LIKE 'x%'",
    "run_name = 'a b'", "artifact_uri LIKE '%s3%'", "user_id ILIKE 'ADA'", "run.status != 'FAILED'",
    "dataset.name = 'x'", "datasets.digest IN ('a','b')", "dataset.context ILIKE 'TRAIN'",
    "metrics.a > 1 AND params.b = 'c' and tags.d LIKE 'e%'", "  metrics.a>1   AND\nparams.b='c'\t",
    "metrics.a > 1 AND run_id IN ('x', 'y') AND tags.z IS NULL", "",
]  # fmt: skip


@pytest.mark.parametrize("text", FILTERS)
def test_known_filters_mean_the_same(text: str) -> None:
    expected = theirs(text)
    assert expected is not None, "MLflow cannot read it: not an example"
    assert ours(text) == expected


keys = st.sampled_from(
    ["a", "loss", "a.b", "`a b`", '"a-b"', "`x/y`", "mlflow.user", "val_loss", "desc", "in_x", "notes", "order1"]
)
logged = st.tuples(st.sampled_from(["metrics", "metric", "params", "param", "parameters", "tags", "tag"]), keys).map(
    ".".join
)
fixed = st.sampled_from(
    ["start_time", "attributes.end_time", "run_id", "attr.run_name", "status", "`run name`", "run.user_id", "dataset.name",
     "datasets.context", "created", "artifact_uri", "dataset.digest"]
)  # fmt: skip
signs = st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "LIKE", "ilike", "IN", "not in", "IS NULL", "is not null"])
texts = st.text("ab %_.\\`AND(),=<>é1", max_size=6)
values = st.one_of(
    texts.filter(lambda text: "\\" not in text).map(lambda text: f"'{text}'"),
    texts.filter(lambda text: "\\" not in text).map(lambda text: f'"{text}"'),
    st.integers(-(10**6), 10**6).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.lists(st.sampled_from(["'a'", '"b"', "'c d'"]), min_size=1, max_size=3).map(lambda some: f"({', '.join(some)})"),
)
spaces = st.sampled_from([" ", "  ", "\n"])


@st.composite
def filters(draw: st.DrawFn) -> str:
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        sign = draw(signs)
        value = "" if "null" in sign.lower() else draw(spaces) + draw(values)
        parts.append(draw(logged | fixed) + draw(spaces) + sign + value)
    return draw(st.sampled_from([" AND ", " and ", "\nAND "])).join(parts)


@settings(max_examples=1500, deadline=None)
@given(text=filters())
def test_whatever_mlflow_reads_we_read_alike(text: str) -> None:
    expected = theirs(text)
    if expected is not None:
        assert ours(text) == expected


@pytest.mark.parametrize(
    "text",
    ["metrics.loss", "metrics.loss DESC", "metric.`a b` asc", 'params."a-b" desc', "tags.mlflow.user", "start_time DESC",
     "attributes.start_time", "created", "attribute.end_time ASC", "run_id", "status desc", "metrics.a.b desc", "`metrics`.loss"],
)  # fmt: skip
def test_orders_mean_the_same(text: str) -> None:
    from mlflow.utils.search_utils import SearchUtils

    kind, key, ascending = SearchUtils.parse_order_by_for_search_runs(text)
    (order,) = parse_order(text, VOCABULARY)
    assert (order.field.kind, order.field.key, order.ascending) == (
        kind,
        SearchUtils.translate_key_alias(key),
        ascending,
    )
