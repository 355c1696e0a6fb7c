"""A prediction log in memory, with the columns of the real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

import instar.app
from instar.app import App
from instar.core import ids
from instar.core.errors import NotFound
from instar.core.ids import call_id
from instar.core.store import Store
from instar.interfaces.cli.main import cli
from instar.release import approval, registry
from instar.release.registry import ModelVersion
from instar.serve.log import calls
from instar.train.bundle import OUTPUTS, Column, Manifest, pack

ANSWER = pl.Struct(
    {
        "version": pl.Int64,
        "role": pl.String,
        "score": pl.Float64,
        "decision": pl.Int8,
        "threshold": pl.Float64,
        "error": pl.String,
    }
)


class MemoryLog:
    """Rows of predictions as `CallLog.read` returns them; one call a row."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        at: datetime,
        answers: dict[int, float | None],
        *,
        version: int | None = None,
        status: int = 200,
        inputs: dict[str, Any] | None = None,
        latency_us: int = 2000,
        entity: str | None = None,
        table_version: str | None = None,
    ) -> str:
        """Log one call of one row; `answers` are scores by version, decided at 0.5. Returns the prediction's id."""
        call = call_id(1_700_000_000_000 + len(self.rows), boot=1, sequence=len(self.rows))
        version = version if version is not None else next(iter(answers))
        score = answers.get(version)
        said = [
            {
                "version": one,
                "role": "x",
                "score": s,
                "decision": None if s is None else int(s >= 0.5),
                "threshold": 0.5,
                "error": "ValueError: no" if s is None else None,
            }
            for one, s in answers.items()
        ]
        self.rows.append(
            {
                "prediction": f"{call}/0", "call": call, "row": 0, "at": at, "recorded_at": at, "caller": "airline",
                "endpoint": "delay", "policy": 1, "reason": "champion", "version": version, "score": score,
                "decision": None if score is None else int(score >= 0.5), "threshold": 0.5, "status": status,
                "latency_us": latency_us, "entity": entity, "table_version": table_version, "request_id": None,
                "inputs": inputs or {"hour": 1.0}, "answers": said,
            }
        )  # fmt: skip
        return f"{call}/0"

    def read(self, endpoint: str, since: datetime | None = None, until: datetime | None = None) -> pl.DataFrame:
        kept = [
            row for row in self.rows if (since is None or row["at"] >= since) and (until is None or row["at"] < until)
        ]
        fixed = {
            "prediction": pl.String, "at": pl.Datetime("us", "UTC"), "decision": pl.Int8, "score": pl.Float64,
            "answers": pl.List(ANSWER), "status": pl.Int64, "latency_us": pl.Int64, "version": pl.Int64,
            "table_version": pl.String,
        }  # fmt: skip
        if not kept:
            return pl.DataFrame(schema={**fixed, "call": pl.String, "inputs": pl.Struct({"hour": pl.Float64})})
        return pl.DataFrame(kept, schema_overrides=fixed)

    def find(self, prediction_id: str) -> dict[str, Any]:
        for row in self.rows:
            if row["prediction"] == prediction_id:
                return row
        raise NotFound("the log has no such prediction", subject=prediction_id)

    def seen(self, call_id: str) -> bool:
        return self.endpoint_of(call_id) is not None

    def endpoint_of(self, call_id: str) -> str | None:
        return next((row["endpoint"] for row in self.rows if row["call"] == call_id), None)


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def make_version(store: Store) -> Callable[..., ModelVersion]:
    """Registers and approves version after version of the model `delay`."""

    def make(
        name: str, *, approved: bool = True, origin: str = "recipe", run: str = "run_0", fitted_on: str = "tver_0"
    ) -> ModelVersion:
        manifest = Manifest(
            model="delay", step="delay_trees", kind="model", recipe=ids.digest(name.encode()), parameters={"name": name},
            target="late", inputs=(Column("hour", "FP64"),), outputs=OUTPUTS, threshold=0.5,
            native=store.blobs.put(b"native " + name.encode()), form="polars", environment=store.blobs.put(b"lock"),
            run=run, fitted_on=fitted_on, fitted_rows=10, fitted_until="2025-12-01T00:00:00+00:00",
        )  # fmt: skip
        digest = pack(store.blobs, manifest)
        version = registry.register(store, "flights", "delay", bundle=digest, origin=origin)  # type: ignore[arg-type]
        if approved:
            allow(store, version)
        return version

    return make


def allow(store: Store, version: ModelVersion) -> None:
    """An approval on the record, as if its gates had passed."""
    now = store.clock.event()
    given = approval.Approval(
        ids.new_id("appr"), version.project, version.id, version.bundle, "eval_1", "b3:report", "b3:contract", "automatic",
        "approved", "ada", "policy automatic", "all gates passed", None, now, now,
    )  # fmt: skip
    store.database.write(lambda tx: tx.execute(approval.approval_table.insert().values(**vars(given))))


CONTRACT = """
[project]
name = "flights"
objective = "Warn passengers"
owner = "operations"

[problem.delay]
task = "binary"
target = "late"
metric = "cost"
cost = { false_negative = 3.0, false_positive = 1.0, unit = "EUR" }
split = { decide = "14d", judge = "14d" }
outcome = { due = "1d" }
"""


@pytest.fixture
def run(store: Store, log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    (tmp_path / "instar.toml").write_text(CONTRACT)

    @contextmanager
    def opened(_project: str | None, **_: object) -> Iterator[App]:
        yield App(store, tmp_path)

    monkeypatch.setattr(instar.app, "open_app", opened)
    monkeypatch.setattr(calls, "CallLog", lambda _store: log)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(cli, list(arguments), catch_exceptions=False)

    return invoke
