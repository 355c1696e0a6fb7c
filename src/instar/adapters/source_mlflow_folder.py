"""The source port on an `mlruns` folder of MLflow, one file a metric, parameter and tag, when a team moves from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from instar.adapters.source_mlflow_database import local_folder
from instar.core.errors import BadInput
from instar.release.importing import ForeignModel, ForeignVersion
from instar.train.importing import ForeignExperiment, ForeignInput, ForeignRun
from instar.train.run_values import Point

STATES = {1: "running", 2: "scheduled", 3: "finished", 4: "failed", 5: "killed"}
TRASH = ".trash"  # experiments that were deleted


class MlflowFolder:
    """Experiments and runs of an `mlruns` folder.

    Raises:
        BadInput: The folder holds no experiment of MLflow.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if not any(folder.glob("*/meta.yaml")):
            raise BadInput(
                "it is no folder of MLflow", subject=str(folder), found="no experiment with a meta.yaml",
                asked="an mlruns folder, or a SQLite file",
            )  # fmt: skip

    def experiments(self) -> list[ForeignExperiment]:
        found = []
        for place in (self._folder, self._folder / TRASH):
            for file in sorted(place.glob("*/meta.yaml")):
                about = _yaml(file)
                if "experiment_id" not in about or "run_id" in about:
                    continue
                deleted = place.name == TRASH or about.get("lifecycle_stage") == "deleted"
                tags = _texts(file.parent / "tags")
                made = int(about["creation_time"]) if about.get("creation_time") else None
                found.append(ForeignExperiment(str(about["experiment_id"]), str(about["name"]), deleted, tags, made))
        return found

    def runs(self, experiment: ForeignExperiment) -> Iterator[ForeignRun]:
        for file in sorted(self._place(experiment).glob("*/meta.yaml")):
            about = _yaml(file)
            if "run_id" not in about and "run_uuid" not in about:
                continue  # a data set or a logged model
            run = file.parent
            tags = _texts(run / "tags")
            folder: Path | None = run / "artifacts"
            away = ""
            if folder is not None and not folder.is_dir():  # the files may lie elsewhere, or there are none
                folder, away = local_folder(str(about.get("artifact_uri") or ""), self._folder.parent)
            yield ForeignRun(
                str(about.get("run_id") or about["run_uuid"]), str(tags.get("mlflow.runName") or about.get("run_name") or ""),
                str(about["user_id"]) if about.get("user_id") else None, STATES.get(int(about.get("status") or 3), "finished"),
                _moment(about.get("start_time")), _moment(about.get("end_time")),
                about.get("lifecycle_stage") == "deleted", _texts(run / "params"), tags,
                tuple(self._inputs(run)), folder, away,
            )  # fmt: skip

    def points(self, run: ForeignRun) -> Iterator[Point]:
        folder = self._of_run(run.id) / "metrics"
        for file in _files(folder):
            name = file.relative_to(folder).as_posix()
            for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
                parts = line.split()
                try:
                    at, value, step = int(parts[0]), float(parts[1]), int(parts[2]) if len(parts) > 2 else 0
                except (ValueError, IndexError) as error:
                    raise BadInput(
                        "a value of a metric cannot be read", subject=f"{file} line {number}", found=line[:80],
                        asked="milliseconds, value and step",
                    ) from error  # fmt: skip
                yield (name, value if math.isfinite(value) else float(value), step, at * 1000)

    def models(self) -> Iterator[ForeignModel]:
        for file in sorted((self._folder / "models").glob("*/meta.yaml")):
            about, folder = _yaml(file), file.parent
            aliases = {name: int(text) for name, text in _texts(folder / "aliases").items() if text.strip().isdigit()}
            versions = sorted(
                (self._version(one) for one in folder.glob("version-*/meta.yaml")), key=lambda version: version.number
            )
            yield ForeignModel(
                str(about.get("name") or folder.name), str(about.get("description") or ""), _texts(folder / "tags"),
                aliases, tuple(versions),
            )  # fmt: skip

    def _version(self, file: Path) -> ForeignVersion:
        about = _yaml(file)
        source, run = str(about.get("source") or ""), str(about.get("run_id") or "")
        maker = next(iter(self._folder.glob(f"*/{run}/meta.yaml")), None) if run else None
        place = str(about.get("storage_location") or source)
        if source.startswith("runs:/") and maker is not None:
            folder: Path | None = maker.parent / "artifacts" / source.removeprefix("runs:/").partition("/")[2]
        else:
            folder = local_folder(place, self._folder.parent)[0]
        stage = str(about.get("current_stage") or "None")
        return ForeignVersion(
            int(about["version"]), source, run, _moment(_yaml(maker).get("start_time")) if maker else None,
            str(about.get("description") or ""), "" if stage == "None" else stage, _texts(file.parent / "tags"), folder,
        )  # fmt: skip

    def _inputs(self, run: Path) -> Iterator[ForeignInput]:
        for file in sorted((run / "inputs").glob("*/meta.yaml")):
            about = _yaml(file)
            kept = run.parent / "datasets" / str(about.get("source_id")) / "meta.yaml"
            if about.get("source_type") == "DATASET" and kept.is_file():
                known = _yaml(kept)
                yield ForeignInput(
                    str(known["name"]), str(known["digest"]), str(known["source_type"]), str(known["source"]),
                    known.get("schema"), known.get("profile"), {str(k): str(v) for k, v in (about.get("tags") or {}).items()},
                )  # fmt: skip

    def _place(self, experiment: ForeignExperiment) -> Path:
        folder = self._folder / experiment.id
        return folder if folder.is_dir() else self._folder / TRASH / experiment.id

    def _of_run(self, run: str) -> Path:
        found = [*self._folder.glob(f"*/{run}"), *(self._folder / TRASH).glob(f"*/{run}")]
        return found[0]


def _yaml(file: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput("it cannot be read", subject=str(file), found=str(error).splitlines()[0]) from error
    return found if isinstance(found, dict) else {}


def _texts(folder: Path) -> dict[str, str]:
    """The text of each file below a folder, by its path: keys with slashes are folders."""
    return {file.relative_to(folder).as_posix(): file.read_text("utf-8") for file in _files(folder)}


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []


def _moment(milliseconds: Any) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
