from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from instar.core.errors import Damaged
from instar.serve.log import record
from instar.serve.log.record import Work
from instar.serve.protocol import wire
from instar.serve.protocol.signature import Signature
from instar.serve.traffic.routes import VersionRoute, bundle_folder
from instar.serve.worker.runtime import Runtime
from tests.serve import fakes


def part(folder: Path, route: VersionRoute, role: str) -> wire.PlanVersion:
    return wire.PlanVersion(
        route.version, role, route.bundle, str(bundle_folder(folder, route.bundle)), route.columns, route.threshold
    )


def plan(
    folder: Path,
    first: list[tuple[VersionRoute, str]],
    later: list[tuple[VersionRoute, str]],
    signature: Signature = fakes.SIGNATURE,
) -> wire.Plan:
    return wire.Plan(
        1,
        "delay",
        0,
        signature,
        tuple(part(folder, *v) for v in first),
        tuple(part(folder, *v) for v in later),
        {"policy": 1},
    )


def call(*distances: float, **changes: Any) -> wire.Ask:
    request = fakes.body(**changes)
    for tensor in request["inputs"]:
        tensor.update(shape=[len(distances)], data=tensor["data"] * len(distances))
    request["inputs"][0]["data"] = list(distances)
    return wire.Ask(json.dumps(request).encode())


def messages(parts: list[bytes]) -> list[tuple[int, int, bytes]]:
    return list(wire.Splitter().feed(b"".join(parts)))


def replies(parts: list[bytes]) -> dict[int, wire.Reply]:
    return {job: wire.decode_answer(payload) for kind, job, payload in messages(parts) if kind == wire.ANSWER}


def work_of(reply: wire.Reply) -> Work:
    return msgspec.msgpack.decode(reply.work, type=Work)


def test_a_batch_answers_as_each_call_alone(tmp_path: Path) -> None:
    one, two = fakes.version(tmp_path, 1), fakes.version(tmp_path, 2, bias=0.4)
    route = plan(tmp_path, [(one, "champion"), (two, "canary")], [])
    runtime = Runtime(fakes.load)
    bodies = [(job, call(*range(job, 2 * job + 1))) for job in range(1, 6)]
    together = replies(runtime.answer(route, bodies)[0])
    for job, body in bodies:
        alone = replies(runtime.answer(route, [(job, body)])[0])[job]
        assert together[job].body == alone.body
        assert work_of(together[job]).answers == work_of(alone).answers
        assert len(work_of(alone).answers[0].scores) == job + 1
    answer = json.loads(together[1].body)
    assert answer["model_version"] == "1"
    assert answer["outputs"][0]["data"] == [1 / 10_000, 2 / 10_000]


def test_a_bad_call_is_refused_alone(tmp_path: Path) -> None:
    route = plan(
        tmp_path, [(fakes.version(tmp_path, 1), "champion")], [(fakes.version(tmp_path, 2, bias=0.2), "shadow")]
    )
    parts, jobs = Runtime(fakes.load).answer(route, [(1, call(10)), (2, wire.Ask(b"{")), (3, call(30))])
    assert {job: reply.status for job, reply in replies(parts).items()} == {1: 200, 2: 400, 3: 200}
    assert replies(parts)[2].work.startswith(b"MalformedRequest: ")
    # The gateway counts messages: the refused call gets its empty later one at once.
    assert [(job, payload) for kind, job, payload in messages(parts) if kind == wire.LATER] == [(2, record.NO_ANSWERS)]
    assert [job.job for job in jobs] == [1, 3]


def test_one_call_on_which_a_model_raises_fails_no_neighbour(tmp_path: Path) -> None:
    route = plan(tmp_path, [(fakes.version(tmp_path, 1, quirk="raises on 13"), "champion")], [])
    got = replies(Runtime(fakes.load).answer(route, [(1, call(10)), (2, call(13)), (3, call(30))])[0])
    assert [got[job].status for job in (1, 2, 3)] == [200, 500, 200]
    assert b"unlucky distance" in got[2].body


def test_a_score_that_is_no_number_is_a_failure(tmp_path: Path) -> None:
    route = plan(tmp_path, [(fakes.version(tmp_path, 1, quirk="nan on 13"), "champion")], [])
    got = replies(Runtime(fakes.load).answer(route, [(1, call(10)), (2, call(13))])[0])
    assert [got[1].status, got[2].status] == [200, 500]


def test_a_failing_canary_falls_back_on_the_champion_beside_it(tmp_path: Path) -> None:
    broken, champion = fakes.version(tmp_path, 2, quirk="raises"), fakes.version(tmp_path, 1, bias=0.1)
    route = plan(tmp_path, [(broken, "canary"), (champion, "champion")], [])
    reply = replies(Runtime(fakes.load).answer(route, [(1, call(1000))])[0])[1]
    work = work_of(reply)
    assert json.loads(reply.body)["model_version"] == "1"
    assert (work.answered, [a.error is None for a in work.answers]) == (1, [False, True])
    assert "never works" in (work.fallback or "")


def test_a_failing_champion_never_falls_back_on_the_canary(tmp_path: Path) -> None:
    broken, canary = fakes.version(tmp_path, 1, quirk="raises"), fakes.version(tmp_path, 2)
    route = plan(tmp_path, [(broken, "champion"), (canary, "canary")], [])
    assert replies(Runtime(fakes.load).answer(route, [(1, call(1000))])[0])[1].status == 500


def test_shadows_answer_later_and_their_failures_stay_with_them(tmp_path: Path) -> None:
    shadows = [
        (fakes.version(tmp_path, 2, bias=0.5), "frozen"),
        (fakes.version(tmp_path, 3, quirk="raises"), "candidate"),
    ]
    route = plan(tmp_path, [(fakes.version(tmp_path, 1), "champion")], shadows)
    runtime = Runtime(fakes.load)
    _, jobs = runtime.answer(route, [(1, call(1000)), (2, call(2000, 3000))])
    later = {
        job: msgspec.msgpack.decode(payload, type=list[record.Answer])
        for _, job, payload in messages(runtime.later(route, jobs))
    }
    assert later[1][0] == record.Answer(2, "frozen", (0.6,), (1,), 0.5)
    assert later[2][0].decisions == (1, 1)
    assert [answers[1].error for answers in later.values()] == ["ValueError: this model never works"] * 2


def test_a_bundle_that_does_not_load_says_why(tmp_path: Path) -> None:
    route = fakes.version(tmp_path, 1, quirk="does not load")
    folder = str(bundle_folder(tmp_path, route.bundle))
    reason = Runtime(fakes.load).load(route.bundle, folder)
    assert "package lightgbm is not installed in the environment of this version" in str(reason)
    good = fakes.version(tmp_path, 2)
    assert Runtime(fakes.load).load(good.bundle, str(bundle_folder(tmp_path, good.bundle))) is None


def test_the_least_recently_used_model_goes_first(tmp_path: Path) -> None:
    loaded: list[str] = []

    def load(folder: Path) -> fakes.FakeModel:
        loaded.append(folder.name)
        return fakes.load(folder)

    runtime = Runtime(load, limit=2)
    routes = [fakes.version(tmp_path, number, bias=number / 10) for number in (1, 2, 3)]
    for at in (0, 1, 0, 2, 0, 1):
        runtime.load(routes[at].bundle, str(bundle_folder(tmp_path, routes[at].bundle)))
    names = [bundle_folder(tmp_path, route.bundle).name for route in routes]
    assert loaded == [names[0], names[1], names[2], names[1]]


@pytest.mark.parametrize("keyed", [True, False])
def test_personal_columns_are_kept_apart_and_masked(tmp_path: Path, keyed: bool) -> None:
    from instar.serve.log.masking import keyed_mask

    columns = tuple(
        msgspec.structs.replace(c, personal=c.name in ("carrier", "distance")) for c in fakes.SIGNATURE.columns
    )
    route = plan(tmp_path, [(fakes.version(tmp_path, 1), "champion")], [], Signature(columns))
    runtime = Runtime(fakes.load, keyed_mask(bytes(32))) if keyed else Runtime(fakes.load)
    request = json.loads(call(1000).body) | {"parameters": {"entity": "passenger 7"}}
    reply = replies(runtime.answer(route, [(1, wire.Ask(json.dumps(request).encode()))])[0])[1]
    work, personal = work_of(reply), record.decode_personal(reply.personal)
    assert work.inputs == (None, (8,), None, (None,), (False,))
    assert (work.entities, personal.entities) == (None, ("passenger 7",))
    assert personal.columns["distance"] == (None,)
    mask = personal.columns["carrier"][0]
    assert mask.startswith("masked:") and "UA" not in mask if keyed else mask is None


def test_a_model_that_cannot_be_loaded_is_no_fault_of_the_request(tmp_path: Path) -> None:
    def torn(folder: Path) -> Any:
        raise Damaged("its file model.onnx was changed", subject="bundle in b3-0")

    route = plan(tmp_path, [(fakes.version(tmp_path, 1), "champion")], [])
    reply = replies(Runtime(torn).answer(route, [(1, call(1000))])[0])[1]
    said = json.loads(reply.body)
    assert (reply.status, said["kind"]) == (503, "NotLoaded")
    assert "version 1 cannot answer now: its model cannot be loaded" in said["error"]
    assert "model.onnx was changed" in said["error"]
    assert "Look at the request" not in said["error"]
