"""A call in a worker's hands, and what both kinds of work with it share, at the moment of a call."""

from __future__ import annotations

from typing import Any


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
