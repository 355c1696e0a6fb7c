from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.serve.log import record
from instar.serve.log.masking import keyed_mask
from instar.serve.protocol import wire
from instar.serve.protocol.signature import Signature, TensorSpec
from instar.serve.traffic.routes import bundle_folder
from instar.serve.worker import tensor_work
from instar.serve.worker.runtime import Runtime
from tests.serve import fakes, tensor_fakes
from tests.serve.tensor_fakes import body, version
from tests.serve.test_runtime import messages, plan, replies, work_of


def route(
    folder: Path, *versions: tuple[Any, str], later: Any = (), signature: Any = tensor_fakes.SIGNATURE
) -> wire.Plan:
    return plan(folder, list(versions), list(later), signature)


def ask(runtime: Runtime, plan: wire.Plan, *requests: dict[str, Any]) -> dict[int, wire.Reply]:
    return replies(
        runtime.answer(plan, [(job, wire.Ask(json.dumps(request).encode())) for job, request in enumerate(requests)])[0]
    )


def outputs(reply: wire.Reply) -> dict[str, Any]:
    return {one["name"]: one for one in json.loads(reply.body)["outputs"]}


def test_an_answer_has_the_outputs_as_the_model_gives_them(tmp_path: Path) -> None:
    got = ask(Runtime(tensor_fakes.load), route(tmp_path, (version(tmp_path, 1), "champion")), body(1, 4, id="mine"))
    answer = json.loads(got[0].body)
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("delay", "1", "mine")
    assert answer["outputs"] == [
        {"name": "score", "shape": [2, 1], "datatype": "FP32", "data": [3.5, 6.5]},
        {"name": "label", "shape": [2], "datatype": "BYTES", "data": ["W1", "W4"]},
    ]


def test_a_caller_chooses_outputs_and_their_order(tmp_path: Path) -> None:
    plan, runtime = route(tmp_path, (version(tmp_path, 1), "champion")), Runtime(tensor_fakes.load)
    wanted = [{"name": "label", "parameters": {"binary_data": False}}, {"name": "score"}]
    got = ask(runtime, plan, body(1, outputs=wanted), body(1, outputs=[{"name": "label"}]), body(1, outputs=[]))
    assert [list(outputs(got[job])) for job in range(3)] == [["label", "score"], ["label"], ["score", "label"]]
    assert [len(work_of(got[job]).answers[0].outputs or []) for job in range(3)] == [2, 2, 2]  # the record has all


def test_calls_are_stacked_and_cut_up_again(tmp_path: Path) -> None:
    one = version(tmp_path, 1)
    plan, runtime = route(tmp_path, (one, "champion")), Runtime(tensor_fakes.load)
    requests = [body(*range(1, job + 2)) for job in range(5)]
    together = ask(runtime, plan, *requests)
    assert tensor_fakes.MADE[str(bundle_folder(tmp_path, one.bundle))].asked == [15]
    for job, request in enumerate(requests):
        alone = ask(runtime, plan, request)[0]
        assert together[job].body == alone.body
        assert work_of(together[job]).tensors == work_of(alone).tensors
        assert work_of(together[job]).answers == work_of(alone).answers


def test_calls_of_other_shapes_and_inputs_are_not_stacked_together(tmp_path: Path) -> None:
    signature = msgspec.structs.replace(
        tensor_fakes.SIGNATURE, tensors=(TensorSpec("x", "FP32", (-1, -1)), *tensor_fakes.SIGNATURE.tensors[1:])
    )
    one = version(tmp_path, 1)
    plan, runtime = route(tmp_path, (one, "champion"), signature=signature), Runtime(tensor_fakes.load)
    wide, biased = body(1), body(2)
    wide["inputs"][0].update(shape=[1, 4], data=[1, 2, 3, 4])
    biased["inputs"].append({"name": "bias", "shape": [1, 1], "datatype": "INT64", "data": [100]})
    got = ask(runtime, plan, body(1), wide, biased, body(3))
    assert [outputs(got[job])["score"]["data"] for job in range(4)] == [[3.5], [10.0], [104.5], [5.5]]
    assert sorted(tensor_fakes.MADE[str(bundle_folder(tmp_path, one.bundle))].asked) == [1, 1, 2]


def test_a_stack_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = version(tmp_path, 1)
    plan, runtime = route(tmp_path, (one, "champion")), Runtime(tensor_fakes.load)
    asked = lambda: tensor_fakes.MADE[str(bundle_folder(tmp_path, one.bundle))].asked  # noqa: E731
    monkeypatch.setattr(tensor_work, "STACK_ROWS", 5)
    ask(runtime, plan, *[body(1, 2)] * 5)
    assert asked() == [4, 4, 2]
    monkeypatch.setattr(tensor_work, "STACK_BYTES", 1)
    ask(runtime, plan, *[body(1, 2)] * 3)
    assert asked()[3:] == [2, 2, 2]


def test_what_is_not_batchable_is_asked_call_by_call(tmp_path: Path) -> None:
    one = version(tmp_path, 1, batchable=False)
    ask(Runtime(tensor_fakes.load), route(tmp_path, (one, "champion")), body(1), body(2, 3))
    assert tensor_fakes.MADE[str(bundle_folder(tmp_path, one.bundle))].asked == [1, 2]


def test_one_call_on_which_a_model_raises_fails_no_neighbour(tmp_path: Path) -> None:
    plan = route(tmp_path, (version(tmp_path, 1, "raises on 13"), "champion"))
    got = ask(Runtime(tensor_fakes.load), plan, body(10), body(13), body(30))
    assert [got[job].status for job in range(3)] == [200, 500, 200]
    assert b"unlucky number" in got[1].body


def test_an_answer_of_other_rows_than_the_question_is_a_failure(tmp_path: Path) -> None:
    plan = route(tmp_path, (version(tmp_path, 1, "one row"), "champion"))
    got = ask(Runtime(tensor_fakes.load), plan, body(1), body(1, 2))
    assert [got[0].status, got[1].status] == [200, 500]


def test_a_number_that_is_none_is_null_in_json_and_no_score(tmp_path: Path) -> None:
    got = ask(Runtime(tensor_fakes.load), route(tmp_path, (version(tmp_path, 1, "nan"), "champion")), body(1))[0]
    assert outputs(got)["score"]["data"] == [None]
    assert work_of(got).answers[0].scores == ()


def test_a_failing_canary_falls_back_and_shadows_answer_later(tmp_path: Path) -> None:
    champion, broken, shadow = version(tmp_path, 1), version(tmp_path, 2, "raises"), version(tmp_path, 3)
    plan = route(
        tmp_path, (broken, "canary"), (champion, "champion"), later=[(shadow, "frozen"), (broken, "candidate")]
    )
    runtime = Runtime(tensor_fakes.load)
    parts, jobs = runtime.answer(plan, [(7, wire.Ask(json.dumps(body(1, 2)).encode()))])
    work = work_of(replies(parts)[7])
    assert (work.answered, [one.error is None for one in work.answers]) == (1, [False, True])
    assert "never works" in (work.fallback or "")
    ((_, job, payload),) = messages(runtime.later(plan, jobs))
    said = msgspec.msgpack.decode(payload, type=list[record.Answer])
    assert (job, said[0].scores, said[1].error) == (7, (3.5, 4.5), "ValueError: this model never works")
    assert [tensor.name for tensor in said[0].outputs or ()] == ["score", "label"]


def test_a_model_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    table = fakes.version(tmp_path, 1)
    got = ask(Runtime(fakes.load), route(tmp_path, (table, "champion")), body(1))[0]
    assert (got.status, b"takes columns" in got.body) == (500, True)


def test_the_record_has_what_was_given_and_said(tmp_path: Path) -> None:
    got = ask(Runtime(tensor_fakes.load), route(tmp_path, (version(tmp_path, 1), "champion")), body(1, 4))[0]
    work = work_of(got)
    assert (work.rows, work.inputs, work.answers[0].scores, work.answers[0].threshold) == (2, (), (3.5, 6.5), None)
    x, words = work.tensors or []
    assert np.frombuffer(x.data, "<f4").tolist() == [1, 2, 0.5, 4, 2, 0.5]  # type: ignore[arg-type]
    assert (x.shape, words.data, words.digest) == ((2, 3), ("w1", "w4"), None)


def test_personal_tensors_are_kept_apart_and_masked(tmp_path: Path) -> None:
    specs = tuple(msgspec.structs.replace(one, personal=one.name != "bias") for one in tensor_fakes.SIGNATURE.tensors)
    signature = msgspec.structs.replace(tensor_fakes.SIGNATURE, tensors=specs)
    plan = route(tmp_path, (version(tmp_path, 1), "champion"), signature=signature)
    got = ask(Runtime(tensor_fakes.load, keyed_mask(bytes(32))), plan, body(1, parameters={"entity": "p"}))[0]
    work, personal = work_of(got), record.decode_personal(got.personal)
    assert [(one.name, one.shape, one.data) for one in work.tensors or ()] == [("x", (1, 3), b""), ("words", (1,), ())]
    assert (work.entities, personal.entities, list(personal.columns)) == (None, ("p",), ["words"])
    assert personal.columns["words"][0].startswith("masked:")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5), min_size=1, max_size=8))
def test_a_batch_answers_as_each_call_alone(calls: list[list[float]]) -> None:
    model = tensor_fakes.FakeModel(None)
    runtime = Runtime(lambda folder: model)
    part = wire.PlanVersion(1, "champion", "b3:x", "", ("x", "words", "bias"), None)
    whole = wire.Plan(1, "delay", 0, tensor_fakes.SIGNATURE, (part,), (), {})
    together = ask(runtime, whole, *[body(*rows) for rows in calls])
    for job, rows in enumerate(calls):
        assert together[job].body == ask(runtime, whole, body(*rows))[0].body


def test_a_signature_says_what_it_is_by_its_digest() -> None:
    table = Signature(fakes.COLUMNS)
    assert (
        len(
            {
                table.digest,
                tensor_fakes.SIGNATURE.digest,
                msgspec.structs.replace(tensor_fakes.SIGNATURE, rows=False).digest,
            }
        )
        == 3
    )
