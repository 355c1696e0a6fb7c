"""A call in a worker's hands, and what both kinds of work with it share, at the moment of a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Mask = Callable[[str, Sequence[Any]], list[Any]]


def mask_nothing_through(column: str, values: Sequence[Any]) -> list[Any]:
    """The mask where no key is given: personal values are not kept at all."""
    return [None] * len(values)


class Job:
    """A call in the batch: its number, the request as it was bound, how long that took, and the form that it came in."""

    __slots__ = ("bound", "decode_us", "form", "job")

    def __init__(self, job: int, bound: Any, decode_us: int, form: int = 0) -> None:
        self.job = job
        self.bound = bound
        self.decode_us = decode_us
        self.form = form


def describe(problem: BaseException) -> str:
    """An exception in one line, for a record: kind and text."""
    text = " ".join(str(problem).split())
    return f"{type(problem).__name__}: {text}"[:500]
