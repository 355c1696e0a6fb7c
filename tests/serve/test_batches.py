"""Many rows: sent together, answered in order, refused one by one; from files and frames, to files and frames."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from instar.core.errors import BadInput, NotFound, NotLoaded, Unavailable
from instar.interfaces.cli.predict import predict_command
from instar.interfaces.sdk.client import Client
from instar.serve.clients import batches
from instar.serve.clients.batches import Batches, Endpoint, Reply, Row
from instar.serve.clients.nested import Spec
from instar.serve.protocol.v2_json import decode
from instar.serve.root.process import ServerTree
from tests.serve import fakes, tensor_fakes
from tests.serve.conftest import acknowledged, start

TABLE = Endpoint({"x": Spec("x", "FP64", [-1])}, tensors=False, rows=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerTree]:
    """Endpoints `delay` (columns) and `words` (tensors)."""
    folder = tmp_path_factory.mktemp("batches") / ".instar"
    fakes.route(folder, [fakes.version(folder, 1, quirk="raises on 13")])
    number = fakes.route(folder, [tensor_fakes.version(folder, 1)], endpoint="words", signature=tensor_fakes.SIGNATURE)
    with start(folder, loader="tests.serve.test_fuzz:load") as running:
        acknowledged(folder, number)
        yield running


class Line:
    """A server that refuses some values: with the row's place, or without."""

    def __init__(self, bad: set[float], placed: bool = True, busy: int = 0) -> None:
        self.bad, self.placed, self.busy = bad, placed, busy
        self.sizes: list[int] = []

    def __call__(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        if self.busy:
            self.busy -= 1
            return Reply(429, "", b'{"error": "no room"}', 0.0)
        (values,) = [one.data for one in decode(body).inputs]
        self.sizes.append(len(values))
        at = next((at for at, value in enumerate(values) if value in self.bad), None)
        if at is not None:
            path = f"$.inputs[0].data[{at}]"
            facts = {"error": f"{path}: it is bad."} | ({"path": path} if self.placed else {})
            return Reply(400 if self.placed else 500, "call_x", msgspec.json.encode(facts))
        data = [value * 2 for value in values]
        output = {"name": "score", "shape": [len(values)], "datatype": "FP64", "data": data}
        return Reply(200, "call_x", msgspec.json.encode({"model_version": "3", "outputs": [output]}))


@given(
    st.lists(st.integers(0, 9), max_size=40),
    st.sets(st.integers(0, 9)),
    st.integers(1, 12),
    st.booleans(),
    st.integers(1, 3),
)
def test_every_row_is_answered_or_refused_once_and_in_order(
    values: list[int], bad: set[int], most: int, placed: bool, connections: int
) -> None:
    line = Line({float(one) for one in bad}, placed)
    rows = [Row(number, {"x": float(value)}) for number, value in enumerate(values, 1)]
    said = list(Batches([line] * connections, TABLE, most=most).ask(rows))
    assert [one.row for one in said] == rows
    for one, value in zip(said, values, strict=True):
        assert bool(one.error) == (value in bad)
        assert one.outputs.get("score") == (None if value in bad else value * 2)
    assert max(line.sizes, default=0) <= most


def test_a_refused_row_costs_few_calls_more() -> None:
    line = Line({7.0})
    rows = [Row(number, {"x": float(number)}) for number in range(1, 501)]
    said = list(Batches([line], TABLE).ask(rows))
    assert [one.row.number for one in said if one.error] == [7]
    assert said[6].error == "it is bad."
    assert sorted(line.sizes) == [6, 493, 500]


def test_a_server_without_room_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches.time, "sleep", lambda seconds: None)
    (said,) = Batches([Line(set(), busy=3)], TABLE).ask([Row(1, {"x": 2.0})])
    assert said.outputs == {"score": 4.0}
    monkeypatch.setattr(batches, "WAIT_SECONDS", -1.0)
    with pytest.raises(Unavailable, match="could not answer"):
        list(Batches([Line(set(), busy=3)], TABLE).ask([Row(1, {"x": 2.0})]))


@pytest.mark.parametrize(("status", "kind"), [(401, Exception), (404, NotFound)])
def test_what_no_row_can_mend_ends_it(status: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="gone"):
        list(Batches([lambda body, headers: Reply(status, "", b'{"error": "gone"}')], TABLE).ask([Row(1, {"x": 1.0})]))


ROWS = [
    {"flight": f"UA {n}", "distance": 100.0 * n, "hour": n % 24, "carrier": "UA", "wind": None, "holiday": False}
    for n in range(1200)
]


def invoke(server: ServerTree, *arguments: str) -> Result:
    return CliRunner().invoke(predict_command, ["--url", server.url, *arguments], obj=None, catch_exceptions=False)


def written(path: Path, rows: list[dict[str, Any]] = ROWS) -> str:
    frame = pl.DataFrame(rows, schema_overrides={"wind": pl.Float64}, strict=False)
    match path.suffix:
        case ".csv":
            frame.write_csv(path)
        case ".jsonl":
            frame.write_ndjson(path)
        case ".json":
            path.write_text(json.dumps(rows))
        case ".parquet":
            frame.write_parquet(path)
        case ".arrow":
            frame.write_ipc(path)
        case ".stream":
            with pa.ipc.new_stream(path, frame.to_arrow().schema) as stream:
                stream.write_table(frame.to_arrow())
    return str(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json", ".parquet", ".arrow", ".stream"])
def test_files_of_all_kinds_are_read(server: ServerTree, tmp_path: Path, suffix: str) -> None:
    file, out = written(tmp_path / f"rows{suffix}"), tmp_path / "answers.parquet"
    done = invoke(server, "delay", "--rows", file, "--carry", "flight", "--output", str(out))
    assert (done.exit_code, "1,200 rows answered, 0 refused" in done.stderr) == (0, True)
    answers = pl.read_parquet(out)
    assert answers.columns == ["row", "flight", "prediction", "version", "score", "decision", "error"]
    assert answers["flight"].to_list() == [row["flight"] for row in ROWS]
    assert answers["score"].to_list() == [row["distance"] / 10000 for row in ROWS]
    calls = answers["prediction"].str.split("/").list.first().n_unique()
    assert calls == 3


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_refused_rows_go_to_a_file_of_their_own_and_nothing_is_lost(
    server: ServerTree, tmp_path: Path, suffix: str
) -> None:
    rows = [dict(row) for row in ROWS[:700]]
    rows[10]["hour"], rows[650]["distance"] = None, 13.0
    out, side = tmp_path / f"answers{suffix}", tmp_path / "refused.jsonl"
    file = written(tmp_path / "rows.jsonl", rows)
    done = invoke(server, "delay", "--rows", file, "--carry", "flight", "--output", str(out), "--refused", str(side))
    assert (done.exit_code, "698 rows answered, 2 refused" in done.stderr) == (1, True)
    refused = [json.loads(line) for line in side.read_text().splitlines()]
    assert [one["row"] for one in refused] == [11, 651]
    assert "takes no null" in refused[0]["error"]
    assert "unlucky distance" in refused[1]["error"]
    assert refused[1]["given"]["distance"] == 13.0
    read = {".csv": pl.read_csv, ".jsonl": pl.read_ndjson, ".parquet": pl.read_parquet}[suffix]
    answers = read(out)
    assert sorted([*answers["row"], 11, 651]) == list(range(1, 701))
    assert not list(tmp_path.glob("*.part"))


def test_without_a_file_for_them_refused_rows_are_among_the_answers(server: ServerTree, tmp_path: Path) -> None:
    text = "distance,hour,carrier,wind,holiday\n1000,8,UA,,false\n1000,8\nfar,8,UA,,false\n2000,8,UA,,false\n"
    (tmp_path / "rows.csv").write_text(text)
    done = invoke(server, "delay", "--rows", str(tmp_path / "rows.csv"), "--output", str(tmp_path / "out.csv"))
    assert done.exit_code == 1
    with (tmp_path / "out.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(one["row"], one["score"]) for one in found] == [("1", "0.1"), ("2", ""), ("3", ""), ("4", "0.2")]
    assert "has 2 fields" in found[1]["error"]
    assert "is not FP64" in found[2]["error"]
    assert "row 2: the line has 2 fields" in done.stderr


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("good", [0, 1])
def test_a_refused_row_may_be_the_first(server: ServerTree, tmp_path: Path, suffix: str, good: int) -> None:
    rows = [{**ROWS[0], "hour": None}, *ROWS[1 : 1 + good]]
    out = tmp_path / f"answers{suffix}"
    invoke(server, "delay", "--rows", written(tmp_path / "rows.jsonl", rows), "--carry", "flight", "--output", str(out))
    found = {".csv": pl.read_csv, ".parquet": pl.read_parquet}[suffix](out)
    assert found["row"].to_list() == [1, 2][: 1 + good]
    assert "takes no null" in found["error"][0]
    assert not good or found["score"].to_list() == [None, 0.01]


def test_it_can_stop_at_the_first(server: ServerTree, tmp_path: Path) -> None:
    rows = [dict(row) for row in ROWS[:40]]
    rows[5]["hour"] = None
    out = tmp_path / "answers.jsonl"
    file = written(tmp_path / "rows.jsonl", rows)
    done = invoke(server, "delay", "--rows", file, "--carry", "flight", "--output", str(out), "--stop", "--batch", "4")
    assert done.exit_code == 1
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [one["row"] for one in found] == [1, 2, 3, 4, 5, 6]
    assert "takes no null" in found[-1]["error"]


def test_a_tensor_models_rows_are_stacked(server: ServerTree, tmp_path: Path) -> None:
    rows = [{"x": [float(n), 1.0, 2.0], "words": f"w{n}", "entity": f"e{n}"} for n in range(30)]
    rows[7]["x"] = [1.0, 2.0]  # of another shape: it goes alone
    file, out = tmp_path / "rows.jsonl", tmp_path / "out.csv"
    file.write_text("\n".join(map(json.dumps, rows)))
    done = invoke(server, "words", "--rows", str(file), "--entity-column", "entity", "--output", str(out))
    assert (done.exit_code, "29 rows answered, 1 refused" in done.stderr) == (1, True)
    with out.open(newline="") as opened:
        found = list(csv.DictReader(opened))
    assert found[3]["score[0]"] == "6.0"
    assert found[3]["label"] == "W3"
    assert "another shape" in found[7]["error"]
    assert len({one["prediction"].split("/")[0] for one in found if not one["error"]}) == 2


def test_columns_are_the_rows_of_a_lone_tensor(tmp_path: Path) -> None:
    from instar.interfaces.cli.predict import _rows

    takes = Endpoint({"X": Spec("X", "FP32", [-1, 3])}, tensors=True, rows=True)
    rows = list(_rows([({"a": "1", "b": "2.5", "id": "p", "c": "3"}, "")], takes, None, None, ("id",)))
    assert rows[0].values == {"X": [1.0, 2.5, 3.0]}
    assert rows[0].values.get("id") == "p"


def test_wrong_files_and_names_say_so(server: ServerTree, tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", ROWS[:2])
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing more")
    (tmp_path / "empty.csv").write_text("distance\n")
    (tmp_path / "broken.json").write_text("[{]")
    for arguments, why in (
        (["--rows", file], "takes no such input"),
        (["--rows", file, "--carry", "flight", "--output", "answers.xlsx"], "does not say what it is"),
        (["--rows", file, "--carry", "flight", "--refused", "x.csv"], "ends in .jsonl"),
        (["--rows", str(tmp_path / "broken.parquet")], "cannot be read"),
        (["--rows", str(tmp_path / "empty.csv")], "no rows"),
        (["--rows", str(tmp_path / "broken.json")], "cannot be read"),
    ):
        with pytest.raises(BadInput, match=why):
            invoke(server, "delay", *arguments)


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_a_frame_gives_a_frame(server: ServerTree, library: str) -> None:
    rows = [dict(row) for row in ROWS[:60]]
    rows[3]["distance"] = 13.0
    frame: Any = (
        pl.DataFrame(rows, schema_overrides={"wind": pl.Float64}) if library == "polars" else pd.DataFrame(rows)
    )
    with Client(server.url) as client:
        found = client.predict_frame(
            "delay", frame, batch=25, carry=["flight"], entity="flight", table_version="tver_1"
        )
        assert type(found) is type(frame)
        assert list(found.columns) == ["flight", "prediction", "version", "score", "decision", "error"]
        assert list(found["flight"]) == [row["flight"] for row in rows]
        scores = list(found["score"])
        assert (scores[0], scores[59]) == (0.0, 0.59)
        assert "unlucky distance" in list(found["error"])[3]
        with pytest.raises(BadInput, match="takes no such input"):
            client.predict_frame("delay", frame)
        with pytest.raises(NotFound):
            client.predict_frame("nothing", frame)


def test_a_frame_of_tensors_gives_a_frame(server: ServerTree) -> None:
    frame = pl.DataFrame({"x": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "words": ["a", "b"]})
    with Client(server.url) as client:
        found = client.predict_frame("words", frame)
    assert found["score"].to_list() == [[6.0], [15.0]]
    assert found["label"].to_list() == ["A", "B"]


def test_a_model_that_cannot_be_loaded_is_not_waited_for() -> None:
    asked: list[bytes] = []

    def torn(body: bytes, headers: Mapping[str, str]) -> Reply:
        asked.append(body)
        return Reply(503, "", b'{"error": "version 1 cannot answer now", "kind": "NotLoaded"}', 60.0)

    with pytest.raises(NotLoaded, match="version 1 cannot answer now"):
        list(Batches([torn], TABLE).ask([Row(1, {"x": 1.0})]))
    assert len(asked) == 1
