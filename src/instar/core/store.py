"""The store: the ports and the folder in which all records of all projects are kept, as handed to every stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from instar.core.blobs import Blobs
from instar.core.clock import Clock
from instar.core.database import Database
from instar.core.identity import Actor


@dataclass(frozen=True)
class Store:
    """What a stage needs to read and write records: made in `app.py`, nowhere else.

    Attributes:
        folder: The store's folder (`.instar`): Delta tables, call logs, route snapshots.
        database: Metadata.
        blobs: Immutable bytes by digest.
        clock: Event, wall and monotonic time.
        actor: Who writes; every journal entry names it.
    """

    folder: Path
    database: Database
    blobs: Blobs
    clock: Clock
    actor: Actor
