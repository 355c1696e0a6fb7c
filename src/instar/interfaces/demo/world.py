"""The world outside: the flights project of the examples and its file which plays the airline, found and loaded.

The platform is tested against it as against any outsider: what comes from here goes in by `ingest`, by HTTP calls and by
posted outcomes, and in no other way.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import polars as pl

from instar.core.errors import NotFound
from instar.interfaces.demo.figures import ZONE

APPLICATION = "application.py"
EXAMPLE = Path("examples") / "flights"


class Feed(Protocol):
    """Rows that the airline hands over under a name, and when."""

    @property
    def name(self) -> str: ...
    @property
    def rows(self) -> pl.DataFrame: ...
    @property
    def landed_at(self) -> datetime: ...


class Airline(Protocol):
    """What the project's application offers; see there."""

    def schedule(self, day: date) -> pl.DataFrame: ...
    def weather(self, day: date) -> Sequence[Feed]: ...
    def landings(self, day: date) -> pl.DataFrame: ...
    def delivery(self, month: int) -> Feed: ...
    def planes(self) -> Feed: ...
    def airlines(self) -> Feed: ...


def find_flights(start: Path) -> Path:
    """The folder of the flights project: `start` itself, below it or a folder above, or beside the installed source.

    Raises:
        NotFound: It is in none of these places.
    """
    here = start.absolute()
    checkout = Path(__file__).resolve().parents[4]
    for folder in (here, *(above / EXAMPLE for above in (here, *here.parents, checkout))):
        if (folder / APPLICATION).is_file():
            return folder
    raise NotFound(
        "the flights project is not here",
        subject=f"folder {start}",
        asked=f"{EXAMPLE}/{APPLICATION}",
        next_step="Run the demo from a clone of the repository, or name the project's folder with --project.",
    )


def open_airline(project: Path) -> Airline:
    """The airline of the flights project.

    Raises:
        NotFound: The flights are not installed.
    """
    application = _load(project / APPLICATION)
    try:
        airline: Airline = application.Airline()
    except application.NoFlights as error:
        raise NotFound(str(error), subject="the flights of 2013", next_step="pip install 'instar[demo]'") from error
    return airline


def midnight(day: date) -> datetime:
    """The beginning of a day where the flights depart, in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(ZONE)).astimezone(UTC)


def _load(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location("instar_demo_application", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
