"""What the record says of a replay when it is over: figures of the log, events, and one prediction traced both ways.

Everything is read back from the store; nothing is remembered from the driving, so the report of a replay that ended
last week is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from instar.app import App
from instar.data import tables
from instar.data.kind import QUARANTINE_SUFFIX
from instar.evaluate.evaluation import get_evaluation
from instar.interfaces.demo import report
from instar.interfaces.demo.figures import LOOP, reduce
from instar.interfaces.demo.progress import Progress
from instar.interfaces.demo.report import ALERT, PROMOTION, REJECTION, RETRAINING, ROLLBACK, Event
from instar.interfaces.demo.world import midnight
from instar.operate import actions, alerts, rollout, trace
from instar.operate.outcomes import join
from instar.operate.proposal import UNDECIDED, Loop
from instar.operate.rollout_rule import REJECTED, ROLLED_BACK
from instar.operate.trace_records import Hop
from instar.release import registry
from instar.serve.traffic import routing

# What a line of the trace shows of a record.
SHOWN = (
    "score",
    "decision",
    "value",
    "caller",
    "reason",
    "cause",
    "approved_by",
    "parameters",
    "fitted_rows",
    "source",
    "predictions",
)
DEEPEST, LONGEST, MOST_ALIKE = 9, 110, 3  # of a printed trace; all of it is in the JSON


def tell(app: App, loop: Loop, progress: Progress, first: date, until: date, seconds: float) -> dict[str, Any]:
    """The report on the days from `first` to before `until`."""
    (endpoint,) = app.project.contract.problem
    problem = app.project.contract.problem[endpoint]
    rows = read(loop, endpoint, progress, first, until)
    end = midnight(until)
    events = [event for event in events_of(loop, endpoint) if event.at < end]
    monthly = {one.version for one in progress.standing if one.role == "monthly" and one.since < end}
    return report.build(
        rows,
        events,
        problem.cost,
        monthly_retrainings=len(monthly) - 1,  # the first of them is the frozen model
        trace=traced(loop, endpoint, rows),
        seconds=seconds,
        quick=until.month == 6,
        facts={
            "replay_seconds": round(progress.seconds, 1),
            "quarantine": quarantined(loop),
            "contract": app.project.revision,
        },
    )


def read(loop: Loop, endpoint: str, progress: Progress, first: date, until: date) -> pl.DataFrame:
    """The log of the replayed days, joined with outcomes and reduced to what the figures need, month by month."""
    parts, since = [], midnight(first)
    while since < midnight(until):
        after = min(since + timedelta(days=30), midnight(until))
        frame = loop.log.read(endpoint, since, after).drop("inputs")
        if frame.height:
            parts.append(reduce(join(loop.store, frame), progress.stood()))
        since = after
    if not parts:
        return reduce(join(loop.store, loop.log.read(endpoint, since, since)), progress.stood())
    return pl.concat(parts)


def events_of(loop: Loop, endpoint: str) -> list[Event]:
    """What was found and decided, from the records of each stage."""
    return sorted(
        (*_alerts(loop, endpoint), *_retrainings(loop, endpoint), *_promotions(loop, endpoint), *_ends(loop, endpoint)),
        key=lambda event: event.at,
    )


def _alerts(loop: Loop, endpoint: str) -> Iterator[Event]:
    for one in alerts.alerts(loop.store, loop.project.name, endpoint=endpoint):
        yield Event(one.opened_at, ALERT, one.metric, one.text)


def _retrainings(loop: Loop, endpoint: str) -> Iterator[Event]:
    for one in actions.actions(loop.store, loop.project.name, endpoint=endpoint, kind=actions.RETRAIN):
        if one.state not in (actions.DONE, actions.FAILED):
            continue
        version = str(one.result.get("version", "no version"))
        words = one.result.get("error") or f"{one.result.get('outcome')}, {one.result.get('reason')}"
        cause = alerts.get(loop.store, one.cause).metric if one.cause.startswith("alrt_") else one.cause
        yield Event(one.requested_at, RETRAINING, version, f"because of {cause}: {words}")
        if one.result.get("outcome") == UNDECIDED:
            yield Event(one.requested_at, REJECTION, version, f"undecided by the gates: {one.result.get('reason')}")


def _promotions(loop: Loop, endpoint: str) -> Iterator[Event]:
    before: int | None = None
    for revision in routing.history(loop.store, endpoint):
        champion = revision.policy.champion
        if champion is not None and champion != before:
            yield Event(revision.event_at, PROMOTION, f"{endpoint}@{champion}", revision.cause)
        before = champion


def _ends(loop: Loop, endpoint: str) -> Iterator[Event]:
    for one in rollout.rollouts(loop.store, loop.project.name, endpoint):
        kind = {REJECTED: REJECTION, ROLLED_BACK: ROLLBACK}.get(one.stage)
        if kind is not None and one.ended_at is not None:
            yield Event(one.ended_at, kind, f"{endpoint}@{one.candidate}", one.reason)
    for version in registry.versions(loop.store, loop.project.name, endpoint):
        if version.state == "rejected" and version.evaluation is not None:
            judged = get_evaluation(loop.store, version.evaluation)
            yield Event(judged.event_at, REJECTION, version.name, f"by the gates: {judged.verdict.reason}")


def traced(loop: Loop, endpoint: str, rows: pl.DataFrame) -> dict[str, Any]:
    """One wrong prediction traced back, and the newest bronze flights traced forward; JSON, and lines for people."""
    wrong = rows.filter(pl.col("y").is_not_null(), pl.col(LOOP) != pl.col("y"), pl.col("reason") == "champion")
    if not wrong.height:
        return {}
    store, log, project = loop.store, loop.log, loop.project.name
    newest = wrong.filter(pl.col("month") == pl.col("month").max())
    worst = newest.with_columns(miss=(pl.col("score") - pl.col("y")).abs()).sort("miss", "prediction")
    prediction = str(worst["prediction"][-1])
    back = trace.backward(store, log, project, prediction)  # type: ignore[arg-type]
    found: dict[str, Any] = {"prediction": prediction, "chain": back.as_json(), "back": list(lines(back))}
    landed = tables.latest(store, project, "flights")
    if landed is not None:
        forward = trace.forward(store, log, project, landed.ref)  # type: ignore[arg-type]
        found |= {"table": landed.ref, "touched": forward.as_json(), "forward": list(lines(forward))}
    return found


def lines(hop: Hop, depth: int = 0) -> Iterator[str]:
    """A trace as indented lines."""
    facts = ", ".join(
        f"{name} {_short(hop.facts[name])}" for name in SHOWN if hop.facts.get(name) not in (None, "", {}, [])
    )
    said = f"{hop.relation + ' ' if hop.relation else ''}{hop.kind} {hop.name} ({hop.precision})"
    line = "  " * depth + said + (f": {facts}" if facts else "")
    yield line if len(line) <= LONGEST + 2 * depth else line[: LONGEST + 2 * depth - 1] + "…"
    if depth >= DEEPEST:
        return
    shown: dict[str, int] = {}
    for inner in hop.hops:
        shown[inner.kind] = shown.get(inner.kind, 0) + 1
        if shown[inner.kind] <= MOST_ALIKE:
            yield from lines(inner, depth + 1)
    for kind, count in shown.items():
        if count > MOST_ALIKE:
            yield f"{'  ' * (depth + 1)}and {count - MOST_ALIKE} more of kind {kind}"


def quarantined(loop: Loop) -> dict[str, dict[str, int]]:
    """How many rows stand aside, by table and reason."""
    found = {}
    for step in loop.pipeline.steps.values():
        version = tables.latest(loop.store, loop.project.name, step.name + QUARANTINE_SUFFIX)
        if step.makes_table and version is not None:
            counted = tables.scan(loop.store, version).group_by("_reason").len().sort("_reason").collect()
            found[step.name] = dict(counted.iter_rows())
    return found


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return " ".join(f"{name}={_short(inner)}" for name, inner in value.items())
    return value.isoformat() if isinstance(value, datetime) else str(value)
