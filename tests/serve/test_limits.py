"""Declared limits of inputs: told, held at the door in every form, and of no weight in what was recorded before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.core.errors import BadInput
from instar.core.limits import Limits, read_limits
from instar.serve.gateway import openapi
from instar.serve.protocol import replies, tensors, v2_json, wire
from instar.serve.protocol.signature import Signature, TensorSpec
from instar.serve.traffic.endpoint_signature import signature_of
from instar.serve.traffic.policy import Policy, Shadow
from instar.train.bundle import Column
from tests.serve import fakes
from tests.serve.test_forms import FORMS, Asking
from tests.serve.test_runtime import plan
from tests.train.test_bundle import MANIFEST

LIMITS = {
    "distance": Limits(minimum=0, maximum=4000),
    "carrier": Limits(values=("UA", "AA")),
    "wind": Limits(maximum=3),
}


class Limited(Asking):
    """A worker whose route has limits."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        signature = msgspec.structs.replace(fakes.SIGNATURE, limits=LIMITS)
        self.plan = plan(folder, [(fakes.version(folder, 1), "champion")], [], signature)


def refused(ask: Asking, name: str, value: object) -> dict[str, Any]:
    request = fakes.body(1500)
    next(one for one in request["inputs"] if one["name"] == name)["data"] = [value]
    reply = ask(json.dumps(request))
    found: dict[str, Any] = json.loads(reply.body)
    assert reply.status == 400, found
    return found


def test_a_value_beyond_what_was_declared_is_refused_with_its_path(tmp_path: Path) -> None:
    ask = Limited(tmp_path)
    assert ask(json.dumps(fakes.body(4000))).status == 200
    far = refused(ask, "distance", 4000.5)
    assert (far["kind"], far["path"]) == ("OutOfRange", "$.inputs[0].data[0]")
    assert "found 4000.5 (a number), asked for 0 to 4000" in far["error"]
    assert refused(ask, "distance", -1)["kind"] == "OutOfRange"
    carrier = refused(ask, "carrier", "XX")
    assert carrier["path"] == "$.inputs[2].data[0]"
    assert "asked for one of UA, AA" in carrier["error"]
    assert "asked for 3 or less" in refused(ask, "wind", 3.01)["error"]


@pytest.mark.parametrize(
    ("form", "place"),
    [
        ("records", "$.records[1].distance"),
        ("dataframe_split", "$.dataframe_split.data[1] (distance)"),
        ("csv", "line 3, column distance"),
        ("arrow", "column distance, row 1"),
    ],
)
def test_each_form_says_where(tmp_path: Path, form: str, place: str) -> None:
    number, made = FORMS[form]
    reply = Limited(tmp_path)(made(), number)
    assert reply.status == 400
    assert json.loads(reply.body)["error"].startswith(f"{place}: a value of input 'distance' is beyond")


def test_a_missing_value_is_none_that_is_beyond(tmp_path: Path) -> None:
    request = fakes.body(1500)
    for one in request["inputs"]:
        if one["name"] in ("carrier", "wind"):
            one["data"] = [None]
    assert Limited(tmp_path)(json.dumps(request)).status == 200


def test_tensors_are_held_to_them_in_lists_and_arrays() -> None:
    spec = TensorSpec("x", "FP32", (-1, 2), nullable=True)
    binder = tensors.Binder(Signature(tensors=(spec,), rows=True, limits={"x": Limits(minimum=0, maximum=1)}))
    good = v2_json.Tensor("x", [2, 2], "FP32", [[0.0, None], [1, 0.5]])
    binder.bind(v2_json.Request([good]))
    bad = v2_json.Tensor("x", [2, 2], "FP32", [[0.0, 0.5], [1, 1.5]])
    arrays = v2_json.Tensor("x", [2, 2], "FP32", np.array([0, np.nan, 1, 1.5], dtype=np.float32))
    for one, path in ((bad, "$.inputs[0].data[1][1]"), (arrays, "$.inputs[0].data[3]")):
        with pytest.raises(v2_json.RequestError, match="0 to 1") as caught:
            binder.bind(v2_json.Request([one]))
        assert caught.value.subject == path
    with pytest.raises(v2_json.RequestError, match="0 to 1"):
        binder.read(b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[0.5,-0.5]}]}')


numbers = st.lists(st.none() | st.integers(-5, 5) | st.floats(-5, 5) | st.just(float("nan")), max_size=20)


@given(numbers, st.none() | st.floats(-3, 0), st.none() | st.floats(0, 3))
def test_the_first_value_beyond_is_found(values: list[Any], low: float | None, high: float | None) -> None:
    least, most = -np.inf if low is None else low, np.inf if high is None else high
    real = [value is None or np.isnan(value) or least <= value <= most for value in values]
    assert Limits(low, high).outside(values) == next((at for at, fits in enumerate(real) if not fits), None)


@given(st.lists(st.none() | st.sampled_from(["a", "b", b"a", "c"]), max_size=9))
def test_values_are_those_that_were_named(values: list[Any]) -> None:
    found = Limits(values=("a", "b")).outside(values)
    assert found == next((at for at, value in enumerate(values) if value == "c"), None)


def test_they_are_told(tmp_path: Path) -> None:
    signature = msgspec.structs.replace(fakes.SIGNATURE, limits=LIMITS)
    told = {one["name"]: one["parameters"] for one in json.loads(replies.metadata("delay", ["1"], signature))["inputs"]}
    assert told["distance"] == {"nullable": False, "minimum": 0, "maximum": 4000}
    assert told["carrier"]["values"] == ["UA", "AA"]
    assert told["hour"] == {"nullable": False}
    row = openapi._row(signature)["properties"]
    assert (row["distance"]["minimum"], row["distance"]["maximum"]) == (0, 4000)
    assert row["carrier"]["enum"] == ["UA", "AA", None]
    assert row["wind"]["maximum"] == 3


def test_an_endpoint_has_those_of_its_champion() -> None:
    def version(limits: Limits | None, *more: Column) -> Any:
        return msgspec.structs.replace(MANIFEST, inputs=(Column("hour", "INT64", limits=limits), *more))

    day, extra = Limits(0, 23), Column("extra", "FP64", limits=Limits(maximum=1))
    manifests = {1: version(day), 2: version(Limits(6, 9), extra), 3: version(None)}
    policy = Policy("delay", "flights", 1, champion=1, shadows=(Shadow(2, "test"),))
    assert signature_of(policy, manifests).limits == {"hour": day, "extra": extra.limits}
    assert signature_of(Policy("delay", "flights", 1, champion=3), manifests).limits == {}


def test_the_digest_of_a_signature_is_that_of_its_places() -> None:
    """Records name a signature by it: those of before have to be found."""
    assert fakes.SIGNATURE.digest == msgspec.structs.replace(fakes.SIGNATURE, limits=LIMITS).digest
    tensor = Signature(
        tensors=(TensorSpec("x", "FP32", (-1, 3)),), outputs=(TensorSpec("y", "FP32", (-1,)),), rows=True
    )
    assert tensor.digest == "b3:cb810bd362c5f5c120c8069d22c14acf0ec96e81213da6199b8619ff8eb9cfcc"


def test_plans_and_snapshots_carry_them() -> None:
    signature = msgspec.structs.replace(fakes.SIGNATURE, limits=LIMITS)
    made = wire.Plan(1, "delay", 0, signature, (), (), {})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=wire.Plan).signature == signature
    before = msgspec.json.encode({"columns": [{"name": "a", "datatype": "FP64"}]})
    assert msgspec.json.decode(before, type=Signature).limits == {}


@pytest.mark.parametrize(
    ("said", "limits", "spoken"),
    [
        ("0..10000", Limits(0, 10000), "0 to 10000"), ("0..", Limits(0), "0 or more"),
        ("..1.5", Limits(None, 1.5), "1.5 or less"), ("AA, UA", Limits(values=("AA", "UA")), "one of AA, UA"),
        ("1,2", Limits(values=(1, 2)), "one of 1, 2"),
    ],
)  # fmt: skip
def test_people_write_and_read_them(said: str, limits: Limits, spoken: str) -> None:
    assert read_limits(said) == limits
    assert limits.describe() == spoken
    assert limits.fault() == ""


def test_what_cannot_hold_is_told() -> None:
    with pytest.raises(BadInput, match="no range"):
        read_limits("a..b")
    assert "above its greatest" in Limits(2, 1).fault()
    assert "declares nothing" in Limits().fault()
    assert "one is enough" in Limits(1, 2, ("a",)).fault()
    assert "texts, or numbers" in Limits(values=("a", 1)).fault()
    assert "texts, or numbers" in Limits(values=()).fault()
    assert "no limits" in Limits(0).fault("BOOL")
    assert "no range" in Limits(0).fault("BYTES")
    assert "values are texts" in Limits(values=("a",)).fault("FP64")
