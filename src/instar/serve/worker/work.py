"""A call in a worker's hands, and what both kinds of work with it share, at the moment of a call."""

from __future__ import annotations

from typing import Any

from instar.core.errors import InstarError, RequestError, Unavailable
from instar.serve.protocol import wire

MOST_DEATHS = 2  # of a model's process while calls of one batch are asked alone; then the rest of them hears so


class Ended(Unavailable):
    """The process that a model lives in, beside this one, ended while it was asked.

    Attributes:
        hung: It did not answer in its time, or not in its protocol, and was ended; else it died by itself.
    """

    hung = False

    @classmethod
    def of_hung(cls, what: str, *, subject: str = "", found: object = None, next_step: str = "") -> Ended:
        """It was ended since it did not answer as it must."""
        made = cls(what, subject=subject, found=found, next_step=next_step)
        made.hung = True
        return made


class Again:
    """Whether calls that were asked together, and failed, are asked once more, each alone, so that a bad one fails alone.

    What hung is not asked again: each of n calls would wait for its whole time. What dies is begun again, but not for ever.

    Attributes:
        over: Why the calls that are left are not asked any more; None while they are.
    """

    def __init__(self) -> None:
        self.over: Ended | None = None
        self._deaths = 0

    def heard(self, problem: Exception) -> None:
        """Asking failed."""
        if isinstance(problem, Ended):
            self._deaths += 1
            if problem.hung:
                self.over = problem
            elif self._deaths > MOST_DEATHS:
                self.over = Ended.of_hung(
                    "it ended again and again at calls of this batch, and was not asked this one any more",
                    subject=problem.subject, found=problem.found, next_step="Send the request again.",
                )  # fmt: skip


class Job:
    """A call in the batch.

    Attributes:
        job: Its number.
        bound: The request as it was bound, in `decode_us`.
        form, answer, pack: The form that it came in, that of its answer, and how this may be packed.
        problems: Why versions failed on it, by their number.
        deadline: Monotonic clock, nanoseconds, after which its caller wants no answer; 0 for none.
    """

    __slots__ = ("answer", "bound", "deadline", "decode_us", "form", "job", "pack", "problems")

    def __init__(self, job: int, bound: Any, decode_us: int, ask: wire.Ask, deadline: int = 0) -> None:
        self.job = job
        self.bound = bound
        self.decode_us = decode_us
        self.form = ask.form
        self.answer = ask.answer
        self.pack = ask.pack
        self.deadline = deadline
        self.problems: dict[int, Exception] | None = None

    def failed(self, version: int, problem: Exception, personal: bool = False) -> str:
        """A version failed on it; returns what the record says of that."""
        if self.problems is None:
            self.problems = {}
        self.problems[version] = problem
        return describe(problem, personal)


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
