"""Repetitions on the record: each is a run of its own, linked to the one that it repeats, with the verdict in the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from instar.core import ids, journal, lineage
from instar.core.database import Transaction
from instar.core.store import Store
from instar.train import artifacts, conditions, environment, proofs, run_log, runs
from instar.train.conditions import Conditions
from instar.train.environment import Environment
from instar.train.runs import Run
from instar.train.tracking_tables import run_table
from instar.train.verdict import Cause, Comparison

REPRODUCES, VERDICT, KIND = "instar.reproduces", "instar.verdict", "reproduction"
REPORT = "reproduction.json"
_RELATION = "was reproduced as"


@dataclass(frozen=True)
class Reproduction:
    """What repeating a run came to.

    Attributes:
        run: The run that was repeated.
        repetition: The run that repeated it.
        causes: What is not as it was; the first cause first, and only where the verdict is "different".
        notes: What could not be restored exactly.
        environment: Name of the environment that was built or found; None for the running one.
        by, at: Who asked for it, and when it was found.
        here: In the running environment instead of the run's own.
        newest: On the newest inputs instead of those of the run, which is another question.
    """

    run: str
    repetition: str
    comparison: Comparison
    causes: tuple[Cause, ...]
    notes: tuple[str, ...]
    environment: str | None
    seconds: float
    by: str
    at: datetime
    here: bool = False
    newest: bool = False

    @property
    def verdict(self) -> str:
        """`"identical"`, `"equal"` or `"different"`."""
        return self.comparison.verdict

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        found = self.comparison
        return {
            "run": self.run,
            "repetition": self.repetition,
            "verdict": found.verdict,
            "tolerance": found.tolerance,
            "predictions_differ_by": found.predictions,
            "metrics": {name: list(pair) for name, pair in found.metrics.items()},
            "digests": {name: list(pair) for name, pair in found.digests.items()},
            "causes": [cause.document() for cause in self.causes],
            "notes": list(self.notes),
            "environment": self.environment,
            "seconds": self.seconds,
            "by": self.by,
            "at": self.at.isoformat(),
            "here": self.here,
            "newest": self.newest,
        }


def begin(store: Store, run: Run, inputs: Sequence[str]) -> Run:
    """Put the repetition on the record before anything of it runs."""
    return runs.start(
        store,
        run.project,
        experiment=run.experiment_id,
        name=f"reproduction of {run.name or run.id}",
        step=run.step,
        parameters=run.parameters,
        tags={"kind": KIND, REPRODUCES: run.id},
        inputs=list(inputs),
        cause=f"reproduces {run.id}",
        capture=False,
    )


def describe(
    store: Store, repetition: str, code: Mapping[str, Any] | None, about: Conditions, here: Environment
) -> None:
    """Say under what it ran, as its own process saw it."""
    values = {
        "code": dict(code) if code is not None else None,
        "conditions": conditions.save(store.blobs, about),
        "environment": environment.save(store.blobs, here),
    }
    store.database.write(lambda tx: tx.execute(run_table.update().where(run_table.c.id == repetition).values(values)))


def conclude(store: Store, project: str, made: Reproduction, metrics: Mapping[str, float]) -> None:
    """Keep the verdict: tags and report of the repetition, lineage from the run, and a journal entry."""
    report = artifacts.log_artifact(store, made.repetition, REPORT, ids.canonical_json(made.document()))
    run_log.log_metrics(store, made.repetition, metrics)
    run_log.set_tags(store, made.repetition, {REPRODUCES: made.run, VERDICT: made.verdict})
    body = {
        "repetition": made.repetition,
        "verdict": made.verdict,
        "tolerance": made.comparison.tolerance,
        "causes": [cause.text for cause in made.causes],
        "report": report,
        "here": made.here,
        "newest": made.newest,
    }

    def work(tx: Transaction) -> None:
        lineage.link(tx, project, made.run, _RELATION, made.repetition)
        journal.append(tx, store.clock, store.actor, project, proofs.KIND, made.run, body)

    store.database.write(work, durable=True)
