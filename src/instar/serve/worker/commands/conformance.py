"""Does a program speak the Open Inference Protocol well enough to serve a model? Asked before it is brought, and by its tests.

Every check is one sentence: what was looked at, whether it held, what was found, and what to do where it did not.

    for check in conformance.check(Subject("127.0.0.1", 8080, "model")): print(check.name, check.state)
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from instar.core.errors import InstarError, StepFailed
from instar.serve.protocol.tensors import DTYPES
from instar.serve.worker.commands import answers
from instar.serve.worker.commands.line import Line, Said
from instar.train.bundle import Column, Tensor
from instar.train.stacking import TOLERANCE, example

SECONDS = 10.0  # for one answer
ROWS = 3
CALLERS, CALLS = 4, 5
LARGE_BYTES = 16 * 1024 * 1024  # of a body that comes in many pieces, as that of large tensors does
LARGE_SECONDS = 60.0
KEPT, FRESH = 16, 5  # calls on one connection, and calls with one each
# An acknowledgement is delayed 40 ms on Linux; a program that waits for it answers the first call of a connection at once.
DELAY_SECONDS = (0.030, 0.065)
DIFFERENCE_SECONDS = 0.025

PASSED, FAILED, WARNED, LEFT_OUT = "passed", "failed", "warned", "left out"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        state: `"passed"`, `"failed"`, `"warned"` where it only troubles other callers, `"left out"` where it could not be made.
    """

    name: str
    state: str
    found: str
    next_step: str = ""


@dataclass(frozen=True)
class Declared:
    """What a model takes and gives.

    Attributes:
        rows: The first dimension counts rows.
        apart: A row's answer depends on that row alone.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    rows: bool
    apart: bool = False

    @classmethod
    def of_columns(cls, columns: tuple[Column, ...]) -> Declared:
        """Of a model of columns."""
        inputs = tuple(Tensor(one.name, one.datatype, (-1,), nullable=one.nullable) for one in columns)
        return cls(inputs, (Tensor("score", "FP64", (-1,)),), True, True)


class Failed(Exception):
    """A check did not hold: what was found, and what to do."""


class Warned(Failed):
    """It did not hold, and a server of Instar's can do with it; others cannot."""


class Subject:
    """A program that is looked at.

    Args:
        model: Its name in paths.
        declared: What it should take and give; None: what it says itself.
    """

    def __init__(self, host: str, port: int, model: str, declared: Declared | None = None) -> None:
        self._host, self._port = host, port
        self._model = model
        self._declared = declared
        self._ids = itertools.count(1)

    @property
    def path(self) -> str:
        """Of its model."""
        return f"/v2/models/{self._model}"

    @cached_property
    def title(self) -> str:
        return f"{self._host}:{self._port}{self.path}"

    def line(self, *, in_two: bool = False, at_once: bool = True, seconds: float = SECONDS) -> Line:
        """A new connection to it."""
        return Line(self._host, self._port, seconds, in_two=in_two, at_once=at_once)

    def once(self, method: str, path: str, body: bytes | None = None) -> Said:
        """Ask on a connection of its own."""
        with self.line() as line:
            return line.ask(method, path, body)

    @cached_property
    def declared(self) -> Declared:
        """What it takes and gives."""
        if self._declared is not None:
            return self._declared
        said = self.metadata
        inputs, outputs = _tensors(said, "inputs"), _tensors(said, "outputs")
        return Declared(inputs, outputs, all(one.shape[:1] == (-1,) for one in (*inputs, *outputs)))

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """What it says of its model."""
        said = self.once("GET", self.path)
        if said.status != 200:
            raise Failed(f"status {said.status} of GET {self.path}")
        found = said.json()
        if not isinstance(found, dict):
            raise Failed("it is no object")
        return found

    def question(self, start: int, stop: int) -> tuple[bytes, str]:
        """Made-up rows from `start` to `stop`, and the id of the question."""
        id = f"check-{next(self._ids)}"
        given: Arrays = {}
        for at, one in enumerate(self.declared.inputs):
            if not one.optional:
                fixed = msgspec.structs.replace(one, shape=tuple(1 if n < 0 else n for n in one.shape))
                given[one.name] = example(one, at)[start:stop] if self.declared.rows else example(fixed, at)
        return answers.of_tensors(self.declared.inputs, given, id), id

    def asked(self, start: int, stop: int, line: Line | None = None, padding: int = 0) -> tuple[Arrays, dict[str, Any]]:
        """Outputs for made-up rows, held to what was declared; and the whole answer.

        Args:
            padding: Bytes of white space in the question, before all that it says.
        """
        body, id = self.question(start, stop)
        body = body[:1] + b" " * padding + body[1:]
        path = f"{self.path}/infer"
        said = line.ask("POST", path, body) if line is not None else self.once("POST", path, body)
        outputs = answers.read(said.status, said.body, id, self.title)
        declared = self.declared
        if self._declared is not None and [one.name for one in declared.outputs] == ["score"]:
            scores = answers.scores(outputs, stop - start, self.title)
            return {"score": np.array(scores)}, said.json()
        return answers.arrays(
            outputs, declared.outputs, stop - start if declared.rows else None, self.title
        ), said.json()


def check(subject: Subject) -> Iterator[Check]:
    """All checks in turn; after a first answer that fails, those that rest on it are not made."""
    yield _made("live", _status, subject, "/v2/health/live", "Answer GET /v2/health/live with 200.")
    yield _made("ready", _status, subject, "/v2/health/ready", "Answer GET /v2/health/ready with 200.")
    yield _made("model ready", _status, subject, f"{subject.path}/ready", "Answer GET /v2/models/NAME/ready with 200.")
    yield _made("metadata", _metadata, subject)
    first = _made("infer", _infer, subject)
    yield first
    for name, looked in _MORE.items():
        yield (
            _made(name, looked, subject)
            if first.state == PASSED
            else Check(name, LEFT_OUT, "not looked at: infer fails")
        )


def _made(name: str, looked: Callable[..., str], *arguments: Any) -> Check:
    try:
        return Check(name, PASSED, looked(*arguments))
    except Failed as failed:
        what, next_step = (*failed.args, "")[:2]
        return Check(name, WARNED if isinstance(failed, Warned) else FAILED, what, next_step)
    except InstarError as problem:
        facts = [f"{word} {fact}" for word, fact in (("found", problem.found), ("asked for", problem.asked)) if fact]
        return Check(name, FAILED, "; ".join([problem.what, ", ".join(facts)] if facts else [problem.what]))
    except (OSError, HTTPException, ValueError) as problem:
        return Check(name, FAILED, f"{type(problem).__name__}: {problem}".removesuffix(": "))


def _status(subject: Subject, path: str, next_step: str) -> str:
    status = subject.once("GET", path).status
    if status != 200:
        raise Failed(f"status {status} of GET {path}", next_step)
    return f"200 of GET {path}"


def _metadata(subject: Subject) -> str:
    said = subject.metadata
    for side in ("inputs", "outputs"):
        listed = {one.name: one for one in _tensors(said, side)}
        for one in getattr(subject.declared, side):
            if one.name not in listed:
                raise Failed(f"its {side} are {', '.join(listed) or 'none'}, without {one.name}",
                             "List the inputs and outputs as model.toml has them.")  # fmt: skip
            if listed[one.name].datatype != one.datatype:
                raise Failed(f"it says {listed[one.name].datatype} of {one.name}, and model.toml {one.datatype}",
                             "Say the same datatype in both.")  # fmt: skip
    return f"{len(_tensors(said, 'inputs'))} inputs, {len(_tensors(said, 'outputs'))} outputs"


def _infer(subject: Subject) -> str:
    outputs, _ = subject.asked(0, 1)
    return ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())


def _id(subject: Subject) -> str:
    _, whole = subject.asked(0, 1)
    if not whole.get("id"):
        raise Failed("the answer has no id", "Give the request's id back in the answer.")
    return "the answer has the request's id"  # another one was refused when it was read


def _rows(subject: Subject) -> str:
    if not subject.declared.rows:
        return "a call is one prediction"
    together, _ = subject.asked(0, ROWS)
    alone = [subject.asked(at, at + 1)[0] for at in range(ROWS)]
    for name, array in together.items():
        apart = np.concatenate([one[name] for one in alone])
        same = np.array_equal(apart, array)
        if not same and DTYPES["BYTES"] != str(array.dtype) and array.dtype.kind == "f":
            scale = max(float(np.abs(array).max()), 1e-12)
            same = bool(np.all(np.abs(apart - array) <= TOLERANCE * scale))
        if not same and subject.declared.apart:
            raise Failed(f"{name} of {ROWS} rows together is another than of each alone",
                         "Answer each row by itself, or say batch = false in model.toml.")  # fmt: skip
    return f"{ROWS} rows, as each alone" if subject.declared.apart else f"{ROWS} rows"


def _unknown(subject: Subject) -> str:
    body, _ = subject.question(0, 1)
    status = subject.once("POST", f"{subject.path}-that-is-not-there/infer", body).status
    if status != 404:
        raise Failed(f"status {status} where no model has the name", "Answer 404.")
    return "404"


def _malformed(subject: Subject) -> str:
    found = []
    for body in (
        b'{"inputs": [',
        b"[]",
        b'{"inputs": [{"name": "none-of-that-name", "shape": [1], "datatype": "FP64"}]}',
    ):
        status = subject.once("POST", f"{subject.path}/infer", body).status
        if not 400 <= status < 500:
            raise Failed(f"status {status} of the body {body.decode()}",
                         'Answer 400 with {"error": "..."}: it is the caller\'s fault, not yours.')  # fmt: skip
        found.append(status)
    subject.asked(0, 1)  # it still lives
    return ", ".join(map(str, found))


def _keeps(subject: Subject) -> str:
    with subject.line() as line:
        for at in range(3):
            subject.asked(0, 1, line)
            if not line.open:
                raise Failed(f"the connection was closed after answer {at + 1}",
                             "Speak HTTP/1.1 and give each answer its Content-Length.")  # fmt: skip
    return "3 calls on one connection"


def _large(subject: Subject) -> str:
    wanted, _ = subject.asked(0, 1)
    with subject.line(seconds=LARGE_SECONDS) as line:
        try:
            found, _ = subject.asked(0, 1, line, LARGE_BYTES)
        except (InstarError, OSError, HTTPException) as problem:
            what = problem.what if isinstance(problem, InstarError) else f"{type(problem).__name__}: {problem}"
            facts = f"; found {problem.found}" if isinstance(problem, InstarError) and problem.found else ""
            raise Failed(
                f"a body of {LARGE_BYTES >> 20} MiB: {what}{facts}",
                "Read as many bytes as Content-Length says, however many pieces they come in, and allow large bodies.",
            ) from problem
    if not all(_alike(array, found[name]) for name, array in wanted.items()):
        raise Failed(f"a body of {LARGE_BYTES >> 20} MiB got another answer than a small one that says the same",
                     "Read the whole body before you take it apart.")  # fmt: skip
    subject.asked(0, 1)  # it still lives
    return f"{LARGE_BYTES >> 20} MiB, of which most is white space"


def _concurrent(subject: Subject) -> str:
    wanted = [subject.asked(at, at + 1)[0] for at in range(CALLERS)]

    def calls(at: int) -> None:
        with subject.line() as line:
            for _ in range(CALLS):
                found, _ = subject.asked(at, at + 1, line)
                for name, array in wanted[at].items():
                    if not _alike(array, found[name]):
                        raise Failed(f"caller {at} got another answer than alone", "Keep no state between requests.")

    with ThreadPoolExecutor(CALLERS) as pool:
        for done in [pool.submit(calls, at) for at in range(CALLERS)]:
            done.result()
    return f"{CALLERS} callers, {CALLERS * CALLS} calls"


def _delay(subject: Subject) -> str:
    (fresh, kept), (_, split) = _medians(subject, in_two=False), _medians(subject, in_two=True)
    for found in (kept, split):
        if DELAY_SECONDS[0] <= found <= DELAY_SECONDS[1] and found - fresh >= DIFFERENCE_SECONDS:
            _, ours = _medians(subject, in_two=False, at_once=True)
            raise Warned(
                f"{found * 1e3:.0f} ms a call on a kept connection, {fresh * 1e3:.1f} ms on a new one: the program sends an "
                "answer in two writes, and the second waits for an acknowledgement that callers delay (Nagle's algorithm); "
                f"{ours * 1e3:.1f} ms a call as a server of Instar's asks it",
                "Set TCP_NODELAY on its connections, or send head and body of an answer in one write.",
            )
    return f"{kept * 1e3:.1f} ms a call, {split * 1e3:.1f} ms where head and body come apart"


def _medians(subject: Subject, *, in_two: bool, at_once: bool = False) -> tuple[float, float]:
    """Seconds of a call on a new connection, and on one that is kept."""
    fresh = []
    for _ in range(FRESH):
        with subject.line(in_two=in_two, at_once=at_once) as line:
            fresh.append(_timed(subject, line))
    with subject.line(in_two=in_two, at_once=at_once) as line:
        kept = [_timed(subject, line) for _ in range(KEPT)][1:]
    return statistics.median(fresh), statistics.median(kept)


def _timed(subject: Subject, line: Line) -> float:
    body, _ = subject.question(0, 1)
    started = time.perf_counter()
    status = line.ask("POST", f"{subject.path}/infer", body).status
    if status != 200:
        raise StepFailed(f"status {status}")
    return time.perf_counter() - started


def _alike(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.dtype.kind == "f":
        return one.shape == other.shape and bool(np.allclose(one, other, rtol=TOLERANCE, equal_nan=True))
    return bool(np.array_equal(one, other))


def _tensors(said: dict[str, Any], side: str) -> tuple[Tensor, ...]:
    try:
        found = msgspec.convert([{**one, "shape": one.get("shape", [-1])} for one in said[side]], tuple[_Listed, ...])
    except (KeyError, TypeError, AttributeError, msgspec.ValidationError) as problem:
        raise Failed(
            f"its {side} cannot be read: {problem}", f"Give {side} as a list of name, datatype and shape."
        ) from None
    for one in found:
        if one.datatype not in DTYPES:
            raise Failed(f"{one.name} has an unknown datatype {one.datatype}", f"Known are {', '.join(DTYPES)}.")
    return tuple(Tensor(one.name, one.datatype, tuple(one.shape)) for one in found)


class _Listed(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]


_MORE: dict[str, Callable[[Subject], str]] = {
    "id": _id,
    "several rows": _rows,
    "unknown model": _unknown,
    "malformed body": _malformed,
    "kept connection": _keeps,
    "concurrent calls": _concurrent,
    "large body": _large,
    "40 ms delay": _delay,
}
