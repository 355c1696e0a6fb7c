"""A small project on the disk, which tests edit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from instar.plan import importing
from instar.plan.fingerprint import Fingerprint, fingerprint
from instar.plan.pipeline import Pipeline, discover
from instar.plan.project import Project, load_project

CONTRACT = """
[project]
name = "small"
objective = "Say when a visitor comes back"
owner = "tests"

[problem.back]
task = "binary"
target = "back"
metric = "cost"
cost = { false_negative = 2.0, false_positive = 1.0 }
split = { decide = "7d", judge = "7d" }
outcome = { due = "1d" }
"""


class Folder:
    """A project's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write({"instar.toml": CONTRACT})

    def write(self, files: Mapping[str, str]) -> Folder:
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self

    def edit(self, name: str, old: str, new: str) -> Folder:
        text = (self.root / name).read_text()
        assert old in text
        return self.write({name: text.replace(old, new)})

    def project(self) -> Project:
        return load_project(self.root)

    def pipeline(self) -> Pipeline:
        return discover(self.project())

    def fingerprint(self, step: str) -> Fingerprint:
        pipeline = self.pipeline()
        function = pipeline.steps[step].function
        assert function is not None
        return fingerprint(function, root=self.root, sources=pipeline.sources)


@pytest.fixture
def folder(tmp_path: Path):  # type: ignore[no-untyped-def]
    (tmp_path / "project").mkdir()
    yield Folder(tmp_path / "project")
    importing.forget()
