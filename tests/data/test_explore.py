"""What `data show` and `data diff` say about versions."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from instar.core.store import Store
from instar.data import explore, tables
from instar.data.checks import Check
from instar.data.tables import TableVersion


def write(store: Store, **columns: list[Any]) -> TableVersion:
    checks = [Check("v is small", pl.col("v") < 50, "warn")]
    return tables.write_version(store, "shop", "orders", "silver", pl.DataFrame(columns), key=["k"], checks=checks)


def test_a_version_described(store: Store) -> None:
    found = explore.describe(store, write(store, k=[1, 2], v=[1.0, 99.0]), sample=1)
    assert (found["ref"], found["rows"], found["files"]) == ("orders@1", 2, 1)
    assert found["checks"] == [
        {"name": "v is small", "severity": "warn", "passed": False, "failing_rows": 1, "rows": 2}
    ]
    assert [column["name"] for column in found["columns"]] == ["k", "v"]
    assert found["columns"][1]["maximum"] == 99.0
    assert found["sample"] == [{"k": 1, "v": 1.0}]
    json.dumps(found)


def test_the_difference_of_two_versions(store: Store) -> None:
    old = write(store, k=[1, 2, 3], v=[1.0, 2.0, None])
    new = write(store, k=[2, 3, 4], v=[2.0, 7.0, 8.0], w=["x", "y", "z"])
    found = explore.diff(store, old, new)
    assert found["columns"] == {"added": ["w"], "removed": [], "retyped": []}
    assert found["keys"] == {"added": 1, "removed": 1, "changed": 1}
    assert found["rows"] == [3, 3]
    assert {one["column"] for one in found["drift"]} == {"k", "v"}
    json.dumps(found)
    assert explore.diff(store, old, old)["keys"] == {"added": 0, "removed": 0, "changed": 0}
