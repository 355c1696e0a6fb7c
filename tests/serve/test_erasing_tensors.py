"""Erasing a person whose values are tensors, and from calls that failed: nothing is left, and the proof holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from instar.core.store import Store
from instar.serve.log import catalogue, erasing, masking, record, rewriting, sealing, verification
from instar.serve.log.calls import CallLog
from instar.serve.log.erasing import Selector
from instar.serve.log.record import Personal, Tensor
from instar.serve.traffic import routes, routing
from tests.serve.writing import Segment

TENSORS = (("words", "BYTES", (-1, 2), True), ("customer", "INT64", (-1, 1), False), ("x", "FP32", (-1, 2), False))
OUTPUTS = (("score", "FP32", (-1, 1)),)


@pytest.fixture(params=[True, False], ids=["rows", "one call"])
def people(store: Store, request: pytest.FixtureRequest) -> Store:
    """Calls of ada and bob, one of each that failed, and one whose words were not given."""
    masking.mask_key_file(routes.serve_folder(store.folder))
    routing.set_policy(store, "flights", "delay", champion=3, bundles={3: "b3:" + "0" * 64}, cause="test")
    segment = Segment(store.folder)
    segment.put(record.encode_entry(record.Schema(0, (), TENSORS, OUTPUTS, request.param)))
    for number, who in enumerate(("ada", "bob")):
        words = [*erasing.masked(store, "words", who), *erasing.masked(store, "words", "of the ward")]
        segment.tensor_call(
            [Tensor("words", "BYTES", (1, 2), []), ints(number), floats(number)],
            [Tensor("score", "FP32", (1, 1), np.float32(0.5).tobytes())],
            personal=Personal({"words": words}, [who], f"key of {who}"),
        )
        key = record.encode_entry(Personal({}, None, f"key of {who}"))
        segment.failed(personal=key)
    segment.tensor_call([ints(7), floats(7)], [], personal=Personal({}, None, "key of ada"))
    segment.end()
    sealing.seal(store)
    assert verification.verify(store) == []
    return store


def ints(number: int) -> Tensor:
    return Tensor("customer", "INT64", (1, 1), np.int64(number).tobytes())


def floats(number: int) -> Tensor:
    return Tensor("x", "FP32", (1, 2), np.float32([number, number]).tobytes())


def rows(store: Store) -> list[dict[str, Any]]:
    return CallLog(store).read("delay").to_dicts()


def frames(store: Store) -> str:
    return repr(list(rewriting.frames_in_order(store, catalogue.units(store))))


def erase(store: Store, selector: Selector) -> int:
    erasing.ask(store, "flights", selector, "request 21")
    (done,) = erasing.carry_out(store)
    assert done.state == "done"
    assert verification.verify(store) == []
    return done.predictions


def test_by_key_their_words_and_the_calls_that_failed_are_gone(people: Store) -> None:
    before = rows(people)
    assert sorted(str(row["key"]) for row in before) == ["key of ada"] * 3 + ["key of bob"] * 2
    assert erase(people, Selector("key", "key of ada")) == 3
    left = rows(people)
    gone = [row for row in left if row["key"] is None]
    assert [row["status"] for row in gone] == [200, 503, 200]
    words = [row["inputs"]["words"]["data"] for row in left if row["inputs"]["words"] is not None]
    assert len(words) == 2
    assert words[0] is None
    assert all(one.startswith("masked:") for one in words[1])
    assert gone[0]["inputs"]["x"]["data"] == [0, 0]  # what is nobody's stays
    assert ("key of ada" in frames(people), "key of bob" in frames(people)) == (False, True)


def test_by_a_word_one_person_is_found_by_its_mask(people: Store) -> None:
    assert erase(people, Selector("input", "bob", "words")) == 1
    assert [row["entity"] for row in rows(people) if row["status"] == 200] == ["ada", None, None]
    assert erase(people, Selector("input", "nobody", "words")) == 0


def test_by_a_number_only_a_tensor_of_one_a_row_is_theirs(people: Store) -> None:
    assert erase(people, Selector("input", "1", "x")) == 0
    assert erase(people, Selector("input", "no number", "customer")) == 0
    assert (
        erase(people, Selector("input", "1", "customer")) == 1
    )  # it stood in the open part: nothing of the frame is left
    assert "key of bob" not in [row["key"] for row in rows(people) if row["status"] == 200]
    assert [row["inputs"]["customer"] is None for row in rows(people) if row["status"] == 200] == [False, True, False]
