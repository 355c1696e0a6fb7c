"""The search space of a model step, put together when a study of it begins: which values of which parameters to try.

A parameter's space is, the first that there is: what the caller says (`rate=0.01..0.3:log`), what the decorator's `search`
declares, what the parameter's annotation says (`Annotated[float, between(0.01, 0.3)]`, `Literal["gini", "entropy"]`,
`bool`), and for numbers a range round the default. Others are not searched, and keep their default.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from instar.core.errors import BadInput, PipelineError
from instar.plan.ranges import Range, between
from instar.plan.steps import Step, did_you_mean

# Values to choose from, in the order written.
Choices = tuple[Any, ...]
Space = dict[str, Range | Choices]

WIDTH = 10.0  # the range round a default reaches from a tenth to ten times of it
WHOLE_WIDTH = 4  # and for whole numbers from a quarter to four times


def space_of(step: Step, given: Iterable[str] = ()) -> Space:
    """The space to search for `step`.

    Args:
        given: As people write it: `"rate=0.01..0.3:log"`, `"depth=2..12"`, `"leaf=5..100:5"`, `"loss=log,exp"`. Where
            any is given, only the given parameters are searched.

    Raises:
        BadInput: A text cannot be read, names no parameter, or no parameter is left to search.
    """
    written = dict(_read(step, text) for text in given)
    if written:
        return written
    annotations = _annotations(step)
    found: Space = {}
    for name, default in step.parameters.items():
        space = _declared(step, name) or _annotated(annotations.get(name)) or _round(default)
        if space is not None and name != "seed":
            found[name] = space
    if not found:
        raise BadInput(
            "none of its parameters can be searched", subject=f"step {step.name}",
            found=", ".join(step.parameters) or "no parameter with a default",
            asked="a number, a truth value, Literal[…], or a declared range",
            next_step=f"Declare a range: @model(…, search={{…}}), or say it: instar tune {step.name} --space NAME=LOW..HIGH",
        )  # fmt: skip
    return found


def holds(space: Mapping[str, Range | Choices], parameters: Mapping[str, Any]) -> bool:
    """Does the space hold a point with these parameters?"""
    return all(
        name in parameters
        and (where.holds(parameters[name]) if isinstance(where, Range) else parameters[name] in where)
        for name, where in space.items()
    )


def document(space: Mapping[str, Range | Choices]) -> dict[str, Any]:
    """The space as JSON."""
    return {
        name: {"low": where.low, "high": where.high, "log": where.log, "step": where.step}
        if isinstance(where, Range)
        else list(where)
        for name, where in space.items()
    }


def from_document(kept: Mapping[str, Any]) -> Space:
    """The space that `document` made."""
    return {name: Range(**where) if isinstance(where, dict) else tuple(where) for name, where in kept.items()}


def _read(step: Step, text: str) -> tuple[str, Range | Choices]:
    name, equals, values = (part.strip() for part in text.partition("="))
    if name not in step.parameters:
        raise BadInput(
            "it has no such parameter", subject=f"step {step.name}", found=name,
            asked=", ".join(step.parameters) or "a parameter with a default",
            next_step=did_you_mean(name, step.parameters),
        )  # fmt: skip
    try:
        if not equals or not values:
            raise ValueError("nothing to try")
        if ".." in values:
            return name, _range(values, step.parameters[name])
        return name, _choices([_value(one.strip(), step.parameters[name]) for one in values.split(",")])
    except (ValueError, PipelineError) as error:
        why = error.what if isinstance(error, PipelineError) else error
        raise BadInput(
            f"that is no space: {why}", subject=f"parameter {step.name}.{name}", found=text,
            asked="NAME=LOW..HIGH, NAME=LOW..HIGH:log, NAME=LOW..HIGH:STEP or NAME=VALUE,VALUE",
        ) from error  # fmt: skip


def _range(text: str, default: object) -> Range:
    """A range of the parameter's kind, which its default shows."""
    if isinstance(default, str | bool):
        raise ValueError(f"the parameter is no number, as its default {default!r} is none")
    low, _, rest = text.partition("..")
    high, _, word = rest.partition(":")
    number = _whole if isinstance(default, int) else _number
    return between(number(low), number(high), log=word == "log", step=None if word in ("", "log") else number(word))


def _choices(values: Iterable[Any]) -> Choices:
    """The values, each once."""
    return tuple({(type(one), repr(one)): one for one in values}.values())


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _whole(text: str) -> int:
    number = _number(text)
    if number != int(number):
        raise ValueError(f"the parameter is a whole number, and {text} is none")
    return int(number)


def _value(text: str, default: object) -> Any:
    if isinstance(default, str):
        return text
    try:
        value = msgspec.json.decode(text.lower() if isinstance(default, bool) else text)
    except msgspec.DecodeError:
        value = text
    wanted = {bool: (bool,), int: (int,), float: (int, float)}.get(type(default))
    if wanted is not None and type(value) not in wanted:
        raise ValueError(f"{text} is no such value as its default {default}")
    return value


def _annotations(step: Step) -> dict[str, Any]:
    try:
        return typing.get_type_hints(step.function, include_extras=True) if step.function else {}
    except (NameError, TypeError):  # a name known to type checkers alone
        return inspect.get_annotations(step.function) if step.function else {}


def _declared(step: Step, name: str) -> Range | Choices | None:
    ranges, search = step.options.get("ranges") or {}, step.options.get("search") or {}
    found = ranges.get(name) or search.get(name)
    return found if isinstance(found, Range) else _choices(found) if found else None


def _annotated(annotation: Any) -> Range | Choices | None:
    if annotation is bool:
        return (False, True)
    if typing.get_origin(annotation) is Literal:
        return typing.get_args(annotation)
    return next((one for one in getattr(annotation, "__metadata__", ()) if isinstance(one, Range)), None)


def _round(default: object) -> Range | Choices | None:
    """A range round a default; a share below one stays a share."""
    if isinstance(default, bool):
        return (False, True)
    if isinstance(default, int) and default > 0:
        least, most = max(1, default // WHOLE_WIDTH), max(2, default * WHOLE_WIDTH)
        return Range(least, most, log=most >= 10 * least)
    if isinstance(default, float) and default > 0 and math.isfinite(default):
        high = default * WIDTH
        return Range(default / WIDTH, min(1.0, high) if default < 1 else high, log=True)
    return None
