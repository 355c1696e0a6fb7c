"""A call in a worker's hands, and what both kinds of work with it share, at the moment of a call."""

from __future__ import annotations

from typing import Any

from instar.serve.protocol import wire


class Job:
    """A call in the batch.

    Attributes:
        job: Its number.
        bound: The request as it was bound, in `decode_us`.
        form, answer, pack: The form that it came in, that of its answer, and how this may be packed.
        deadline: Monotonic clock, nanoseconds, after which its caller wants no answer; 0 for none.
    """

    __slots__ = ("answer", "bound", "deadline", "decode_us", "form", "job", "pack")

    def __init__(self, job: int, bound: Any, decode_us: int, ask: wire.Ask, deadline: int = 0) -> None:
        self.job = job
        self.bound = bound
        self.decode_us = decode_us
        self.form = ask.form
        self.answer = ask.answer
        self.pack = ask.pack
        self.deadline = deadline


def describe(problem: BaseException) -> str:
    """An exception in one line, for a record: kind and text."""
    text = " ".join(str(problem).split())
    return f"{type(problem).__name__}: {text}"[:500]
