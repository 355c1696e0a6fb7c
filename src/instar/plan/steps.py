"""Steps as a project's Python files declare them at planning time, each with one decorator.

A step's name is the name of its output, its parameters name its inputs, and their annotations say in which form it wants
them. A decorated function stays an ordinary function: the decorator only leaves a note on it.

    flights = source("flights", by="month")

    @silver(key=["flight"])
    def clean_flights(flights: pl.LazyFrame) -> pl.LazyFrame: ...
"""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypedDict, TypeVar, Unpack, cast

from instar.core.errors import PipelineError
from instar.plan.ranges import Range
from instar.plan.terms import Terms, terms_of

F = TypeVar("F", bound=Callable[..., Any])

TABLE_KINDS = ("source", "silver", "gold")  # steps whose output is a table
MODEL_KINDS = ("model", "baseline")  # steps whose output is a bundle
SEVERITIES = ("error", "warn")
DEFAULT_FORM = "polars.DataFrame"  # of an input whose parameter has no annotation
_NOTE = "__instar_note__"


@dataclass(frozen=True)
class Input:
    """A table that a step reads.

    Attributes:
        name: The table, which is the step that makes it.
        form: `"polars.LazyFrame"`, `"polars.DataFrame"`, `"pandas.DataFrame"`, `"pyarrow.Table"`, …
    """

    name: str
    form: str = DEFAULT_FORM


@dataclass(frozen=True)
class Step:
    """One step, as declared.

    Attributes:
        name: Name of the step and of its output.
        kind: `"source"`, `"silver"`, `"gold"`, `"model"`, `"baseline"` or `"notebook"`.
        function: The user's function; None for a source and a notebook.
        inputs: Tables it reads, in the order of the function's parameters.
        parameters: Parameters with a default, and the default.
        options: What the decorator was given. source: `by`, `columns`, `key`, `landed`, `path`; silver: `key`; gold:
            `entity`, `event_time`, `created_time`, `key`; silver and gold: `by`; model: `problem`, `search`, `ranges`,
            `seed`; baseline: `problem`; all but source also `files` and `variables`, declared inputs that are no tables, and
            `ignore`.
        file: The file that declares it.
        terms: How it is attempted: retries and timeout.
    """

    name: str
    kind: str
    function: Callable[..., Any] | None = None
    inputs: tuple[Input, ...] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""
    terms: Terms = field(default_factory=Terms)

    @property
    def makes_table(self) -> bool:
        return self.kind in TABLE_KINDS

    @property
    def by(self) -> str | None:
        """What a partition of its output is, e.g. `"month"`, for a step that runs once for each."""
        return self.options.get("by") if self.kind in ("silver", "gold") else None

    @property
    def problem(self) -> str | None:
        """The problem that a model or baseline is for."""
        return self.options.get("problem")


@dataclass(frozen=True)
class CheckStep:
    """Expectations on one table.

    Attributes:
        table: The table that is checked.
        name: The function's name.
        severity: `"error"` stops the pipeline, `"warn"` raises an alert.
        function: Called without arguments; returns a boolean Polars expression for each expectation's name.
        file: The file that declares it.
    """

    table: str
    name: str
    severity: str
    function: Callable[[], Mapping[str, Any]]
    file: str = ""


class Common(TypedDict, total=False):
    """What a step of any kind but a source may declare besides.

    Attributes:
        files: Files of the project which it reads, as patterns; a change of one runs the step again.
        variables: Environment variables which it reads.
        ignore: Globals which it uses and which cannot change its result, such as a lock; and calls that its key cannot
            follow and need not, such as `"time.time"`.
        retries: How often it is tried again when it fails.
        retry_after: Wait before the second attempt, doubled before each further one, e.g. `"10s"`, which is the default.
        timeout: Longest time of one attempt, which is then ended, e.g. `"5m"`.
    """

    files: Sequence[str]
    variables: Sequence[str]
    ignore: Sequence[str]
    retries: int
    retry_after: str | timedelta
    timeout: str | timedelta | None


def source(
    name: str,
    *,
    by: str | None = None,
    columns: Mapping[str, Any] | None = None,
    key: str | Sequence[str] | None = None,
    landed: str = "_landed_at",
    path: str | None = None,
) -> Step:
    """Declare a bronze table: whatever arrives, as it came.

    Args:
        name: Name of the table.
        by: What a partition is, e.g. `"month"`; a partition that arrives again replaces its former self.
        columns: Promised columns and their types; a delivery without them is refused.
        key: Columns which name a row.
        landed: Column that says when a row became known.
        path: Files of the project to land when the pipeline runs, as a pattern, e.g. `"data/visits*.csv"`.
    """
    file = sys._getframe(1).f_code.co_filename
    promised = dict(columns) if columns else None
    options = {"by": by, "columns": promised, "key": names_of(key), "landed": landed, "path": path}
    return Step(name, "source", options=options, file=file)


def silver(
    *,
    key: str | Sequence[str] | None = None,
    by: str | None = None,
    **common: Unpack[Common],
) -> Callable[[F], F]:
    """Declare a step that makes a clean table.

    Args:
        key: Columns which name a row; rows are then compared and traced by them.
        by: What a partition is, as the input's source says, e.g. `"month"`: the function is called once for each partition
            of its inputs declared `by` the same, and again only for those that are new or changed; other inputs are whole.
        common: `files`, `variables`, `ignore`, `retries`, `retry_after` and `timeout`: see `Common`.
    """
    return _step("silver", {"key": names_of(key), "by": by}, common)


def gold(
    *,
    entity: str | Sequence[str] | None = None,
    event_time: str | None = None,
    created_time: str | None = None,
    key: str | Sequence[str] | None = None,
    by: str | None = None,
    **common: Unpack[Common],
) -> Callable[[F], F]:
    """Declare a step that makes a table of features.

    Args:
        entity: Columns which name what is predicted.
        event_time: Column of the time at which the prediction is asked for.
        created_time: Column of the time at which the row's features became known.
        key: Columns which name a row; default the entity.
        by: As of `silver`.
        common: See `Common`.
    """
    entity = names_of(entity)
    options = {"entity": entity, "event_time": event_time, "created_time": created_time, "key": names_of(key) or entity}
    return _step("gold", {**options, "by": by}, common)


def model(
    problem: str,
    *,
    search: Mapping[str, Sequence[object] | Range] | None = None,
    seed: int = 0,
    **common: Unpack[Common],
) -> Callable[[F], F]:
    """Declare a recipe: a function from rows to a fitted estimator.

    Args:
        problem: The problem of `instar.toml` that it solves.
        search: Values to try for its parameters; every combination is a trial of a pipeline run. A range, as in
            `{"rate": between(0.01, 0.3)}`, is searched by `instar tune` alone.
        seed: Seed of everything random.
        common: See `Common`.
    """
    declared = search or {}
    grid = {name: tuple(values) for name, values in declared.items() if not isinstance(values, Range)}
    ranges = {name: values for name, values in declared.items() if isinstance(values, Range)}
    return _step("model", {"problem": problem, "search": grid, "ranges": ranges, "seed": seed}, common)


def baseline(
    problem: str,
    **common: Unpack[Common],
) -> Callable[[F], F]:
    """Declare a rule: a function which returns any object with `predict(frame)`; served like any model.

    Args:
        problem: The problem of `instar.toml` that it answers.
        common: See `Common`.
    """
    return _step("baseline", {"problem": problem}, common)


def check(table: str, *, severity: str = "error") -> Callable[[F], F]:
    """Declare expectations on a table: the function returns a boolean Polars expression for each name.

    Args:
        table: The table to check, whenever a version of it is written.
        severity: `"error"` stops the pipeline, `"warn"` raises an alert.
    """

    def declare(function: F) -> F:
        if severity not in SEVERITIES:
            raise PipelineError(
                "a check has no such severity",
                subject=f"check {function.__name__}",
                found=repr(severity),
                asked='"error" or "warn"',
                next_step=did_you_mean(severity, SEVERITIES),
            )
        _leave_note(function, CheckStep(table, function.__name__, severity, function, function.__code__.co_filename))
        return function

    return declare


def did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean {close[0]!r}?" if close else ""


def _leave_note(function: Callable[..., Any], note: Step | CheckStep) -> None:
    setattr(function, _NOTE, note)


def note_of(value: object) -> Step | CheckStep | None:
    """What a decorator left on a function."""
    return cast("Step | CheckStep | None", vars(value).get(_NOTE)) if inspect.isfunction(value) else None


def names_of(names: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """One name or several, as a tuple."""
    if names is None:
        return None
    return (names,) if isinstance(names, str) else tuple(names)


def declared(common: Common, subject: str) -> tuple[dict[str, Any], Terms]:
    """The options and the terms among what a step of any kind may declare.

    Raises:
        PipelineError: One of them cannot be used.
    """
    for name in common:
        if name not in Common.__annotations__:
            raise PipelineError(
                f"its declaration has no argument {name!r}",
                subject=subject,
                asked=", ".join(Common.__annotations__),
                next_step=did_you_mean(name, Common.__annotations__),
            )
    options = {
        "files": names_of(common.get("files")) or (),
        "variables": names_of(common.get("variables")) or (),
        "ignore": names_of(common.get("ignore")) or (),
    }
    terms = terms_of(common.get("retries", 0), common.get("retry_after", "10s"), common.get("timeout"), subject=subject)
    return options, terms


def _step(kind: str, options: dict[str, Any], common: Common) -> Callable[[F], F]:
    def declare(function: F) -> F:
        inputs, parameters = _read_signature(function, kind)
        told, terms = declared(common, f"step {function.__name__}")
        file = function.__code__.co_filename
        step = Step(function.__name__, kind, function, inputs, parameters, {**options, **told}, file, terms)
        _leave_note(function, step)
        return function

    return declare


def _read_signature(function: Callable[..., Any], kind: str) -> tuple[tuple[Input, ...], dict[str, object]]:
    name = function.__name__
    if not inspect.isfunction(function) or inspect.iscoroutinefunction(function) or name == "<lambda>":
        raise PipelineError(
            "a step is a named function", subject=f"step {name}", found=repr(function), next_step="Write it with def."
        )
    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception:  # a name known to type checkers alone: the text of the annotation has to do
        signature = inspect.signature(function)
    inputs, parameters = [], {}
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise PipelineError(
                f"parameter {parameter} cannot name a table",
                subject=f"step {name}",
                next_step="Give each input its own named parameter.",
            )
        if parameter.default is parameter.empty:
            inputs.append(Input(parameter.name, form_of(parameter.annotation, signature.empty)))
        else:
            parameters[parameter.name] = parameter.default
    if not inputs and kind != "silver":  # a silver table may be made from nothing, e.g. a calendar
        raise PipelineError(
            "it reads no table",
            subject=f"step {name}",
            found="no parameter without a default",
            asked="at least one parameter that names a table",
        )
    return tuple(inputs), parameters


def form_of(annotation: object, empty: object = inspect.Parameter.empty) -> str:
    """`polars.LazyFrame` for the class itself, wherever in its package it is defined, and for its written name."""
    if annotation is empty:
        return DEFAULT_FORM
    if isinstance(annotation, str):
        written = annotation.strip("'\"").replace(" ", "")
        head, _, rest = written.partition(".")
        return f"{_USUAL_NAMES.get(head, head)}.{rest}" if rest else written
    if isinstance(annotation, type):
        return f"{annotation.__module__.split('.')[0]}.{annotation.__qualname__}"
    return str(annotation)


_USUAL_NAMES = {"pl": "polars", "pd": "pandas", "pa": "pyarrow", "np": "numpy"}
