"""The commands and the routes of data, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

TOML = """
[project]
name = "shop"
objective = "Sell"
owner = "ada"

[problem.sale]
task = "binary"
target = "sold"
metric = "cost"
cost = { false_negative = 3.0, false_positive = 1.0, unit = "EUR" }

[problem.sale.split]
by = "event_time"
decide = "14d"
judge = "14d"
refit = true

[problem.sale.outcome]
due = "1d"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "instar.toml").write_text(TOML)
    (tmp_path / "pipeline.py").write_text('from instar import source\nvisits = source("visits", columns={"id": int})\n')
    (tmp_path / "a.csv").write_text("id,v\n1,x\n2,y\n")
    (tmp_path / "b.csv").write_text("id,v\n3,z\n")
    return tmp_path


def command(folder: Path, *words: str) -> Any:
    from instar.interfaces.cli.main import cli

    done = CliRunner().invoke(cli, ["--project", str(folder), *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout) if "--json" in words else done.stdout


def test_the_commands(folder: Path) -> None:
    landed = command(folder, "ingest", "visits", str(folder / "a.csv"), "--landed-at", "2026-01-01T00:00:00Z", "--json")
    assert (landed["ref"], landed["rows"], landed["event_at"][:4].isdecimal()) == ("visits@1", 2, True)
    assert "visits@2: 3 rows" in command(folder, "ingest", "visits", str(folder / "b.csv"))
    assert [one["ref"] for one in command(folder, "data", "ls", "--json")] == ["visits@2"]
    assert [one["ref"] for one in command(folder, "data", "ls", "visits", "--json")] == ["visits@1", "visits@2"]
    assert "visits@2" in command(folder, "data", "ls")
    shown = command(folder, "data", "show", "visits@1", "--json")
    assert shown["sample"][0]["_source"] == "a.csv"
    assert "a.csv" in command(folder, "data", "show", "visits@1")
    assert command(folder, "data", "profile", "visits", "--json")["columns"]["id"]["maximum"] == 3.0
    assert "median" not in command(folder, "data", "profile", "visits")
    assert command(folder, "data", "diff", "visits@1", "visits@2", "--json")["rows"] == [2, 3]
    assert "rows 2 -> 3" in command(folder, "data", "diff", "visits@1", "visits@2")


def test_the_routes(folder: Path) -> None:
    from instar.app import open_app
    from instar.core.identity import local_user
    from instar.interfaces.api import data as api
    from instar.interfaces.api.routes import Request

    with open_app(folder) as app:

        def call(handler: Any, query: dict[str, str] | None = None, body: bytes = b"", **path: str) -> Any:
            reply = handler(Request(app, local_user(), {"project": "shop", **path}, query or {}, body))
            reply.content()  # can be sent
            return reply.value

        landed = call(api.land_rows, {"partition": "01", "name": "feed"}, b'{"id": 1}\n{"id": 2}\n', table="visits")
        assert (landed["rows"], landed["partition"], landed["cause"].endswith(": feed")) == (2, "01", True)
        call(api.land_rows, {"partition": "02"}, b'{"id": 3}\n', table="visits")
        assert [one["ref"] for one in call(api.list_tables)["tables"]] == ["visits@2"]
        assert len(call(api.list_versions, table="visits")["versions"]) == 2
        assert len(call(api.show, {"version": "1", "sample": "5"}, table="visits")["sample"]) == 2
        assert call(api.show, table="visits")["sample"] == []
        assert call(api.show_profile, table="visits")["rows"] == 3
        assert call(api.diff, {"from": "1"}, table="visits")["rows"] == [2, 3]
        for body, error in ((b"", "EmptySource"), (b"{oops", "SourceError"), (b'{"x": 1}', "MissingColumn")):
            with pytest.raises(Exception, match="visits") as caught:
                call(api.land_rows, {}, body, table="visits")
            assert type(caught.value).__name__ == error
        with pytest.raises(Exception, match="no such table"):
            call(api.list_versions, table="nope")
