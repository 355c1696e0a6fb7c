"""The contract: what `instar.toml` says is wanted, read and proven before anything is planned by it.

Frozen types for every section; the stages hold the behaviour. Unknown keys are errors with the nearest known name.

    project = load_project(find_root(Path.cwd()))
    project.contract.problem["delay"].cost.false_negative    # 3.0
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from instar.core import ids
from instar.core.errors import ContractError, NotFound
from instar.plan.cost import Cost

if TYPE_CHECKING:
    from instar.core.store import Store

CONTRACT_FILE = "instar.toml"
SCHEDULES = ("hourly", "daily", "weekly", "monthly")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,99}\Z")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A section of `instar.toml`."""


class ProjectSection(Section, frozen=True, kw_only=True):
    """Who wants what.

    Attributes:
        name: Name of the project in the store.
        objective: The business goal, one sentence.
        owner: Who answers for it.
        pipeline: File with the steps, or a pattern such as `"steps/*.py"`.
    """

    name: str
    objective: str
    owner: str
    pipeline: str = "pipeline.py"


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
        patience: Longest time from shadow to champion; undecided for longer is rejected.
        cool_down: How long a rolled back candidate stays barred.
        rollback: When to go back.
    """

    shadow: int = 2000
    steps: tuple[float, ...] = (2, 5, 10, 25, 75, 100)
    bake: timedelta = timedelta(hours=6)
    patience: timedelta = timedelta(days=14)
    cool_down: timedelta = timedelta(days=7)
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
        drift: Population stability index (nats) of a feature from which on it counts as drifting.
        drift_share: Share of drifting features from which on an alert is raised.
        cost: Rise of the live cost over its reference, as a share, from which on an alert is raised.
        min_rows: Fewest rows of a window that is judged.
        consecutive: Windows in a row that must be over the limit.
    """

    window: timedelta = timedelta(days=1)
    drift: float = 0.2
    drift_share: float = 0.2
    cost: float = 0.15
    min_rows: int = 200
    consecutive: int = 1


class Problem(Section, frozen=True, kw_only=True):
    """One machine-learning problem of the objective.

    Attributes:
        task: What is predicted: `"binary"`, a yes or no.
        target: Column of the gold table with the truth.
        metric: Decides; the others are reported.
        cost: Of each mistake.
        oversight: What a person does: `"none"`, `"advice"` (people decide, advised), `"approval"` (a person confirms each).
        features: `"all"` (all but key, event time, created time and target) or the columns' names.
        split, outcome, gates, rollout, retrain, monitor: The sections of the same names.
        privacy: Privacy class of columns that are not internal.
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
    privacy: dict[str, Literal["public", "internal", "personal"]] = {}


class Contract(Section, frozen=True, kw_only=True):
    """The whole of `instar.toml`."""

    project: ProjectSection
    problem: dict[str, Problem]


@dataclass(frozen=True)
class Project:
    """A folder with a contract.

    Attributes:
        root: The folder.
        contract: What the contract says.
        revision: Digest of that; comments and layout of the file do not count.
        text: The file as written.
    """

    root: Path
    contract: Contract
    revision: str
    text: str

    @property
    def name(self) -> str:
        return self.contract.project.name


def find_root(start: Path) -> Path:
    """The folder of the project that `start` lies in.

    Raises:
        NotFound: Neither `start` nor a folder above has an `instar.toml`.
    """
    for folder in [start.absolute(), *start.absolute().parents]:
        if (folder / CONTRACT_FILE).is_file():
            return folder
    raise NotFound(
        f"neither it nor a folder above has an {CONTRACT_FILE}",
        subject=f"folder {start}",
        next_step="Go to a project's folder, name one with --project, or make one with: instar init",
    )


def load_project(root: Path) -> Project:
    """Read and prove the contract of the project in `root`.

    Raises:
        NotFound: There is no `instar.toml`.
        ContractError: It is no TOML, or a key is unknown, missing, of a wrong type or out of range.
    """
    file = root / CONTRACT_FILE
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"the folder has no {CONTRACT_FILE}", subject=f"project {root}", next_step="Make one with: instar init"
        ) from None
    except UnicodeDecodeError as error:
        raise ContractError("the file is not UTF-8 text", subject=CONTRACT_FILE, found=str(error)) from error
    contract = parse_contract(text)
    return Project(root.absolute(), contract, revision_of(contract), text)


def revision_of(contract: Contract) -> str:
    """Digest of the contract's values, defaults written out."""
    return ids.digest_of(msgspec.to_builtins(contract))


def parse_contract(text: str) -> Contract:
    """The contract in the text of an `instar.toml`.

    Raises:
        ContractError: See `load_project`.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ContractError(
            f"the file cannot be read as TOML: {error}", subject=CONTRACT_FILE, next_step="Correct that line."
        ) from error
    contract: Contract = _read(Contract, tree, "")
    if not contract.problem:
        raise ContractError(
            "the contract names no problem",
            subject=CONTRACT_FILE,
            asked="a section [problem.NAME]",
            next_step="Add the section with task, target, metric and the cost of each mistake.",
        )
    _prove(contract)
    return contract


def record_contract(store: Store, project: Project) -> str:
    """Put the contract into effect: journal objective, problems and costs, if they changed; returns the revision."""
    from instar.plan import revisions  # loads the database's library, which reading a contract does not need

    return revisions.record(store, project)


def _read(wanted: Any, value: Any, path: str) -> Any:
    """`value` as an instance of the type `wanted`; errors name the TOML path."""
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return _read_section(wanted, value, path)
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is dict:
        _expect(isinstance(value, dict), path, value, "a section")
        return {name: _read(arguments[1], inner, f"{path}.{name}") for name, inner in value.items()}
    if origin is tuple:
        _expect(isinstance(value, list), path, value, f"a list of {_spoken(arguments[0])}")
        return tuple(_read(arguments[0], inner, f"{path}[{index}]") for index, inner in enumerate(value))
    if origin is Literal:
        _expect(
            value in arguments, path, value, " or ".join(f'"{one}"' for one in arguments), _nearest(value, arguments)
        )
        return value
    if origin in (types.UnionType, typing.Union):  # the one union: "all" or a list of columns
        chosen = next(one for one in arguments if isinstance(value, list) == (typing.get_origin(one) is tuple))
        _expect(isinstance(value, list | str), path, value, '"all" or a list of text')
        return _read(chosen, value, path)
    if wanted is timedelta:
        return _read_duration(value, path)
    if wanted is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        _expect(number and math.isfinite(value), path, value, _spoken(float))
        return float(value)
    _expect(isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool), path, value, _spoken(wanted))
    return value


def _read_section(wanted: type[msgspec.Struct], value: Any, path: str) -> Any:
    _expect(isinstance(value, dict), path, value, "a section")
    fields = {item.name: item for item in msgspec.structs.fields(wanted)}
    for name in value:
        if name not in fields:
            raise ContractError(
                f"the key {_join(path, name)!r} is unknown",
                subject=CONTRACT_FILE,
                found=repr(name),
                asked=", ".join(fields),
                next_step=_nearest(name, fields) or f"Remove it, or see what [{path}] may hold.",
            )
    for name, item in fields.items():
        if item.required and name not in value:
            inner = item.type
            whole = isinstance(inner, type) and issubclass(inner, msgspec.Struct)
            section = whole or typing.get_origin(inner) is dict
            what = "section" if section else "key"
            example = ".NAME" if typing.get_origin(inner) is dict else ""
            raise ContractError(
                f"the {what} {_join(path, name)!r} is missing",
                subject=CONTRACT_FILE,
                asked=f"a section [{_join(path, name)}{example}]" if section else _spoken(inner),
                next_step=f"Add it{'' if section or not path else f' to the section [{path}]'}.",
            )
    read = {name: _read(fields[name].type, inner, _join(path, name)) for name, inner in value.items()}
    return wanted(**read)


def _read_duration(value: Any, path: str) -> timedelta:
    match = _DURATION.match(value) if isinstance(value, str) else None
    _expect(match is not None, path, value, 'a duration such as "14d", "6h" or "30m"')
    assert match is not None
    try:
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError:
        raise _wrong(path, value, "a duration of less than a million days") from None


def _prove(contract: Contract) -> None:
    """Ranges, and what two keys say together."""
    _expect(_NAME.match(contract.project.name) is not None, "project.name", contract.project.name, _A_NAME)
    for name, problem in contract.problem.items():
        path = f"problem.{name}"
        _expect(_NAME.match(name) is not None, path, name, _A_NAME)
        cost = problem.cost
        for key in ("false_negative", "false_positive"):
            _expect(0 <= getattr(cost, key) < float("inf"), f"{path}.cost.{key}", getattr(cost, key), "0 or more")
        total = cost.false_negative + cost.false_positive
        _expect(total > 0, f"{path}.cost", "no cost at all", "at least one mistake that costs something")
        for key in ("decide", "judge"):
            _expect(getattr(problem.split, key) > timedelta(0), f"{path}.split.{key}", "0", "more than 0")
        _expect(problem.split.min_rows >= 1, f"{path}.split.min_rows", problem.split.min_rows, "1 or more")
        _expect(problem.monitor.window > timedelta(0), f"{path}.monitor.window", "0", "more than 0")
        _expect(
            problem.monitor.consecutive >= 1, f"{path}.monitor.consecutive", problem.monitor.consecutive, "1 or more"
        )
        steps = problem.rollout.steps
        growing = all(low < high for low, high in zip((0.0, *steps), steps, strict=False))
        _expect(bool(steps) and growing and steps[-1] == 100, f"{path}.rollout.steps", list(steps), _GROWING)
        _expect(problem.rollout.shadow >= 0, f"{path}.rollout.shadow", problem.rollout.shadow, "0 or more")
        for index, reason in enumerate(problem.retrain.when):
            reasons = ["drift", "cost", *(f"schedule:{one}" for one in SCHEDULES)]
            _expect(
                reason in reasons,
                f"{path}.retrain.when[{index}]",
                reason,
                ", ".join(reasons),
                _nearest(reason, reasons),
            )


_A_NAME = "a small letter, then small letters, digits, _ or -"
_GROWING = "shares in per cent that grow and end with 100"


def _expect(holds: bool, path: str, found: Any, asked: str, next_step: str = "") -> None:
    if not holds:
        raise _wrong(path, found, asked, next_step)


def _wrong(path: str, found: Any, asked: str, next_step: str = "") -> ContractError:
    kind = _TOML_NAMES.get(type(found), type(found).__name__)
    return ContractError(
        f"the value of {path!r} cannot be used" if path else "the file cannot be used",
        subject=CONTRACT_FILE,
        found=f"{found!r} ({kind})",
        asked=asked,
        next_step=next_step or "Correct the value; nothing was changed.",
    )


_TOML_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", list: "list", dict: "section"}


def _spoken(wanted: Any) -> str:
    if typing.get_origin(wanted) is Literal:
        return " or ".join(f'"{one}"' for one in typing.get_args(wanted))
    if wanted is timedelta:
        return 'a duration such as "14d"'
    return {str: "text", float: "a number", int: "a whole number", bool: "true or false"}.get(wanted, "a value")


def _nearest(word: object, known: typing.Iterable[str] | Mapping[str, object]) -> str:
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"Did you mean {close[0]!r}?" if close else ""


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
