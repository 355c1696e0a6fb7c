"""Masks: equal under one salt, and without it they tell nothing."""

from __future__ import annotations

import pytest

from instar.core.errors import BadInput
from instar.data import privacy


def test_masks_are_equal_under_one_salt_and_tell_nothing() -> None:
    classes = {"name": "personal", "age": "internal"}
    row = {"name": "Ada", "age": 36, "city": None}
    one, two = privacy.mask_row(row, classes, b"salt"), privacy.mask_row(row, classes, b"other")
    assert one == privacy.mask_row(row, classes, b"salt")
    assert (one["age"], one["city"]) == (36, None)
    assert one["name"] != two["name"]
    assert one["name"].startswith("masked:")
    assert "Ada" not in str(one)
    assert privacy.mask(1, b"s") != privacy.mask("1", b"s")
    assert privacy.mask_columns({"name": ["Ada", None]}, classes, b"salt") == {"name": [one["name"], None]}
    assert privacy.privacy_class(classes, "city") == "internal"
    with pytest.raises(BadInput, match="public, internal, personal"):
        privacy.privacy_class({"a": "secret"}, "a")
