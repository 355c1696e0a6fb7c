"""A call in a worker's hands, and what both kinds of work with it share, at the moment of a call."""

from __future__ import annotations

from typing import Any

from instar.core.errors import InstarError, RequestError
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


def describe(problem: BaseException, personal: bool = False) -> str:
    """An exception in one line, for a record: kind and text.

    Args:
        personal: What was sent tells of a person. Then a refusal of ours is told without what was found and where, which may be
            a name that its caller made up; of any other exception the kind alone: a library quotes what it could not read.
    """
    text = str(problem)
    if personal and isinstance(problem, RequestError):
        text = str(InstarError(problem.what, asked=problem.asked))
    elif personal:
        cause = problem.__cause__
        return type(problem).__name__ + ("" if cause is None else f": {type(cause).__name__}")
    return f"{type(problem).__name__}: {' '.join(text.split())}"[:500]
