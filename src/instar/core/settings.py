"""Settings from the environment, read once when a program starts.

| variable | meaning |
| --- | --- |
| `INSTAR_STORE` | the store's folder; default `.instar` beside `instar.toml` |
| `INSTAR_DATABASE` | URL of the metadata database; default a SQLite file in the store |
| `INSTAR_URL` | address of a running server which `instar predict` and the SDK talk to |
| `INSTAR_WEBHOOK_TARGETS` | `any`: webhooks may go to http and to private addresses; default `public` |
| `INSTAR_CONTROLLERS` | `off`: the server watches, retrains and rolls out nothing by itself |
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

STORE_FOLDER = ".instar"


@dataclass(frozen=True)
class Settings:
    """Where things are kept, and whom to ask."""

    store: Path | None = None
    database: str | None = None
    url: str | None = None
    controllers: bool = True
    webhook_targets: str = "public"

    def store_folder(self, project_root: Path) -> Path:
        """The store's folder for a project at `project_root`."""
        return (self.store or project_root / STORE_FOLDER).absolute()

    def database_url(self, folder: Path) -> str:
        """The metadata database of the store in `folder`."""
        return self.database or f"sqlite:///{folder / 'instar.db'}"


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from `environment`, by default the process's own."""
    values = os.environ if environment is None else environment
    store = values.get("INSTAR_STORE")
    return Settings(
        store=Path(store).expanduser() if store else None,
        database=values.get("INSTAR_DATABASE") or None,
        url=values.get("INSTAR_URL") or None,
        webhook_targets=values.get("INSTAR_WEBHOOK_TARGETS", "public").lower(),
        controllers=values.get("INSTAR_CONTROLLERS", "on").lower() not in ("off", "0", "no", "false"),
    )
