"""Which files of a project matter while it is watched: its code, its contract, notebooks, and what its steps declare."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from instar.plan.importing import is_project_file
from instar.plan.pipeline import Pipeline

CODE = (".py", ".ipynb", ".toml")


def declared(pipeline: Pipeline) -> tuple[str, ...]:
    """Patterns of the files that steps declare to read."""
    found: dict[str, None] = {}
    for step in pipeline.steps.values():
        path = step.options.get("path")
        found.update(dict.fromkeys((*step.options.get("files", ()), *((path,) if path else ()))))
    return tuple(found)


def matters(root: Path, path: Path, patterns: Iterable[str]) -> bool:
    """Does a change of this file ask for a run?"""
    if not is_project_file(root, path):
        return False
    name = path.resolve().relative_to(root.resolve()).as_posix()
    return path.suffix in CODE or any(fnmatch(name, pattern) for pattern in patterns)
