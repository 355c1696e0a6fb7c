"""Bad input at every door: the error says what was found and what was asked, the status fits, nothing is half written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

from instar.core.errors import InstarError
from instar.interfaces.cli.main import cli, exit_status
from instar.plan import importing
from tests.journeys.conftest import ROW
from tests.journeys.driving import Server, contents, edit, inputs, instar, looked_up, up

HEADER = "booking,booked_at,visit_at,guests,channel,visits_before,no_show\n"
GOOD = "N1,2025-05-01T09:00:00Z,2025-05-02T19:00:00Z,2,web,0,false\n"
BAD_FILES = {
    "missing column": (HEADER.replace(",channel", "") + GOOD.replace(",web", ""), "MissingColumn", "asked for channel"),
    "wrong type": (HEADER + GOOD + GOOD.replace(",2,", ",two,"), "WrongType", "'two' in row 1"),
    "empty file": ("", "EmptySource", "found 0 bytes"),
    "header only": (HEADER, "EmptySource", "has no rows"),
}  # fmt: skip


def written(folder: Path) -> set[str]:
    """Files of the store's tables; what a refused delivery may not add to."""
    return {str(file.relative_to(folder)) for file in (folder / ".instar" / "tables").rglob("*") if file.is_file()}


def refused(folder: Path, *words: str) -> tuple[str, str, int]:
    """Class, words and exit status of the error in which a command ends."""
    done = CliRunner().invoke(cli, ["--project", str(folder), *words])
    importing.forget()
    assert isinstance(done.exception, InstarError), (done.output, done.exception)
    return type(done.exception).__name__, str(done.exception), exit_status(done.exception)


@pytest.mark.parametrize(("text", "error", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_of_a_source_leaves_all_as_it_was(cafe: Path, text: str, error: str, words: str) -> None:
    before, tables = written(cafe), contents(cafe)
    bad = cafe / "data" / "bookings_may.csv"
    bad.write_text(text)
    name, said, status = refused(cafe, "run")
    assert (name, status) == (error, 2)
    assert words in said
    assert "bookings_may.csv" in said
    assert (written(cafe), contents(cafe)) == (before, tables)
    states = {step["step"]: step["state"] for step in looked_up(cafe, "status")["steps"]}
    assert states["bookings"] == "failed"
    # What was there is still good, and the last good rows still answer for it.
    bad.unlink()
    assert {step["state"] for step in looked_up(cafe, "status")["steps"]} == {"current"}
    assert looked_up(cafe, "audit", "verify")["consistent"] is True


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose bookings are landed by hand, with one good delivery."""
    folder = tmp_path_factory.mktemp("landing")
    instar(folder, "init", "inn")
    edit(folder / "inn" / "pipeline.py", '    path="data/bookings*.csv",\n', "")
    (folder / "good.csv").write_text(HEADER + GOOD)
    assert "bookings@1: 1 rows" in instar(folder / "inn", "ingest", "bookings", "../good.csv").stdout
    return folder / "inn"


@pytest.mark.parametrize(("text", "error", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_lands_nothing_of_its_delivery(
    landing: Path, tmp_path: Path, text: str, error: str, words: str
) -> None:
    before, tables = written(landing), contents(landing)
    (tmp_path / "good.csv").write_text(HEADER + GOOD.replace("N1", "N2"))
    (tmp_path / "bad.csv").write_text(text)
    name, said, status = refused(landing, "ingest", "bookings", str(tmp_path / "good.csv"), str(tmp_path / "bad.csv"))
    assert (name, status) == (error, 2)
    assert words in said
    assert (written(landing), contents(landing)) == (before, tables)


def test_a_refusal_reaches_the_terminal_without_a_traceback(landing: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    done = instar(landing, "ingest", "bookings", str(tmp_path / "empty.csv"), status=2)
    assert done.stdout == ""
    assert done.stderr.startswith(
        "EmptySource: file empty.csv: it is empty; found 0 bytes, asked for a header and rows"
    )
    done = instar(landing, "ingest", "bookings", "nowhere.csv", status=2)
    assert "nowhere.csv" in done.stderr


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["ingest", "clean_bookings", __file__], "BadInput", "asked for bookings"),
        (["ingest", "booking", __file__], "UnknownTable", "'bookings'"),
        (["data", "show", "boking"], "NotFound", "boking"),
        (["data", "show", "bookings@9"], "NotFound", "bookings@9"),
        (["runs", "show", "run_nothing"], "NotFound", "run_nothing"),
        (["models", "show", "no_show@9"], "NotFound", "no_show@9"),
        (["models", "ls", "nothing"], "NotFound", "nothing"),
        (["models", "card", "no_show"], "NotFound", "no_show"),
        (["run", "--target", "clean_booking"], "UnknownTable", "'clean_bookings'"),
        (["why", "clean_booking"], "UnknownTable", "'clean_bookings'"),
        (["live", "nothing"], "NotFound", "nothing"),
        (["live", "--at", "noon"], "BadInput", "'noon'"),
        (["trace", "call_nothing/0"], "MalformedRequest", "call_nothing"),
        (["trace", "call_01M7YEETH9YQA8RD0000000002/0"], "NotFound", "call_01M7YEETH9YQA8RD0000000002"),
        (["trace", "nothing@3"], "NotFound", "nothing@3"),
        (["trace", "mver_nothing"], "NotFound", "mver_nothing"),
        (["promote", "no_show@9"], "NotFound", "no_show@9"),
    ],
    ids=lambda value: "-".join(value[:3]) if isinstance(value, list) else "",
)
def test_names_that_are_none_are_refused(landing: Path, words: list[str], error: str, said: str) -> None:
    name, text, status = refused(landing, *words)
    assert (name, status) == (error, 2), text
    assert said in text


@pytest.mark.parametrize(
    ("file", "old", "new", "error", "said"),
    [
        ("instar.toml", "oversight =", "oversigth =", "ContractError", "oversight"),
        ("instar.toml", 'decide = "14d"', "decide = 14", "ContractError", "problem.no_show.split.decide"),
        ("instar.toml", "[problem.no_show", "[problem.show", "PipelineError", "no_show"),
        ("pipeline.py", "features(clean_bookings:", "features(clean_booking:", "UnknownTable", "clean_bookings"),
        (
            "pipeline.py",
            "def clean_bookings(bookings:",
            "def clean_bookings(booking_features: pl.LazyFrame, bookings:",
            "CycleError",
            "booking_features",
        ),
    ],
    ids=["unknown key", "wrong type", "missing problem", "unknown table", "cycle"],
)
def test_a_wrong_project_is_refused_before_anything_is_written(
    landing: Path, tmp_path: Path, file: str, old: str, new: str, error: str, said: str
) -> None:
    for name in ("instar.toml", "pipeline.py"):
        text = (landing / name).read_text()
        if name == file:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / name).write_text(text)
    name, text, status = refused(tmp_path, "run")
    assert (name, status) == (error, 2), text
    assert said in text
    assert not (tmp_path / ".instar" / "tables").exists()


@pytest.fixture(scope="module")
def served(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Server]]:
    import shutil

    folder = tmp_path_factory.mktemp("served") / "cafe"
    shutil.copytree(made, folder)
    with up(folder, "no_show") as server:
        yield folder, server


TYPES = dict.fromkeys(ROW, "INT64") | {"channel": "BYTES"}


def tensors(**changes: Any) -> dict[str, Any]:
    """A good request with some tensors changed; None leaves one out."""
    found = {tensor["name"]: tensor for tensor in inputs(ROW, TYPES)}
    for name, change in changes.items():
        if change is None:
            del found[name]
        else:
            found[name] = {**found[name], **change}
    return {"inputs": list(found.values())}


def test_bad_requests_to_a_real_model(served: tuple[Path, Server]) -> None:
    folder, server = served
    url = "/v2/models/no_show/infer"
    nan = json.dumps(tensors(guests={"datatype": "FP64", "data": [1.5]})).replace("1.5", "NaN")
    cases: list[tuple[str, str | bytes, int, str, str]] = [
        (url, json.dumps(tensors(guests=None)), 400, "MissingInput", "guests"),
        (url, json.dumps(tensors(guests={"shape": [3]})), 400, "WrongShape", "guests"),
        (url, json.dumps(tensors(guests={"shape": [2], "data": [1, 2]})), 400, "WrongShape", "channel"),
        (url, json.dumps(tensors(guests={"data": ["two"]})), 400, "WrongDatatype", "guests"),
        (url, json.dumps(tensors(guests={"data": [2.5]})), 400, "WrongDatatype", "guests"),
        (url, json.dumps(tensors(guests={"data": [None]})), 400, "WrongDatatype", "guests"),
        (url, json.dumps(tensors(channel={"data": [7]})), 400, "WrongDatatype", "channel"),
        (url, json.dumps(tensors(guests={"datatype": "UINT9"})), 400, "WrongDatatype", "UINT9"),
        (url, nan, 400, "MalformedRequest", "JSON"),
        (url, "{", 400, "MalformedRequest", "JSON"),
        (url, b"x" * 50_000_000, 413, "TooLarge", "16"),
    ]  # fmt: skip
    calls: list[str] = []
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        for place, body, status, kind, said in cases:
            reply = client.post(place, content=body)
            assert (reply.status_code, reply.json()["kind"]) == (status, kind), (body[:300], reply.text)
            assert said in reply.json()["error"], reply.text
            calls.append(reply.headers["instar-call"])
            # The next caller notices nothing.
            assert client.post(url, json=tensors()).status_code == 200
        unknown = client.post("/v2/models/no_shoe/infer", json=tensors())
        assert (unknown.status_code, unknown.json()["kind"]) == (404, "NotFound")
        assert "no_shoe" in unknown.json()["error"]
        assert client.post("/v2/models/no_show/versions/9/infer", json=tensors()).status_code == 404

        # What was refused is on the record too, with the reason, and cannot be said to have an outcome of its own kind.
        for call, (*_, kind, _said) in zip(calls, cases, strict=True):
            hop = client.get("/api/projects/cafe/trace", params={"id": f"{call}/0"}).json()
            assert hop["kind"] == "prediction", kind
            assert hop["facts"]["decision"] is None

        # The control side says its errors in the same way.
        for path, body, status in [
            ("/api/outcomes", b"{", 400),
            ("/api/outcomes", b'{"outcomes": [{"prediction": "nonsense", "value": true}]}', 400),
            ("/api/outcomes", b'{"outcomes": [{"prediction": "%s/0", "value": "maybe"}]}' % calls[0].encode(), 400),
            ("/api/projects/cafe/endpoints/no_shoe/rollback", b'{"reason": "x"}', 404),
        ]:
            reply = client.post(path, content=body, headers={"content-type": "application/json"})
            assert reply.status_code == status, (path, body, reply.text)
            assert reply.json()["error"]
        assert client.get("/api/projects/nothing/tables/x").status_code == 404
    assert looked_up(folder, "audit", "verify")["consistent"] is True
