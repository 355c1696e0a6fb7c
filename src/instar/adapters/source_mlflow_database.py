"""The source port on an MLflow database in a SQLite file, read as it lies and never written, when a team moves from it."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from instar.core.errors import BadInput
from instar.release.importing import ForeignModel, ForeignVersion
from instar.train.importing import ForeignExperiment, ForeignInput, ForeignRun
from instar.train.run_records import STATES
from instar.train.run_values import Point

PROXIED = "mlflow-artifacts:"


class MlflowDatabase:
    """Experiments and runs of a SQLite file that an MLflow server or client wrote.

    Args:
        artifacts: Folder that the server kept its clients' files in, as its `--artifacts-destination` said; by default
            `mlartifacts` or `mlruns` beside the file.

    Raises:
        BadInput: It is no such file.
    """

    def __init__(self, file: Path, artifacts: Path | None = None) -> None:
        self._file = file
        beside = [artifacts] if artifacts else [file.parent / "mlartifacts", file.parent / "mlruns"]
        self._folders = [folder for folder in beside if folder.is_dir()]
        try:
            with closing(self._open()) as connection:
                tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
                self._has = tables
        except sqlite3.DatabaseError as error:
            raise BadInput("it is no SQLite database", subject=str(file), found=str(error)) from error
        if not {"experiments", "runs", "metrics", "params", "tags"} <= tables:
            raise BadInput(
                "it is no database of MLflow", subject=str(file), found=", ".join(sorted(tables)) or "no tables",
                asked="the file that `mlflow server --backend-store-uri sqlite:///FILE` writes",
            )  # fmt: skip

    def experiments(self) -> list[ForeignExperiment]:
        with closing(self._open()) as connection:
            tags: dict[Any, dict[str, str]] = {}
            for id, key, value in connection.execute("SELECT experiment_id, key, value FROM experiment_tags"):
                tags.setdefault(id, {})[key] = value or ""
            columns = {column for _, column, *_ in connection.execute("PRAGMA table_info(experiments)")}
            made = "creation_time" if "creation_time" in columns else "NULL"  # not kept before version 1.29
            found = connection.execute(
                f"SELECT experiment_id, name, lifecycle_stage, {made} FROM experiments ORDER BY experiment_id"
            )
            return [
                ForeignExperiment(str(id), name, stage == "deleted", tags.get(id, {}), created)
                for id, name, stage, created in found
            ]  # fmt: skip

    def runs(self, experiment: ForeignExperiment) -> Iterator[ForeignRun]:
        with closing(self._open()) as connection:
            query = (
                "SELECT run_uuid, name, user_id, status, start_time, end_time, lifecycle_stage, artifact_uri FROM runs"
                " WHERE experiment_id = ? ORDER BY start_time, run_uuid"
            )
            for id, name, user, status, start, end, stage, uri in connection.execute(
                query, (experiment.id,)
            ).fetchall():
                parameters = dict(connection.execute("SELECT key, value FROM params WHERE run_uuid = ?", (id,)))
                tags = {
                    key: value or ""
                    for key, value in connection.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (id,))
                }
                folder, away = self._place(uri or "")
                yield ForeignRun(
                    id, tags.get("mlflow.runName") or name or "", user or None, _state(status), _moment(start), _moment(end),
                    stage == "deleted", parameters, tags, tuple(self._inputs(connection, id)), folder, away,
                )  # fmt: skip

    def points(self, run: ForeignRun) -> Iterator[Point]:
        with closing(self._open()) as connection:
            query = "SELECT key, value, is_nan, step, timestamp FROM metrics WHERE run_uuid = ? ORDER BY key, step, timestamp"
            for name, value, nan, step, at in connection.execute(query, (run.id,)):
                yield (name, math.nan if nan else _unclipped(value), int(step), int(at) * 1000)

    def models(self) -> Iterator[ForeignModel]:
        if not {"registered_models", "model_versions"} <= self._has:
            return
        with closing(self._open()) as connection:
            for name, about in connection.execute(
                "SELECT name, description FROM registered_models ORDER BY name"
            ).fetchall():
                tags = dict(connection.execute("SELECT key, value FROM registered_model_tags WHERE name = ?", (name,)))
                aliases = {}
                if "registered_model_aliases" in self._has:
                    query = "SELECT alias, version FROM registered_model_aliases WHERE name = ?"
                    aliases = {alias: int(number) for alias, number in connection.execute(query, (name,))}
                yield ForeignModel(name, about or "", tags, aliases, tuple(self._versions(connection, name)))

    def _versions(self, connection: sqlite3.Connection, name: str) -> Iterator[ForeignVersion]:
        query = (
            "SELECT v.version, v.source, v.run_id, v.description, v.current_stage, r.start_time, r.artifact_uri"
            " FROM model_versions v LEFT JOIN runs r ON r.run_uuid = v.run_id WHERE v.name = ? ORDER BY v.version"
        )
        for number, source, run, about, stage, started, uri in connection.execute(query, (name,)).fetchall():
            if stage == "Deleted_Internal":
                continue
            own = "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?"
            tags = {key: value or "" for key, value in connection.execute(own, (name, number))}
            place = self._source(connection, source or "", uri or "")
            yield ForeignVersion(
                int(number), source or "", run or "", _moment(started), about or "", "" if stage == "None" else stage or "",
                tags, self._place(place)[0] if place else None,
            )  # fmt: skip

    def _source(self, connection: sqlite3.Connection, source: str, run_files: str) -> str:
        """Where a version's files are: of a logged model, below a run, or where the source itself says."""
        if source.startswith("models:/m-") and "logged_models" in self._has:
            query = "SELECT artifact_location FROM logged_models WHERE model_id = ?"
            row = connection.execute(query, (source.removeprefix("models:/"),)).fetchone()
            return str(row[0]) if row else ""
        if source.startswith("runs:/"):
            return f"{run_files.rstrip('/')}/{source.removeprefix('runs:/').partition('/')[2]}" if run_files else ""
        return source

    def _inputs(self, connection: sqlite3.Connection, run: str) -> Iterator[ForeignInput]:
        if not {"inputs", "datasets", "input_tags"} <= self._has:
            return
        query = (
            "SELECT i.input_uuid, d.name, d.digest, d.dataset_source_type, d.dataset_source, d.dataset_schema,"
            " d.dataset_profile FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id"
            " WHERE i.source_type = 'DATASET' AND i.destination_type = 'RUN' AND i.destination_id = ?"
        )
        for id, *about in connection.execute(query, (run,)).fetchall():
            tags = dict(connection.execute("SELECT name, value FROM input_tags WHERE input_uuid = ?", (id,)))
            name, digest, kind, source, schema, profile = about
            yield ForeignInput(name, digest, kind, source, schema, profile, tags)

    def _place(self, uri: str) -> tuple[Path | None, str]:
        """The folder behind an artifact URI, or where its files are when that is no folder here."""
        if uri.startswith(PROXIED):
            path = unquote(urlsplit(uri).path).strip("/")
            folder = next((one / path for one in self._folders if (one / path).is_dir()), None)
            # A run that logged no file has no folder: nothing is out of reach then, if the server's folder is here.
            return folder, "" if folder or self._folders else uri
        return local_folder(uri, self._file.parent)

    def _open(self) -> sqlite3.Connection:
        if not self._file.is_file():
            raise BadInput("there is no such file", subject=str(self._file))
        return sqlite3.connect(f"{self._file.absolute().as_uri()}?mode=ro", uri=True)


def local_folder(uri: str, beside: Path) -> tuple[Path | None, str]:
    """The folder that a `file:` URI or a path names, or where the files are when it names none here."""
    if not uri:
        return None, ""
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file"):
        return None, uri
    path = Path(unquote(parts.path) if parts.scheme else uri)
    return (path if path.is_absolute() else beside / path), ""


def _state(status: str | None) -> str:
    state = (status or "").lower()
    return state if state in STATES else "finished"


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)


def _unclipped(value: float) -> float:
    """MLflow keeps infinities as the largest numbers there are."""
    return math.copysign(math.inf, value) if abs(value) >= 1.7976931348623157e308 else value
