"""The words of the contract: a frozen type for every section of `instar.toml`, as planned with and as every stage reads it.

The stages hold the behaviour; `project.py` reads and proves the file.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import msgspec

from instar.core.limits import Limits
from instar.plan.cost import Cost


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A section of `instar.toml`."""


class ProjectSection(Section, frozen=True, kw_only=True):
    """Who wants what.

    Attributes:
        name: Name of the project in the store.
        objective: The business goal, one sentence.
        owner: Who answers for it.
        pipeline: File with the steps, or a pattern such as `"steps/*.py"`, or several of them. A notebook is a file with
            steps too: `["pipeline.py", "analysis.ipynb"]`.
        public_variables: Environment variables whose values may be kept with runs, so that a run can be made again under them.
            Of all others that are declared a digest is kept.
    """

    name: str
    objective: str
    owner: str
    pipeline: str | tuple[str, ...] = "pipeline.py"
    public_variables: tuple[str, ...] = ()


class Split(Section, frozen=True, kw_only=True):
    """How the framework cuts the gold table, oldest rows first: fit, decide, judge.

    Attributes:
        by: The order of the rows.
        decide: Length of the part on which threshold and calibration are decided.
        judge: Length of the newest part, on which gates judge; nothing was fitted or tuned on it.
        refit: Fit a recipe that passed again on all landed rows; the refit is judged live.
        min_rows: Fewest rows that `decide` and `judge` may have before a verdict is *undecided*.
        threshold: From which score on the decision is yes: `"decide"` is the cheapest on those rows; `"neutral"` is where
            a probability makes both mistakes equally dear, and needs scores that are probabilities. The latter is steadier
            where the share of positives moves from one fortnight to the next.
    """

    by: Literal["event_time"] = "event_time"
    decide: timedelta
    judge: timedelta
    refit: bool = True
    min_rows: int = 200
    threshold: Literal["decide", "neutral"] = "decide"


class OutcomeTerms(Section, frozen=True, kw_only=True):
    """What comes back.

    Attributes:
        due: Expected delay of the truth after the prediction's event time; an alert is raised when it is missed.
        affected_by_answer: The answer changes the outcome, so only a randomised comparison counts.
        truth: Where the truth that trains comes from: `"log"` (posted outcomes) or `"table"`.
    """

    due: timedelta
    affected_by_answer: bool = False
    truth: Literal["log", "table"] = "log"


class Gates(Section, frozen=True, kw_only=True):
    """What a candidate has to prove.

    Attributes:
        improvement: Asked of a new recipe: share of the champion's cost that it must save.
        no_worse: Asked of a refit of the same recipe: share of the champion's cost that it may add.
        slices: Columns; each of their values is judged apart.
        slice_no_worse: Share of the champion's cost that a candidate may add on one slice.
        latency_p99_ms: Slowest allowed answer to one row, 99th percentile, in milliseconds.
    """

    improvement: float = 0.01
    no_worse: float = 0.02
    slices: tuple[str, ...] = ()
    slice_no_worse: float = 0.10
    latency_p99_ms: float = 20.0


class Guard(Section, frozen=True, kw_only=True):
    """When a rollout goes back: cost as a share over the champion's, errors as a share of calls."""

    cost: float = 0.05
    errors: float = 0.01


class Rollout(Section, frozen=True, kw_only=True):
    """How a candidate becomes champion.

    Attributes:
        shadow: Predictions to answer unseen first.
        steps: Shares of calls in per cent, growing, the last one 100.
        bake: Least time on each step.
        min_outcomes: Fewest outcomes before the costs of candidate and champion are compared.
        group: Span of event time whose outcomes go together, e.g. `"1d"` where a day's weather or offer is in all of them;
            zero where each stands for itself. A comparison then needs some such spans.
        patience: Longest time in one place, shadow or a step; undecided for longer is rejected.
        cool_down: How long a rolled back candidate stays barred.
        lease: Longest time for which a candidate keeps its share of the answers while no controller looks at it, by the wall
            clock; then gateways give the share back to the champion by themselves.
        rollback: When to go back.
    """

    shadow: int = 2000
    steps: tuple[float, ...] = (2, 5, 10, 25, 75, 100)
    bake: timedelta = timedelta(hours=6)
    min_outcomes: int = 300
    group: timedelta = timedelta(0)
    patience: timedelta = timedelta(days=14)
    cool_down: timedelta = timedelta(days=7)
    lease: timedelta = timedelta(hours=1)
    rollback: Guard = Guard()


class Retrain(Section, frozen=True, kw_only=True):
    """When to fit again.

    Attributes:
        when: `"drift"`, `"cost"`, `"schedule:monthly"` (or hourly, daily, weekly).
        approval: `"automatic"` when the gates passed, or `"four-eyes"`.
        min_interval: Least time between two retrainings.
        fresh: Tables which must have grown since the last training before another is worth it.
    """

    when: tuple[str, ...] = ()
    approval: Literal["automatic", "four-eyes"] = "automatic"
    min_interval: timedelta = timedelta(0)
    fresh: tuple[str, ...] = ()


class Monitor(Section, frozen=True, kw_only=True):
    """How the live product is watched.

    Attributes:
        window: Length of one window in event time.
        every: How often to look, in event time; windows longer than this overlap.
        every: Least event time between two looks; shorter than `window`, the windows overlap.
        drift: Population stability index (nats) of a feature from which on it counts as drifting.
        drift_share: Share of drifting features from which on an alert is raised.
        cost: Rise of the live cost over its reference, as a share, from which on an alert is raised.
        min_rows: Fewest rows of a window that is judged.
        consecutive: Windows in a row that must be over the limit.
    """

    window: timedelta = timedelta(days=1)
    every: timedelta = timedelta(days=1)
    drift: float = 0.2
    drift_share: float = 0.2
    cost: float = 0.15
    min_rows: int = 200
    consecutive: int = 1


class Serving(Section, frozen=True, kw_only=True):
    """What is agreed for the processes that answer calls of the problem's endpoint.

    Attributes:
        reserve: The champion is loaded from the start of the server and stays; otherwise the first call loads it.
        idle: Without a call, after which a version's own process ends; default as the server has it (`INSTAR_IDLE`).
        most: Processes of one version at most, when calls wait in a queue; default as many as there are cores.
        memory: Of one process of a version of its own, as in `"2GiB"`: beyond it the process is replaced.
        retry: A call whose process died is asked once more of another; `false` for a model that must not be asked twice.
        timeout: Of a call, as in `"5s"`; who asks for less gets less. Default: the server's (`INSTAR_CALL_LIMIT`).
    """

    reserve: bool = False
    idle: timedelta | None = None
    most: int | None = None
    memory: str | None = None
    retry: bool = True
    timeout: timedelta | None = None


class RecordTerms(Section, frozen=True, kw_only=True):
    """How long the record of the problem's endpoint is kept, in event time; for ever where nothing is said.

    Attributes:
        keep: Predictions, whole.
        inputs: What was asked; who asked, when, and what was answered stay as long as `keep` says.
    """

    keep: timedelta | None = None
    inputs: timedelta | None = None


class InputTerms(Section, frozen=True, kw_only=True):
    """What a call may send for one feature; beyond it, it is refused. Nothing is learned from the rows that a model is fitted on.

    Attributes:
        min, max: Of a number, both included.
        values: All that there may be: texts, or numbers.
        nullable: May a call leave it out? By default as `Problem.nullable` says.
    """

    min: float | None = None
    max: float | None = None
    values: tuple[Any, ...] | None = None
    nullable: bool | None = None

    @property
    def limits(self) -> Limits | None:
        """What is declared of its values."""
        if self.min is None and self.max is None and self.values is None:
            return None
        return Limits(self.min, self.max, self.values)


class Problem(Section, frozen=True, kw_only=True):
    """One machine-learning problem of the objective.

    Attributes:
        task: What is predicted: `"binary"`, a yes or no.
        target: Column of the gold table with the truth.
        metric: Decides; the others are reported.
        cost: Of each mistake.
        oversight: What a person does: `"none"`, `"advice"` (people decide, advised), `"approval"` (a person confirms each).
        features: `"all"` (all but key, event time, created time and target) or the columns' names.
        split, outcome, gates, rollout, retrain, monitor, serving, record: The sections of the same names.
        privacy: Privacy class of columns that are not internal.
        nullable: Features that a call may leave out although none was missing when the model was fitted; those that
            were missing then may be left out in any case.
        inputs: What a call may send, by feature.
    """

    task: Literal["binary"]
    target: str
    metric: Literal["cost"]
    cost: Cost
    oversight: Literal["none", "advice", "approval"] = "none"
    features: Literal["all"] | tuple[str, ...] = "all"
    split: Split
    outcome: OutcomeTerms
    gates: Gates = Gates()
    rollout: Rollout = Rollout()
    retrain: Retrain = Retrain()
    monitor: Monitor = Monitor()
    serving: Serving | None = None
    record: RecordTerms | None = None
    privacy: dict[str, Literal["public", "internal", "personal"]] = {}
    nullable: tuple[str, ...] = ()
    inputs: dict[str, InputTerms] = {}


class StepTerms(Section, frozen=True, kw_only=True):
    """How one step is attempted; what is left out is as its decorator says.

    Attributes:
        retries: Attempts after the first one failed.
        retry_after: Wait before the second attempt; it doubles before each further one.
        timeout: Longest time of one attempt.
    """

    retries: int | None = None
    retry_after: timedelta | None = None
    timeout: timedelta | None = None


class Schedule(Section, frozen=True, kw_only=True):
    """When `instar up` runs the pipeline by itself: by the calendar, or when data has landed.

    Attributes:
        cron: Minute, hour, day, month and weekday, as in `"0 3 * * *"`.
        on: `"new data"`: when a source has rows or files that it had not when this fired last.
        source: With `on`, the source that is looked at; default all of them.
        zone: Time zone of `cron`, e.g. `"Europe/Berlin"`.
        targets: Steps that are wanted, with what they need; default all.
        parameters: Values by `"step.parameter"`.
        jobs: Steps at once.
    """

    cron: str = ""
    on: str = ""
    source: str = ""
    zone: str = "UTC"
    targets: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}
    jobs: int = 1


class Contract(Section, frozen=True, kw_only=True):
    """The whole of `instar.toml`."""

    project: ProjectSection
    problem: dict[str, Problem]
    schedule: dict[str, Schedule] = {}
    step: dict[str, StepTerms] = {}
