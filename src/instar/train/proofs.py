"""Has a run been made again, and what came of it? Read when somebody stands by its model, or is asked to approve it.

Verdicts are read from the journal: a tag of the repetition can be changed by any client, an entry by nobody unseen.

    [proof.verdict for proof in of_run(store, run.project, run.id)]        # the newest first
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from instar.core import journal
from instar.core.journal import Entry
from instar.core.store import Store

KIND = "run reproduced"  # of the journal's entries
UNPROVEN = "nobody has made it again"


@dataclass(frozen=True)
class Proof:
    """One verdict on a run.

    Attributes:
        run: The run that was repeated.
        repetition: The run that repeated it.
        verdict: `"identical"`, `"equal"` or `"different"`.
        by, at: Who asked for it, and when it was found.
        tolerance: Within which things were equal.
        causes: What was not as it was, the first cause first.
        report: Digest of the whole report, as JSON.
        entry: Number of the journal's entry.
        here: It was made in the environment that was running, not in the run's own.
        newest: It was made on the newest inputs. That is another question, and says nothing about the model as it is.
    """

    run: str
    repetition: str
    verdict: str
    by: str
    at: datetime
    tolerance: float
    causes: tuple[str, ...]
    report: str
    entry: int
    here: bool = False
    newest: bool = False

    @property
    def question(self) -> str:
        """What was asked: the run as it was, or under which of today's conditions."""
        parts = [*(["newest inputs"] if self.newest else []), *(["environment of here"] if self.here else [])]
        return ", ".join(parts) or "as it was"

    @property
    def first_cause(self) -> str:
        """Why it is different; empty where it is not."""
        return self.causes[0] if self.causes else ""


def of_run(store: Store, project: str, run: str) -> list[Proof]:
    """The verdicts on a run, the newest first."""
    if not run:  # a model that came from elsewhere
        return []
    with store.database.read() as tx:
        found = journal.entries(tx, project, kind=KIND, subject=run)
    return [_proof(entry) for entry in reversed(found)]


def document(proof: Proof) -> dict[str, Any]:
    """As JSON values."""
    return {
        "run": proof.run,
        "repetition": proof.repetition,
        "verdict": proof.verdict,
        "question": proof.question,
        "by": proof.by,
        "at": proof.at.isoformat(),
        "tolerance": proof.tolerance,
        "first_cause": proof.first_cause or None,
        "causes": list(proof.causes),
        "report": proof.report,
        "journal_entry": proof.entry,
    }


def said(proofs: Sequence[Proof]) -> str:
    """In one line, whether a run has been proven: the newest verdict on it as it was, and how many there are."""
    asked = [proof for proof in proofs if not proof.newest]
    if not asked:
        return UNPROVEN
    newest = asked[0]
    line = f"{newest.verdict} on {newest.at:%Y-%m-%d} by {newest.by}"
    if newest.first_cause:
        line += f", first cause: {newest.first_cause}"
    return line if len(asked) == 1 else f"{line}; the newest of {len(asked)} repetitions"


def _proof(entry: Entry) -> Proof:
    body = entry.body
    return Proof(
        entry.subject, body["repetition"], body["verdict"], entry.actor, entry.recorded_at, body["tolerance"],
        tuple(body["causes"]), body["report"], entry.number,
        body.get("here", False), body.get("newest", False),
    )  # fmt: skip
