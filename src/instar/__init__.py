"""Instar: the whole machine-learning life cycle on one record.

What a project's pipeline needs, by its public name; each is loaded when it is first used, so that importing is quick:

    from instar import baseline, check, gold, model, silver, source

And what any script or notebook needs: `instar.run` records a run, `instar.reproduce` makes one again, `instar.connect` talks
to a server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instar.data.checks import quarantine
    from instar.data.features import as_of
    from instar.interfaces.proving import reproduce, reproductions
    from instar.interfaces.sdk.client import connect
    from instar.interfaces.sdk.run import run
    from instar.interfaces.tables import table
    from instar.plan.pipeline import baseline, check, gold, model, notebook, silver, source
    from instar.plan.ranges import between
    from instar.train.reporting import report

__version__ = "0.1.0"

_HOMES = {
    "as_of": "instar.data.features",
    "baseline": "instar.plan.pipeline",
    "between": "instar.plan.ranges",
    "check": "instar.plan.pipeline",
    "connect": "instar.interfaces.sdk.client",
    "gold": "instar.plan.pipeline",
    "model": "instar.plan.pipeline",
    "notebook": "instar.plan.pipeline",
    "quarantine": "instar.data.checks",
    "report": "instar.train.reporting",
    "reproduce": "instar.interfaces.proving",
    "reproductions": "instar.interfaces.proving",
    "run": "instar.interfaces.sdk.run",
    "silver": "instar.plan.pipeline",
    "source": "instar.plan.pipeline",
    "table": "instar.interfaces.tables",
}

__all__ = [
    "as_of",
    "baseline",
    "between",
    "check",
    "connect",
    "gold",
    "model",
    "notebook",
    "quarantine",
    "report",
    "reproduce",
    "reproductions",
    "run",
    "silver",
    "source",
    "table",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'instar' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
