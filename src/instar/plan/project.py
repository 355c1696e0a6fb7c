"""The contract: what `instar.toml` says is wanted, read and proven before anything is planned by it.

Unknown keys, wrong types and missing sections are errors with the path in the file and the nearest known name.

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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec

from instar.core import ids
from instar.core.errors import ContractError, NotFound
from instar.core.settings import SIZES, size_bytes
from instar.plan import terms
from instar.plan.contract import (
    Contract,
    Gates,
    Guard,
    Monitor,
    OutcomeTerms,
    Problem,
    ProjectSection,
    RecordTerms,
    Retrain,
    Rollout,
    Schedule,
    Serving,
    Split,
    StepTerms,
)
from instar.plan.cost import Cost

__all__ = [
    "Contract",
    "Cost",
    "Gates",
    "Guard",
    "Monitor",
    "OutcomeTerms",
    "Problem",
    "Project",
    "ProjectSection",
    "Retrain",
    "Rollout",
    "Schedule",
    "Split",
    "StepTerms",
    "find_root",
    "load_project",
    "parse_contract",
    "revision_of",
]

CONTRACT_FILE = "instar.toml"
NEW_DATA = "new data"
SCHEDULES = ("hourly", "daily", "weekly", "monthly")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,99}\Z")


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


def find_root_if_any(start: Path, *, need: bool = False) -> Path | None:
    """The folder of the project that `start` lies in; None where there is none, unless one is needed."""
    try:
        return find_root(start)
    except NotFound:
        if need:
            raise
        return None


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
    """Digest of the contract's values, defaults written out; a kind of section that it has none of does not count."""
    plain = msgspec.to_builtins(contract)
    for problem in plain["problem"].values():
        for section in ("serving", "record"):
            if problem[section] is None:
                del problem[section]
        if not problem["inputs"]:
            del problem["inputs"]
        if "serving" in problem and problem["serving"]["timeout"] is None:
            del problem["serving"]["timeout"]  # contracts of before it was there keep their digests
    return ids.digest_of({name: section for name, section in plain.items() if section})


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
    if origin in (types.UnionType, typing.Union) and type(None) in arguments:  # a key that may be left out
        return _read(arguments[0], value, path)
    if origin in (types.UnionType, typing.Union):  # a text, or "all", or a list of texts
        chosen = next(one for one in arguments if isinstance(value, list) == (typing.get_origin(one) is tuple))
        _expect(isinstance(value, list | str), path, value, f"{_spoken(arguments[0])} or a list of text")
        return _read(chosen, value, path)
    if wanted is Any:
        return value
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


def _read_duration(value: Any, path: str) -> timedelta | None:
    try:
        found = terms.duration(value) if isinstance(value, str) else None
    except OverflowError:
        raise _wrong(path, value, "a duration of less than a million days") from None
    _expect(found is not None, path, value, 'a duration such as "14d", "6h" or "30m"')
    return found


def _prove(contract: Contract) -> None:
    """Ranges, and what two keys say together."""
    _expect(_NAME.match(contract.project.name) is not None, "project.name", contract.project.name, _A_NAME)
    for index, name in enumerate(contract.project.public_variables):
        _expect(_SECRET.search(name) is None, f"project.public_variables[{index}]", name, _NO_SECRET)
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
        if problem.serving is not None:
            _prove_serving(f"{path}.serving", problem.serving)
        if problem.record is not None:
            _prove_record(f"{path}.record", problem.record)
        for column, input_terms in problem.inputs.items():
            limits = input_terms.limits
            fault = "" if limits is None else limits.fault()
            _expect(not fault, f"{path}.inputs.{column}", fault, "min and max, or values")
        for index, reason in enumerate(problem.retrain.when):
            reasons = ["drift", "cost", *(f"schedule:{one}" for one in SCHEDULES)]
            _expect(
                reason in reasons,
                f"{path}.retrain.when[{index}]",
                reason,
                ", ".join(reasons),
                _nearest(reason, reasons),
            )
    for name, schedule in contract.schedule.items():
        _prove_schedule(f"schedule.{name}", name, schedule)
    for name, one in contract.step.items():
        path = f"step.{name}"
        fits = one.retries is None or 0 <= one.retries <= terms.MOST_RETRIES
        _expect(fits, f"{path}.retries", one.retries, f"0 to {terms.MOST_RETRIES}")
        _expect(one.timeout is None or one.timeout > timedelta(0), f"{path}.timeout", "0", "more than 0")


def _prove_record(path: str, record: RecordTerms) -> None:
    for key in ("keep", "inputs"):
        span = getattr(record, key)
        _expect(span is None or span > timedelta(0), f"{path}.{key}", "0", "more than 0")
    longer = record.keep is not None and record.inputs is not None and record.inputs > record.keep
    _expect(not longer, f"{path}.inputs", "longer than keep", "as long as keep, or shorter")


def _prove_serving(path: str, serving: Serving) -> None:
    _expect(serving.idle is None or serving.idle > timedelta(0), f"{path}.idle", "0", "more than 0")
    _expect(serving.timeout is None or serving.timeout > timedelta(0), f"{path}.timeout", "0", "more than 0")
    _expect(serving.most is None or serving.most >= 1, f"{path}.most", serving.most, "1 or more")
    if serving.memory is not None:
        try:
            size_bytes(serving.memory)
        except ValueError:
            raise _wrong(f"{path}.memory", serving.memory, f"a whole number with {', '.join(SIZES)}") from None


def _prove_schedule(path: str, name: str, schedule: Schedule) -> None:
    from zoneinfo import ZoneInfo

    from cronsim import CronSim, CronSimError

    _expect(_NAME.match(name) is not None, path, name, _A_NAME)
    both = 'either cron = "MINUTE HOUR DAY MONTH WEEKDAY" or on = "new data"'
    _expect(bool(schedule.cron) != bool(schedule.on), path, {"cron": schedule.cron, "on": schedule.on}, both)
    if schedule.on:
        _expect(schedule.on == NEW_DATA, f"{path}.on", schedule.on, f'"{NEW_DATA}"', _nearest(schedule.on, [NEW_DATA]))
    else:
        _expect(not schedule.source, f"{path}.source", schedule.source, f'only with on = "{NEW_DATA}"')
        try:
            next(CronSim(schedule.cron, datetime(2000, 1, 1, tzinfo=UTC)))
        except (CronSimError, StopIteration):
            raise _wrong(f"{path}.cron", schedule.cron, 'five fields, as in "0 3 * * *" for three at night') from None
    _expect(schedule.jobs >= 1, f"{path}.jobs", schedule.jobs, "1 or more")
    try:
        ZoneInfo(schedule.zone)
    except (KeyError, ValueError, OSError):
        raise _wrong(f"{path}.zone", schedule.zone, 'a time zone such as "Europe/Berlin"') from None


_SECRET = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|PRIVATE|(^|_)(KEY|PWD|AUTH)(_|$)", re.IGNORECASE)
_NO_SECRET = "a variable that is no secret, not even by its name: its value is kept with every run"
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
