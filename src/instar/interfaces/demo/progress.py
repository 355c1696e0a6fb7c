"""How far a replay has come, kept beside the records, so that one which was stopped at any point goes on from there.

Only the place in event time is kept here. What was landed, asked, posted and decided is on the record itself, and each of
these is done so that doing it again changes nothing.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import msgspec

from instar.core.errors import Damaged, StoreTooNew
from instar.interfaces.demo.figures import Standing

FORMAT = 1
FILE = "demo.json"


class Place(msgspec.Struct, frozen=True):
    """Which version stands for a way of running the product from a moment on."""

    role: str
    version: int
    since: datetime


class Progress(msgspec.Struct):
    """What a replay has done.

    Attributes:
        until: Event time up to which all was played; None before the first day.
        opened: The product answers.
        standing: Which version stood for which way, and since when.
        landed_month: The last month whose flights were delivered, 1 to 12; 0 before the first.
        monthly_retrainings: How often the way that is retrained every month was.
        spoiled: The spoiled candidate was proposed.
        seconds: Wall time spent so far.
    """

    format: int = FORMAT
    until: datetime | None = None
    opened: bool = False
    standing: list[Place] = []
    landed_month: int = 0
    monthly_retrainings: int = 0
    spoiled: bool = False
    seconds: float = 0.0

    def stood(self) -> list[Standing]:
        """The standing as the figures want it."""
        return [Standing(one.role, one.version, one.since) for one in self.standing]

    def version_of(self, role: str) -> int | None:
        """The version that stands for a way now."""
        found = [one for one in self.standing if one.role == role]
        return found[-1].version if found else None

    def stand(self, role: str, version: int, since: datetime) -> None:
        """From `since` on, `version` stands for the way."""
        if self.version_of(role) != version:
            self.standing.append(Place(role, version, since))


def read(store_folder: Path) -> Progress:
    """The progress of the replay in a store; a fresh one when there is none.

    Raises:
        Damaged: The file cannot be read.
        StoreTooNew: A later program wrote it.
    """
    file = store_folder / FILE
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Progress)
    except FileNotFoundError:
        return Progress()
    except msgspec.DecodeError as error:
        raise Damaged("the replay's progress cannot be read", subject=str(file), found=str(error)) from error
    if found.format > FORMAT:
        raise StoreTooNew("a later program replayed here", subject=str(file), found=found.format, asked=FORMAT)
    return found


def write(store_folder: Path, progress: Progress) -> None:
    """Keep the progress: the whole of it or what was kept before."""
    file = store_folder / FILE
    beside = file.with_suffix(".new")
    with beside.open("wb") as output:
        output.write(msgspec.json.encode(progress))
        output.flush()
        os.fsync(output.fileno())
    os.replace(beside, file)
