"""The project that `instar init` makes, made and run once; journeys take a copy of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.journeys.driving import edit, instar

pytest.importorskip("sklearn")

ROW = {"guests": 2, "channel": "web", "visits_before": 0, "days_ahead": 10, "weekday": 3, "hour": 13}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template project after its first run; its channel names go through a helper, as in a grown project."""
    folder = tmp_path_factory.mktemp("made")
    instar(folder, "init", "cafe")
    cafe = folder / "cafe"
    code = cafe / "pipeline.py"
    edit(
        code,
        '@gold(entity="booking"',
        'def whole_days(span):\n    return span.dt.total_days()\n\n\n@gold(entity="booking"',
    )
    edit(
        code,
        '(pl.col("visit_at") - pl.col("booked_at")).dt.total_days()',
        'whole_days(pl.col("visit_at") - pl.col("booked_at"))',
    )
    first = instar(cafe, "run")
    assert "5 of 5 steps ran" in first.stdout
    return cafe


@pytest.fixture
def cafe(made: Path, tmp_path: Path) -> Path:
    """A copy of the project with its store."""
    shutil.copytree(made, tmp_path / "cafe")
    return tmp_path / "cafe"
