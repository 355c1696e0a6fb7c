"""The page of one file that a run keeps: a table's first rows, a picture, or a text, shown without running anything in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from instar.core.errors import NotFound
from instar.interfaces.api.routes import Request
from instar.train import artifacts
from instar.train.artifacts import Entry
from instar.train.runs import get_run

MOST_ROWS = 100
MOST_CHARACTERS = 100_000
LARGEST_TABLE = 100_000_000  # bytes: more is not opened for a look
IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
TABLES = (".parquet",)
TEXTS = (".txt", ".json", ".py", ".md", ".csv", ".log", ".yaml", ".yml", ".toml", ".svg", ".html", ".ipynb", "MLmodel")


def file(request: Request) -> dict[str, Any]:
    """One file of a run, named by `?path=`."""
    store, project, path = request.app.store, request.path["project"], request.query.get("path", "")
    run = get_run(store, request.path["run"])
    if run.project != project:
        raise NotFound("there is no such run in this project", subject=run.id, next_step="See instar runs ls.")
    entry = artifacts.find(store, run.id, path)
    return {
        "project": project,
        "run": run.id,
        **told(project, run.id, entry),
        **_inside(artifacts.open(store, run.id, path), path, entry.size or 0),
    }


def told(project: str, run: str, entry: Entry) -> dict[str, Any]:
    """A file as the pages name it, with the address of its content."""
    address = f"/api/projects/{quote(project, safe='')}/runs/{run}/artifacts/{quote(entry.path)}"
    return {"path": entry.path, "size": entry.size, "blob": entry.blob, "kind": kind(entry.path), "address": address}


def kind(path: str) -> str:
    """How a file can be shown: `"image"`, `"table"`, `"text"`, or `"other"`."""
    for name, endings in (("image", IMAGES), ("table", TABLES), ("text", TEXTS)):
        if path.endswith(endings):
            return name
    return "other"


def _inside(place: Path, path: str, size: int) -> dict[str, Any]:
    if kind(path) == "text":
        with place.open("rb") as content:
            text = content.read(MOST_CHARACTERS + 1).decode("utf-8", "replace")
        return {"text": text[:MOST_CHARACTERS], "cut": len(text) > MOST_CHARACTERS}
    if kind(path) == "table" and size <= LARGEST_TABLE:
        return _table(place)
    return {}


def _table(place: Path) -> dict[str, Any]:
    import polars as pl

    try:
        scanned = pl.scan_parquet(place)
        rows = scanned.select(pl.len()).collect().item()
        head = scanned.head(MOST_ROWS).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        return {"why": f"It cannot be read as a table: {str(error)[:200]}"}
    return {
        "columns": [{"name": name, "type": str(found)} for name, found in head.schema.items()],
        "rows": [[_cell(value) for value in row] for row in head.rows()],
        "count": rows,
    }


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    return str(value)
