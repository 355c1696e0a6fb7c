"""Monitors: what an endpoint's last windows of traffic say, measured from the prediction log and the outcomes.

Called once a window (a day, by default). One look reads the log once, over at most two windows and the outcomes' delay,
and never the whole of it. It measures, in event time:

| monitor | subject | value | window | limit |
| --- | --- | --- | --- | --- |
| `drift` | each input | PSI against the rows the champion was fitted on (nats) | traffic | `monitor.drift`, no alert of its own |
| `drift_share` | endpoint | share of inputs that drift | traffic | `monitor.drift_share` |
| `errors` | endpoint | share of calls that failed | traffic | `rollout.rollback.errors` |
| `latency_p99` | endpoint | slowest of 100 answers (ms, wall time) | traffic | `gates.latency_p99_ms` |
| `cost` | endpoint | cost per prediction of the answers returned | outcomes | reference x (1 + `monitor.cost`) |
| `cost`, `auc` | each version | of its answers, returned or not | outcomes | none |
| `outcomes_missing` | endpoint | share of predictions without an outcome | outcomes | `MISSING_LIMIT` |
| `outcomes_parked` | endpoint | outcomes beyond the delay whose call was never seen | all | 0 |
| `staleness` | champion | days since the last row it was fitted on | - | none |

The window of *traffic* ends now; the window of *outcomes* ends `outcome.due` ago, so that what is due has arrived.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from instar.core.database import Transaction
from instar.core.ids import new_id
from instar.core.store import Store
from instar.data import drift
from instar.data.profile import Profile, profile
from instar.evaluate.metrics import auc
from instar.operate import alerts
from instar.operate.alerts import Changed
from instar.operate.measurement import BREACH, NO_LIMIT, NO_REFERENCE, OK, TOO_FEW, Measurement, keep
from instar.operate.outcomes import join, settle_parked
from instar.operate.pairing import SERVER_FAULT, PredictionLog
from instar.plan.cost import per_row
from instar.plan.project import Problem

MISSING_LIMIT = 0.5  # cancelled flights and lost parcels never get an outcome; half of them missing is a broken feed
SILENT = frozenset({"drift"})  # measured against a limit, and reported by another monitor's alert


@dataclass(frozen=True)
class Reference:
    """What the champion is compared with.

    Attributes:
        version: The champion's number.
        inputs: Columns whose drift is watched: the model's inputs, without personal ones.
        profile: Of the rows it was fitted on; None when there is none.
        profile_id: Digest of that profile.
        cost: Cost per prediction that it had when it was judged; None when it never was.
        cost_id: Id of the record that says so.
        fitted_until: Event time of the last row fitted on.
    """

    version: int
    inputs: tuple[str, ...] = ()
    profile: Profile | None = None
    profile_id: str | None = None
    cost: float | None = None
    cost_id: str | None = None
    fitted_until: datetime | None = None


@dataclass(frozen=True)
class Watched:
    """What one look found and changed."""

    measurements: tuple[Measurement, ...]
    changed: Changed


def watch(
    store: Store, project: str, endpoint: str, problem: Problem, log: PredictionLog, reference: Reference
) -> Watched:
    """Look at an endpoint now: measure, keep the measurements, open and close alerts, all in one transaction.

    Looking twice at the same moment keeps and changes nothing the second time.
    """
    now, span, due = store.clock.event(), problem.monitor.window, problem.outcome.due
    frame = log.read(endpoint, now - due - span, now)
    parked = settle_parked(store, project, log.seen, due)
    look = _Look(new_id("meas"), store, project, endpoint, problem, reference, now)
    traffic = frame.filter(pl.col("at") >= now - span)
    due_rows = frame.filter(pl.col("at") < now - due, pl.col("at") >= now - due - span)
    found = [
        *look.service(traffic),
        *look.drift(traffic),
        *look.quality(join(store, due_rows.filter(pl.col("decision").is_not_null()))),
        look.parked(len(parked.overdue)),
        look.staleness(),
    ]

    def work(tx: Transaction) -> Watched:
        fresh = keep(tx, found)
        loud = [one for one in fresh if one.monitor not in SILENT]
        changed = alerts.update(tx, store.clock, store.actor, project, loud, consecutive=problem.monitor.consecutive)
        return Watched(tuple(fresh), changed)

    return store.database.write(work, durable=True)


@dataclass(frozen=True)
class _Look:
    """One look at one endpoint: turns rows of the log into measurements, whose ids begin with its name."""

    name: str
    store: Store
    project: str
    endpoint: str
    problem: Problem
    reference: Reference
    now: datetime

    def service(self, traffic: pl.DataFrame) -> list[Measurement]:
        calls = traffic.unique("call") if traffic.height else traffic
        failed = calls.filter(pl.col("status") >= SERVER_FAULT).height
        share = failed / calls.height if calls.height else None
        answered = calls.filter(pl.col("status") < 400)["latency_us"]
        slowest = answered.quantile(0.99, "higher")
        cursor = _last(traffic)
        return [
            self.measured(
                "errors", share, calls.height, limit=self.problem.rollout.rollback.errors, cursor=cursor,
                detail={"failed": failed, "why": f"{failed} of {calls.height} calls failed"},
            ),
            self.measured(
                "latency_p99", None if slowest is None else slowest / 1000.0, answered.len(),
                limit=self.problem.gates.latency_p99_ms, cursor=cursor,
                detail={"unit": "ms", "median": None if slowest is None else _ms(answered.median())},
            ),
        ]  # fmt: skip

    def drift(self, traffic: pl.DataFrame) -> list[Measurement]:
        reference, limit = self.reference, self.problem.monitor.drift
        rows = traffic.filter(pl.col("decision").is_not_null())
        if reference.profile is None:
            return [self.measured("drift_share", None, rows.height, state=NO_REFERENCE)]
        inputs = rows["inputs"].struct.unnest() if rows.height else pl.DataFrame()
        window = profile(inputs.select([name for name in reference.inputs if name in inputs.columns]))
        cursor, found = _last(rows), []
        for one in drift.compare(reference.profile, window):
            value = None if math.isnan(one.value) else one.value
            found.append(
                self.measured(
                    "drift", value, one.n_window, subject=one.column, limit=limit, reference=reference.profile_id,
                    cursor=cursor, detail={"measure": one.measure, "binning": one.binning, "noise": _number(one.noise)},
                )
            )  # fmt: skip
        over = sorted((one for one in found if one.state == BREACH), key=lambda one: -(one.value or 0.0))
        known = [one for one in found if one.value is not None]
        named = ", ".join(f"{one.subject} {one.value:.2f}" for one in over[:5])
        share = self.measured(
            "drift_share",
            len(over) / len(known) if known else None,
            rows.height,
            limit=self.problem.monitor.drift_share,
            reference=reference.profile_id,
            cursor=cursor,
            detail={
                "drifting": [one.subject for one in over],
                "inputs": len(known),
                "why": f"PSI of {named}" if named else "",
            },
        )
        return [*found, share]

    def quality(self, rows: pl.DataFrame) -> list[Measurement]:
        known = rows.drop_nulls("truth")
        arrived = known.height / rows.height if rows.height else None
        span = self.problem.outcome.due
        found = [
            self.measured(
                "outcomes_missing", None if arrived is None else 1.0 - arrived, rows.height, limit=MISSING_LIMIT,
                share=arrived, cursor=_last(rows), delay=span,
            ),
            self.cost(known, arrived),
        ]  # fmt: skip
        for version, said in _answers_by_version(known):
            truth = said["truth"].to_numpy()
            figures = {
                "cost": float(per_row(self.problem.cost, truth, said["decision"].to_numpy()).mean()),
                "auc": auc(truth, said["score"].to_numpy()),
            }
            for monitor, value in figures.items():
                found.append(
                    self.measured(
                        monitor, _number(value), said.height, subject=f"{self.endpoint}@{version}", state=NO_LIMIT,
                        share=arrived, cursor=_last(known), delay=span,
                    )
                )  # fmt: skip
        return found

    def cost(self, known: pl.DataFrame, arrived: float | None) -> Measurement:
        paid = per_row(self.problem.cost, known["truth"].to_numpy(), known["decision"].to_numpy())
        value, reference = (float(paid.mean()) if paid.size else None), self.reference.cost
        detail: dict[str, Any] = {"unit": self.problem.cost.unit, "reference": reference}
        if value is not None and reference:
            rise = value / reference - 1.0
            detail |= {"rise": rise, "why": f"{rise:+.0%} over {reference:.3g} {self.problem.cost.unit} per prediction"}
        return self.measured(
            "cost", value, known.height, limit=None if reference is None else reference * (1.0 + self.problem.monitor.cost),
            state=NO_REFERENCE if reference is None else None, reference=self.reference.cost_id, share=arrived,
            cursor=_last(known), delay=self.problem.outcome.due, detail=detail,
        )  # fmt: skip

    def parked(self, overdue: int) -> Measurement:
        return self.measured("outcomes_parked", float(overdue), overdue, limit=0.0, state=BREACH if overdue else OK)

    def staleness(self) -> Measurement:
        until = self.reference.fitted_until
        age = None if until is None else (self.now - until) / timedelta(days=1)
        subject = f"{self.endpoint}@{self.reference.version}"
        return self.measured("staleness", age, 0, subject=subject, state=NO_LIMIT, detail={"unit": "days"})

    def measured(
        self,
        monitor: str,
        value: float | None,
        n: int,
        *,
        subject: str | None = None,
        limit: float | None = None,
        state: str | None = None,
        reference: str | None = None,
        share: float | None = None,
        cursor: str | None = None,
        delay: timedelta = timedelta(0),
        detail: dict[str, Any] | None = None,
    ) -> Measurement:
        if state is None:
            if value is None or n < self.problem.monitor.min_rows:
                state = TOO_FEW
            else:
                state = BREACH if limit is not None and value > limit else OK
        end = self.now - delay
        return Measurement(
            f"{self.name}/{monitor}/{subject or self.endpoint}", self.project, self.endpoint, monitor, subject or self.endpoint,
            end - self.problem.monitor.window, end, value, limit, state, n, self.store.clock.wall(), share, reference,
            cursor, detail or {},
        )  # fmt: skip


def _answers_by_version(known: pl.DataFrame) -> list[tuple[int, pl.DataFrame]]:
    if not known.height:
        return []
    said = known.select("truth", "answers").explode("answers", empty_as_null=False, keep_nulls=False)
    answer = pl.col("answers").struct
    flat = said.select("truth", *(answer.field(name) for name in ("version", "score", "decision"))).drop_nulls("score")
    parts = flat.partition_by("version", as_dict=True)
    return [(int(key[0]), parts[key]) for key in sorted(parts)]


def _last(rows: pl.DataFrame) -> str | None:
    found = rows["prediction"].max() if rows.height else None
    return None if found is None else str(found)


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _ms(microseconds: Any) -> float | None:
    return None if microseconds is None else float(microseconds) / 1000.0
