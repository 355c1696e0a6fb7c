"""Uploads in parts: laid together as they were sent, shown when they are whole, and gone when nobody completes them."""

from __future__ import annotations

import errno
import pickle
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from instar.core.clock import SystemClock
from instar.core.store import Store
from instar.operate import garbage
from instar.release import scan_files
from instar.train import artifacts, part_uploads
from tests.interfaces.mlflow.conftest import Api

PROXY = "/api/2.0/mlflow-artifacts"
PARTS = [b"first " * 1000, b"second", b"third" * 7]


class Upload:
    """One upload, as a client goes through it."""

    def __init__(self, http: TestClient, root: str, parts: int, path: str = "/tmp/big.bin") -> None:
        self.http, self.root, self.path = http, root, path
        reply = http.post(f"{PROXY}/mpu/create/{root}", json={"path": path, "num_parts": parts})
        assert reply.status_code == 200, reply.text
        self.id: str = reply.json()["upload_id"]
        self.urls = {one["part_number"]: one["url"] for one in reply.json()["credentials"]}

    def send(self, number: int, body: bytes) -> str:
        reply = self.http.put(self.urls[number], content=body)
        assert reply.status_code == 200, reply.text
        tag: str = reply.headers["etag"]
        return tag

    def complete(self, tags: Sequence[tuple[int, str]]) -> Any:
        parts = [{"part_number": number, "etag": tag, "url": self.urls.get(number)} for number, tag in tags]
        return self.http.post(
            f"{PROXY}/mpu/complete/{self.root}", json={"path": self.path, "upload_id": self.id, "parts": parts}
        )

    def abort(self) -> Any:
        return self.http.post(f"{PROXY}/mpu/abort/{self.root}", json={"path": self.path, "upload_id": self.id})


@pytest.fixture
def run(api: Api) -> str:
    return api.run()


@pytest.fixture
def root(api: Api, run: str) -> str:
    uri: str = api.get("runs/get", run_id=run)["run"]["info"]["artifact_uri"]
    return uri.removeprefix("mlflow-artifacts:/")


@pytest.fixture
def upload(http: TestClient, root: str) -> Upload:
    return Upload(http, root, 3)


def sent(upload: Upload) -> list[tuple[int, str]]:
    """All parts, the last one first."""
    return [(number, upload.send(number, PARTS[number - 1])) for number in (3, 1, 2)]


def left(store: Store) -> list[str]:
    """What uploads left in the store's folder."""
    folders = (store.folder / part_uploads.FOLDER, store.folder / "uploads")
    return sorted(
        str(one.relative_to(store.folder)) for folder in folders for one in folder.rglob("*") if one.is_file()
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.binary(max_size=3000), max_size=6).flatmap(
        lambda parts: st.tuples(st.just(parts), st.permutations(range(len(parts))), st.permutations(range(len(parts))))
    )
)
def test_what_is_sent_in_any_order_comes_back_whole(
    http: TestClient, root: str, store: Store, parts: tuple[list[bytes], list[int], list[int]]
) -> None:
    bodies, order, named = parts
    upload = Upload(http, root, len(bodies), "C:\\data\\any.bin")
    tags = {place: upload.send(place + 1, bodies[place]) for place in order}
    assert upload.complete([(place + 1, tags[place]) for place in named]).json() == {}
    assert http.get(f"{PROXY}/artifacts/{root}/any.bin").content == b"".join(bodies)
    shutil.rmtree(store.folder / part_uploads.FOLDER)


def test_nothing_is_shown_before_it_is_complete(upload: Upload, api: Api, run: str, store: Store) -> None:
    tags = sent(upload)
    assert api.get("artifacts/list", run_id=run).get("files", []) == []
    assert list(store.blobs.digests()) == []
    assert upload.complete(tags).status_code == 200
    assert [one["path"] for one in api.get("artifacts/list", run_id=run)["files"]] == ["big.bin"]
    assert left(store) == [f"multipart/{upload.id}/about.json", f"multipart/{upload.id}/lock"]


def test_completing_again_changes_nothing_not_even_what_came_after(upload: Upload, root: str) -> None:
    tags = sent(upload)
    assert upload.complete(tags).status_code == 200
    upload.http.put(f"{PROXY}/artifacts/{root}/big.bin", content=b"newer")
    assert upload.complete(tags).status_code == 200
    assert upload.abort().status_code == 200
    assert upload.http.get(f"{PROXY}/artifacts/{root}/big.bin").content == b"newer"


def test_many_complete_at_once(upload: Upload, root: str) -> None:
    tags = sent(upload)
    with ThreadPoolExecutor(6) as pool:
        assert {one.status_code for one in pool.map(lambda _: upload.complete(tags), range(6))} == {200}
    assert upload.http.get(f"{PROXY}/artifacts/{root}/big.bin").content == b"".join(PARTS)


def test_a_part_that_is_sent_again_replaces_the_first(upload: Upload, root: str) -> None:
    tags = dict(sent(upload))
    older = tags[2]
    tags[2] = upload.send(2, b"SECOND")
    refused = upload.complete([(1, tags[1]), (2, older), (3, tags[3])])
    assert refused.status_code == 400
    assert "part 2 is not the one that was sent" in refused.json()["message"]
    assert upload.complete(list(tags.items())).status_code == 200
    assert upload.http.get(f"{PROXY}/artifacts/{root}/big.bin").content == PARTS[0] + b"SECOND" + PARTS[2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tags: tags[:2], "parts are missing"),
        (lambda tags: [], "parts are missing"),
        (lambda tags: [*tags, tags[0]], "named twice"),
        (lambda tags: [*tags, (4, tags[0][1])], "never sent"),
        (lambda tags: [*tags, (0, tags[0][1])], "never sent"),
        (lambda tags: [*tags[1:], (3, "")], "not the one that was sent"),
        (lambda tags: [*tags[1:], (3, "../../../secret")], "not the one that was sent"),
        (lambda tags: [(None, tags[0][1])], "parts[0].part_number"),
    ],
)
def test_wrong_parts_are_refused_and_the_right_ones_taken_after(upload: Upload, change: Any, words: str) -> None:
    tags = sent(upload)
    reply = upload.complete(change(tags))
    assert (reply.status_code, reply.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert words in reply.json()["message"]
    assert upload.complete(tags).status_code == 200


@pytest.mark.parametrize(
    "message", [{"num_parts": 10_001}, {"num_parts": -1}, {"num_parts": "x"}, {"path": ""}, {"path": 3}]
)
def test_uploads_that_cannot_be(http: TestClient, root: str, message: dict[str, Any], store: Store) -> None:
    reply = http.post(f"{PROXY}/mpu/create/{root}", json={"path": "/tmp/a", "num_parts": 1, **message})
    assert (reply.status_code, reply.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert left(store) == []


@pytest.mark.parametrize("name", ["/tmp/..", "..", "a/\\..", "C:\\..", "nul\0", "/tmp/", "a%2f..%2fb"])
def test_no_name_leads_out(http: TestClient, root: str, name: str, store: Store) -> None:
    reply = http.post(f"{PROXY}/mpu/create/{root}", json={"path": name, "num_parts": 1})
    assert (reply.status_code, reply.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    reply = http.post(f"{PROXY}/mpu/create/{root}/%2e%2e/b", json={"path": "/tmp/a", "num_parts": 1})
    assert reply.status_code == 400
    assert left(store) == []


@pytest.mark.parametrize("id", ["", "upload_0", "../../secret", "upload_" + "0" * 32, "nul\0", "x" * 3000])
def test_uploads_that_are_not_there(http: TestClient, root: str, id: str) -> None:
    asked = {"path": "/tmp/big.bin", "upload_id": id, "parts": []}
    reply = http.post(f"{PROXY}/mpu/complete/{root}", json=asked)
    assert reply.status_code == (404 if id else 400)
    assert len(reply.text) < 400
    assert http.post(f"{PROXY}/mpu/abort/{root}", json=asked).status_code == (200 if id else 400)


def test_an_upload_belongs_to_one_file_of_one_project(upload: Upload, http: TestClient, api: Api) -> None:
    tags = sent(upload)
    other = api.get("runs/get", run_id=api.run())["run"]["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
    asked = {"path": upload.path, "upload_id": upload.id, "parts": []}
    assert http.post(f"{PROXY}/mpu/complete/{other}", json=asked).status_code == 404
    assert http.post(f"{PROXY}/mpu/complete/{upload.root}/deeper", json=asked).status_code == 404
    told = {"x-mlflow-workspace": "elsewhere"}
    assert http.post(f"{PROXY}/mpu/complete/{upload.root}", json=asked, headers=told).status_code == 404
    http.post(f"{PROXY}/mpu/abort/{other}", json=asked)
    assert upload.complete(tags).status_code == 200


def test_an_address_is_for_one_part_until_a_moment(
    upload: Upload, http: TestClient, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    one, two = upload.urls[1], upload.urls[2]
    proof = two.partition("?")[2]
    until = int(one.partition("until=")[2].partition("&")[0])
    for wrong in (
        one.partition("?")[0], one.partition("?")[0] + "?" + proof, one[:-1] + ("0" if one[-1] != "0" else "1"),
        one.replace(f"until={until}", f"until={until + 9}"), one.replace(f"until={until}", "until=never"),
        one.replace("/1?", "/01?"), one.replace("/1?", "/x?"),
    ):  # fmt: skip
        reply = http.put(wrong, content=b"x")
        assert (reply.status_code, reply.json()["error_code"]) == (403, "PERMISSION_DENIED"), wrong
    tags = sent(upload)
    monkeypatch.setattr(SystemClock, "wall", lambda self: datetime.fromtimestamp(until + 1, UTC))
    reply = http.put(one, content=b"x")
    assert (reply.status_code, "time of this address is over" in reply.json()["message"]) == (403, True)
    assert upload.complete(tags).status_code == 404
    Upload(http, upload.root, 1)  # beginning another removes what is over
    assert not [one for one in left(store) if upload.id in one]


def test_what_nobody_completes_is_collected(upload: Upload, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    upload.send(1, PARTS[0])
    assert part_uploads.sweep(store) == {}
    later = SystemClock().wall() + 2 * part_uploads.LIFE
    monkeypatch.setattr(SystemClock, "wall", lambda self: later)
    for dry_run in (True, False):
        report = garbage.collect(store, "default", dry_run=dry_run, grace=timedelta(days=1))
        (found,) = [one for one in report.gone if one.kind == "upload"]
        assert found.name == upload.id
        assert found.size > len(PARTS[0])
    assert left(store) == []
    assert garbage.collect(store, "default").gone == ()


def test_a_given_up_upload_leaves_nothing(upload: Upload, store: Store) -> None:
    tags = sent(upload)
    for _ in range(2):
        assert upload.abort().json() == {}
    assert left(store) == []
    assert upload.complete(tags).status_code == 404
    assert upload.http.put(upload.urls[1], content=b"x").status_code == 404


def test_a_run_that_is_deleted_meanwhile_takes_no_file(upload: Upload, api: Api, run: str) -> None:
    tags = sent(upload)
    api.post("runs/delete", run_id=run)
    assert upload.complete(tags).status_code == 400
    api.post("runs/restore", run_id=run)
    assert upload.complete(tags).status_code == 200


def test_on_a_full_disk_the_parts_stay_and_it_is_tried_again(
    upload: Upload, store: Store, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = sent(upload)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", full)
        reply = upload.complete(tags)
    assert (reply.status_code, reply.json()["error_code"]) == (507, "RESOURCE_LIMIT_EXCEEDED")
    assert not [one for one in left(store) if one.endswith("whole")]
    assert upload.complete(tags).status_code == 200
    assert upload.http.get(f"{PROXY}/artifacts/{root}/big.bin").content == b"".join(PARTS)


def test_a_server_that_died_while_it_completed_is_no_harm(upload: Upload, store: Store, root: str) -> None:
    tags = sent(upload)
    (store.folder / part_uploads.FOLDER / upload.id / "whole").write_bytes(b"half of it")
    assert upload.complete(tags).status_code == 200
    assert upload.http.get(f"{PROXY}/artifacts/{root}/big.bin").content == b"".join(PARTS)


def test_the_whole_is_held_to_the_limit_of_uploads(upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = sent(upload)
    monkeypatch.setenv("INSTAR_UPLOAD_LIMIT", "6000")
    reply = upload.complete(tags)
    assert (reply.status_code, "too large" in reply.json()["message"]) == (400, True)


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("never",))


def test_what_comes_in_parts_is_inspected_whole(http: TestClient, root: str, run: str, store: Store) -> None:
    body = pickle.dumps(Evil())
    upload = Upload(http, root, 2, "/tmp/model.pkl")
    tags = [(1, upload.send(1, body[:9])), (2, upload.send(2, body[9:]))]
    assert upload.complete(tags).status_code == 200
    blob = artifacts.find(store, run, "model.pkl").blob or ""
    assert "builtins.print" in scan_files.findings(store, [blob])[blob].refused


def test_laying_together_takes_little_memory(store: Store, run: str, tmp_path: Path) -> None:
    import tracemalloc

    upload = part_uploads.begin(store, "default", run, "big.bin", 4)
    tags = []
    for number in range(1, 5):
        file = tmp_path / f"part{number}"
        with file.open("wb") as opened:
            opened.truncate(16 * 1024**2)
            opened.write(bytes([number]))
        tags.append((number, part_uploads.keep_part(store, upload, number, file)))
    sizes: list[int] = []
    tracemalloc.start()
    try:
        part_uploads.complete(store, upload, tags, lambda whole: sizes.append(whole.stat().st_size), 10**9)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sizes == [64 * 1024**2]
    assert most < 8 * 1024**2
