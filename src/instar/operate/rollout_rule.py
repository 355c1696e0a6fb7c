"""The rule of a rollout: whether a candidate that answers beside the champion may go on, at every look while it is live.

Pure: the position and terms of the rollout, the evidence so far and the event time go in, one decision that names its
evidence comes out. `pairing` gathers the evidence, `rollout` records and applies the decision.

**The walk.** shadow -> canary at each of `steps` per cent -> champion. At a look, the first line that applies decides:

1. *errors*: candidate calls that failed, over max(candidate calls, `ERROR_CALLS`), is above `rollback.errors` -> out.
2. *cost guard*: with c and k the costs of the champion's and the candidate's answer to the same prediction, the
   confidence sequence on the mean of k - (1 + `rollback.cost`) c lies above zero: the candidate is proven to cost more
   than the champion by more than that share -> out.
3. *shadow*: both answered `shadow` predictions -> first step.
4. *bake*: `bake` of event time passed within the step and both answered at least one prediction in it -> next step.
5. After the last step has baked, with `min_rows` and `min_outcomes` outcomes or more: the confidence sequence on the mean of
   k - (1 + margin) c lies above zero, with margin `no_worse` for a refit and 0 for a new recipe -> out; otherwise the
   evidence does not contradict the gates that it passed -> champion.
6. *patience*: none of the above, and the rollout has stood in this place for longer than `patience` of event time ->
   rejected as undecided.
7. Otherwise it waits.

"Out" is *rejected* while in shadow, when no answer of the candidate was ever returned, and *rolled back* from then on.
Where the answer changes the outcome, pairs of answers prove nothing: lines 2 and 5 are left out, and only patience or a
person ends the rollout.

**Why it may look every day.** The sequence (`evaluate.compare.PairedSums.sequence`) holds at all sample sizes at once,
so looking often and stopping at will keeps the error rate at 1 - `LEVEL` per margin and rollout. It says nothing before
its first rows (`min_outcomes`, and never before `evaluate.compare.SEQUENCE_START`) or while the two versions never
differed. Rows that share a cause, as the flights of one stormy day do, are fewer than they look: with `group`, what differs
between such spans of time counts as chance, too (`evaluate.compare.grouped_sequence`). Margins are folded into each
row, not divided by an estimated cost, so "5 % worse" is what is tested.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from instar.core.stats import safe_ratio
from instar.evaluate.compare import GROUPS_START, LEVEL, SEQUENCE_START, Interval, PairedSums, grouped_sequence

ERROR_CALLS = 200  # below this many calls single failures weigh as if there were this many

SHADOW, CANARY, CHAMPION = "shadow", "canary", "champion"
ROLLED_BACK, REJECTED, SUPERSEDED = "rolled back", "rejected", "superseded"
RUNNING = (SHADOW, CANARY)


@dataclass(frozen=True)
class Terms:
    """What the contract asks of one rollout, as it stood when the rollout began.

    Attributes:
        shadow: Predictions that both versions must have answered before any answer is returned.
        steps: Shares of calls answered by the candidate, per cent, rising.
        bake: Least event time in a step.
        patience: Longest event time in one place without a decision.
        cool_down: How long a candidate that was put out for cause stays barred.
        cost: Largest relative extra cost per prediction, e.g. 0.05.
        errors: Largest share of failed calls.
        no_worse: Largest relative extra cost of a refit of the champion's own recipe.
        min_rows: Outcomes needed to become champion.
        min_outcomes: Outcomes before which costs are not compared at all.
        group: Span of event time whose outcomes go together; zero where each stands for itself.
        refit: The candidate is a refit of the champion's recipe.
        lease: For which the candidate has its share while nobody looks at the rollout, wall time.
        affected_by_answer: Outcomes depend on the answer that was returned.
    """

    shadow: int
    steps: tuple[float, ...]
    bake: timedelta
    patience: timedelta
    cool_down: timedelta
    cost: float
    errors: float
    no_worse: float
    min_rows: int
    refit: bool
    affected_by_answer: bool = False
    min_outcomes: int = SEQUENCE_START
    group: timedelta = timedelta(0)
    lease: timedelta = timedelta(hours=1)


@dataclass(frozen=True)
class Place:
    """Where a rollout stands: `"shadow"` (step -1) or `"canary"` at `steps[step]`, since an event time."""

    stage: str
    step: int
    since: datetime


@dataclass(frozen=True)
class Evidence:
    """What is known about a candidate at one look.

    Attributes:
        calls: Predictions that the candidate was asked for since the rollout began.
        errors: Those that it did not answer.
        paired: Predictions that both versions answered.
        paired_here: Of these, the ones since the rollout came to its present place.
        cost: Costs of the candidate's (a) and the champion's (b) answers, over paired predictions with an outcome.
        groups: The same by group, where the terms say that outcomes go together.
        until: End of the event time covered.
    """

    calls: int
    errors: int
    paired: int
    paired_here: int
    cost: PairedSums
    until: datetime
    groups: tuple[PairedSums, ...] = ()


class Move(enum.StrEnum):
    """What a look decides."""

    WAIT = "wait"
    ADVANCE = "advance"
    PROMOTE = "promote"
    ROLL_BACK = "roll back"
    REJECT = "reject"


@dataclass(frozen=True)
class Decision:
    """One move, the rule that made it, and the evidence in words and numbers.

    Attributes:
        rule: Name of the line of the rule, e.g. `"cost guard"`.
        stage, step: Where the rollout stands afterwards.
        for_cause: The candidate was put out because of what it did, so its digest is barred for a time.
        facts: JSON numbers that the reason rests on.
    """

    move: Move
    rule: str
    reason: str
    stage: str
    step: int
    facts: dict[str, Any]
    for_cause: bool = False


def advance(place: Place, terms: Terms, evidence: Evidence, now: datetime) -> Decision:
    """Decide one look at a running rollout by the rule above. Pure.

    Args:
        place: A running place, `"shadow"` or `"canary"`.
        now: Event time of the look.
    """
    share = evidence.errors / max(evidence.calls, ERROR_CALLS)
    if share > terms.errors:
        reason = (
            f"{evidence.errors} of {evidence.calls} calls failed in the candidate, {share:.2%} by the rule; "
            f"{terms.errors:.2%} is allowed"
        )
        return _out(place, "errors", reason, _facts(terms, evidence))
    if not terms.affected_by_answer and proven_worse(evidence, terms.cost, terms):
        reason = (
            f"proven worse than the champion by more than {terms.cost:.1%}: {_compared(evidence, terms.cost, terms)}"
        )
        return _out(place, "cost guard", reason, _facts(terms, evidence, terms.cost))
    if place.stage == SHADOW:
        if evidence.paired >= terms.shadow:
            reason = f"both versions answered {evidence.paired} predictions; {terms.shadow} were asked for in shadow"
            return _forward(place, terms, evidence, now, "shadow", reason)
        missing = f"{evidence.paired} of {terms.shadow} predictions in shadow"
        return _wait(place, terms, evidence, now, "shadow", missing)
    stood = now - place.since
    baked = f"{terms.steps[place.step]:g} % baked for {_hours(stood)} with {evidence.paired_here} predictions"
    if stood < terms.bake or evidence.paired_here == 0:
        return _wait(place, terms, evidence, now, "bake", f"{baked}, {_hours(terms.bake)} are asked for")
    reason = f"{baked}, no guard broken"
    return _forward(place, terms, evidence, now, "bake", reason)


def proven_worse(evidence: Evidence, margin: float, terms: Terms) -> bool:
    """Is the candidate proven to cost more than (1 + margin) times the champion?"""
    return _sequence(evidence, margin, terms).low > 0.0


def _sequence(evidence: Evidence, margin: float, terms: Terms) -> Interval:
    start = max(SEQUENCE_START, terms.min_outcomes)
    if terms.group:
        return grouped_sequence(evidence.groups, 1.0 + margin, LEVEL, start=start)
    return evidence.cost.sequence(1.0 + margin, LEVEL, start=start)


def _forward(place: Place, terms: Terms, evidence: Evidence, now: datetime, rule: str, reason: str) -> Decision:
    if place.step + 1 < len(terms.steps):
        reason += f"; on to {terms.steps[place.step + 1]:g} %"
        return Decision(Move.ADVANCE, rule, reason, CANARY, place.step + 1, _facts(terms, evidence))
    return _finish(place, terms, evidence, now)


def _finish(place: Place, terms: Terms, evidence: Evidence, now: datetime) -> Decision:
    if terms.affected_by_answer:
        missing = "outcomes depend on the answer, so only a randomised comparison counts"
        return _wait(place, terms, evidence, now, "comparison", missing)
    needed = max(terms.min_rows, terms.min_outcomes)
    if evidence.cost.n < needed:
        missing = f"undecided: {evidence.cost.n} of {needed} outcomes"
        return _wait(place, terms, evidence, now, "min_rows", missing)
    if terms.group and len(evidence.groups) < GROUPS_START:
        missing = f"undecided: outcomes of {len(evidence.groups)} of {GROUPS_START} spans of {_hours(terms.group)}"
        return _wait(place, terms, evidence, now, "group", missing)
    margin, rule = (terms.no_worse, "no worse") if terms.refit else (0.0, "not contradicted")
    facts = _facts(terms, evidence, margin)
    compared = _compared(evidence, margin, terms)
    if proven_worse(evidence, margin, terms):
        return _out(place, rule, f"proven worse by more than {margin:.1%}, after the last step: {compared}", facts)
    return Decision(
        Move.PROMOTE, rule, f"not proven worse by more than {margin:.1%}: {compared}", CHAMPION, place.step, facts
    )


def _wait(place: Place, terms: Terms, evidence: Evidence, now: datetime, rule: str, missing: str) -> Decision:
    facts, stood = _facts(terms, evidence), now - place.since
    if stood > terms.patience:
        reason = f"undecided after {_hours(stood)} in one place, patience is {_hours(terms.patience)}: {missing}"
        return Decision(Move.REJECT, "patience", reason, REJECTED, place.step, facts)
    return Decision(Move.WAIT, rule, missing, place.stage, place.step, facts)


def _out(place: Place, rule: str, reason: str, facts: dict[str, Any]) -> Decision:
    if place.stage == SHADOW:
        return Decision(Move.REJECT, rule, reason, REJECTED, place.step, facts, for_cause=True)
    return Decision(Move.ROLL_BACK, rule, reason, ROLLED_BACK, place.step, facts, for_cause=True)


def _compared(evidence: Evidence, margin: float, terms: Terms) -> str:
    cost, found = evidence.cost, _sequence(evidence, margin, terms)
    if not cost.n:
        return "no outcomes yet"
    return (
        f"{cost.mean_a:.4f} against {cost.mean_b:.4f} per prediction over {cost.n} outcomes, {LEVEL:.0%} anytime-valid "
        f"interval of k - {1 + margin:g} c [{found.low:.4f}, {found.high:.4f}]"
    )


def _facts(terms: Terms, evidence: Evidence, margin: float | None = None) -> dict[str, Any]:
    cost = evidence.cost
    margin = terms.cost if margin is None else margin
    found = _sequence(evidence, margin, terms)
    ratio = safe_ratio(cost.mean_a, cost.mean_b) - 1.0 if cost.n else math.nan
    return {
        "calls": evidence.calls,
        "errors": evidence.errors,
        "paired": evidence.paired,
        "paired_here": evidence.paired_here,
        "outcomes": cost.n,
        "candidate_cost": _number(cost.mean_a),
        "champion_cost": _number(cost.mean_b),
        "relative": _number(ratio),
        "margin": margin,
        "interval": [_number(found.low), _number(found.high)],
        "level": LEVEL,
        "until": evidence.until.isoformat(),
    }


def _number(value: float) -> float | None:
    """JSON has no infinity and no NaN: an unbounded or undefined figure is null."""
    return value if math.isfinite(value) else None


def _hours(span: timedelta) -> str:
    hours = span.total_seconds() / 3600.0
    return f"{hours / 24:.3g} d" if hours >= 48 else f"{hours:.3g} h"
