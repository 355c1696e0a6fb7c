"""Terms of a step's attempts, declared when it is planned: how often it is tried again, how long it waits, how long it may take.

They say nothing about what the output is, so they are no part of a step's key. The decorator gives them, a section
`[step.NAME]` of `instar.toml` has the last word, and whoever runs the pipeline may ask for others that once.

>>> terms_of(retries=2, retry_after="10s", timeout=None, subject="step trees")
Terms(retries=2, retry_after=datetime.timedelta(seconds=10), timeout=None)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from instar.core.errors import BadInput, PipelineError, StepFailed, StoreBusy, Unavailable

NAMES = ("retries", "retry_after", "timeout")  # of the decorators' arguments that are terms
MOST_RETRIES = 100
LONGEST_WAIT = timedelta(hours=1)  # between two attempts, however often the wait was doubled
TRANSIENT = (StepFailed, StoreBusy, Unavailable)  # what a later attempt may find otherwise

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True)
class Terms:
    """How a step is attempted.

    Attributes:
        retries: Attempts after the first one failed.
        retry_after: Wait before the second attempt; it doubles before each further one, up to an hour.
        timeout: Longest time of one attempt, which is then ended; None: as long as it takes.
    """

    retries: int = 0
    retry_after: timedelta = timedelta(seconds=10)
    timeout: timedelta | None = None

    def wait_seconds(self, attempt: int) -> float:
        """Wait after attempt number `attempt` (from 1) failed."""
        doubled: float = self.retry_after.total_seconds() * 2.0 ** min(attempt - 1, 100)
        return min(doubled, LONGEST_WAIT.total_seconds())

    def again(self, attempt: int, error: BaseException) -> bool:
        """Is another attempt worth it? What is wrong with the input or against the rules stays so."""
        return attempt <= self.retries and isinstance(error, TRANSIENT)


def terms_of(retries: object, retry_after: object, timeout: object, *, subject: str) -> Terms:
    """Terms as a decorator was given them: a number, and durations such as `"10s"` or `"5m"`.

    Raises:
        PipelineError: One of them cannot be used.
    """
    if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= MOST_RETRIES:
        raise PipelineError(
            "retries cannot be that", subject=subject, found=repr(retries), asked=f"0 to {MOST_RETRIES}"
        )
    wait = _duration("retry_after", retry_after, subject)
    limit = None if timeout is None else _duration("timeout", timeout, subject)
    if limit is not None and limit <= timedelta(0):
        raise PipelineError("its timeout leaves it no time", subject=subject, found=repr(timeout), asked='e.g. "5m"')
    return Terms(retries, wait, limit)


def asked_terms(given: Mapping[str, Iterable[str]]) -> dict[str | None, dict[str, Any]]:
    """Terms asked for one run, by step; by None those that are for all steps.

    Args:
        given: For each of `NAMES` texts `"VALUE"` or `"STEP=VALUE"`. Times are durations or seconds; a timeout of `"none"`
            takes a declared one away.

    Raises:
        BadInput: One cannot be read.

    >>> asked_terms({"retries": ["1", "trees=3"]})
    {None: {'retries': 1}, 'trees': {'retries': 3}}
    """
    found: dict[str | None, dict[str, Any]] = {}
    for name, texts in given.items():
        for text in texts:
            step, _, value = (part.strip() for part in text.rpartition("="))
            found.setdefault(step or None, {})[name] = _asked(name, value, f"--{name.replace('_', '-')} {text}")
    return found


def _asked(name: str, text: str, subject: str) -> object:
    value: object = text
    if name == "retries":
        value = int(text) if text.isdecimal() else text
    elif name == "timeout" and text == "none":
        value = None
    elif text.replace(".", "", 1).isdecimal():
        value = f"{text}s"
    try:
        return getattr(
            terms_of(**{"retries": 0, "retry_after": "0s", "timeout": None, name: value}, subject=subject), name
        )
    except PipelineError as error:
        asked = {"timeout": f'{error.asked}, seconds, or "none"', "retry_after": f"{error.asked}, or seconds"}
        raise BadInput(error.what, subject=subject, found=repr(text), asked=asked.get(name, error.asked)) from None


def duration(text: str) -> timedelta | None:
    """The time that a text such as `"14d"`, `"6h"` or `"10s"` means; None when it means none.

    Raises:
        OverflowError: It is longer than a million days.
    """
    match = _DURATION.match(text)
    return timedelta(**{_UNITS[match[2]]: float(match[1])}) if match else None


def _duration(name: str, value: object, subject: str) -> timedelta:
    try:
        found = value if isinstance(value, timedelta) else duration(value) if isinstance(value, str) else None
    except OverflowError:
        found = None
    if found is None or found < timedelta(0):
        raise PipelineError(
            f"{name} cannot be read", subject=subject, found=repr(value), asked='a duration such as "10s", "5m" or "2h"'
        )
    return found


def spoken(seconds: float) -> str:
    """A length of time for people, in one or two units: `"40 s"`, `"3 min 20 s"`, `"2 h 5 min"`."""
    whole = round(seconds)
    if whole < 1:
        return f"{seconds:.2f} s"
    for unit, size, below, small in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"
