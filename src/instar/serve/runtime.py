"""Inside a worker: loaded models, and what is done with the calls that are queued, at the moment of a call.

Calls of one route are bound one by one and scored together: their rows are laid end to end, each version scores once, and
the scores are cut up again. A call that does not fit its signature is refused alone; when a version raises on the whole
batch, it is asked again call by call, so that one bad call cannot fail its neighbours.

A worker turns `(job, plan, body)` into messages. It knows nothing of sockets (`worker.py`) or of who calls.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from instar.core.errors import RequestError, StepFailed
from instar.serve import protocol, record, replies, wire

MODELS_LIMIT = 256  # loaded at once; the least recently used goes first


class Model(Protocol):
    """A loaded model, of whatever form."""

    def score(self, columns: Mapping[str, Sequence[Any]]) -> Any:
        """Probability that the target is true by row: numpy array or list, shape (n,); `columns` maps each input to n values."""


Loader = Callable[[Path], Model]
Mask = Callable[[str, Sequence[Any]], list[Any]]


def mask_nothing_through(column: str, values: Sequence[Any]) -> list[Any]:
    """The mask where no key is given: personal values are not kept at all."""
    return [None] * len(values)


class Job:
    """A call in the batch: what it asked and what each version said."""

    __slots__ = ("bound", "decode_us", "job")

    def __init__(self, job: int, bound: protocol.Bound, decode_us: int) -> None:
        self.job = job
        self.bound = bound
        self.decode_us = decode_us


class Runtime:
    """Models by bundle and plans by number, for all gateways that are connected.

    Args:
        load: Makes a model from a bundle's folder.
        mask: Masks the values of a personal column.
    """

    def __init__(self, load: Loader, mask: Mask = mask_nothing_through, limit: int = MODELS_LIMIT) -> None:
        self._load = load
        self._mask = mask
        self._limit = limit
        self._models: OrderedDict[str, Model] = OrderedDict()

    def load(self, bundle: str, folder: str) -> str | None:
        """Have a bundle ready; returns why it cannot be, or None."""
        try:
            self._model(bundle, folder)
        except Exception as problem:  # whatever a bundle's loading raises is the answer to who asked
            return describe(problem)
        return None

    def answer(self, plan: wire.Plan, calls: Sequence[tuple[int, bytes]]) -> tuple[list[bytes], list[Job]]:
        """Score the first group of a plan for calls of that plan.

        Returns:
            The answers as messages, and the jobs left over for `later`. Jobs whose call was refused are not among them.
        """
        messages: list[bytes] = []
        jobs: list[Job] = []
        for job, body in calls:
            started = time.perf_counter_ns()
            try:
                bound = protocol.bind(protocol.decode(body), plan.signature)
            except RequestError as problem:
                if plan.first:
                    messages.append(wire.encode_answer(job, refusal(problem)))
                if plan.later:
                    messages.append(wire.encode(wire.LATER, job, record.NO_ANSWERS))
                continue
            jobs.append(Job(job, bound, (time.perf_counter_ns() - started) // 1000))
        if plan.first and jobs:
            started = time.perf_counter_ns()
            answers = self._score(plan.first, jobs)
            infer_us = (time.perf_counter_ns() - started) // 1000
            for taken, said in zip(jobs, answers, strict=True):
                messages.append(wire.encode_answer(taken.job, self._reply(plan, taken, said, infer_us)))
        return messages, jobs if plan.later else []

    def later(self, plan: wire.Plan, jobs: Sequence[Job]) -> list[bytes]:
        """Score the versions of a plan that only the record hears."""
        return [
            wire.encode(wire.LATER, job.job, record.encode_entry(said))
            for job, said in zip(jobs, self._score(plan.later, jobs), strict=True)
        ]

    def _model(self, bundle: str, folder: str) -> Model:
        model = self._models.get(bundle)
        if model is None:
            model = self._models[bundle] = self._load(Path(folder))
            if len(self._models) > self._limit:
                self._models.popitem(last=False)
        else:
            self._models.move_to_end(bundle)
        return model

    def _score(self, versions: Sequence[wire.PlanVersion], jobs: Sequence[Job]) -> list[list[record.Answer]]:
        """Answers by job and version."""
        said: list[list[record.Answer]] = [[] for _ in jobs]
        laid = _Laid(jobs)
        for version in versions:
            try:
                scores = self._one(version, laid.columns(version.columns), laid.rows)
            except Exception:
                if len(jobs) == 1:
                    self._alone(version, jobs[0], said[0])
                else:
                    for job, answers in zip(jobs, said, strict=True):
                        self._alone(version, job, answers)
                continue
            threshold, start = version.threshold, 0
            for job, answers in zip(jobs, said, strict=True):
                stop = start + job.bound.rows
                part = scores[start:stop]
                decisions = _decided(part, threshold)
                answers.append(record.Answer(version.version, version.role, part, decisions, threshold))
                start = stop
        return said

    def _alone(self, version: wire.PlanVersion, job: Job, answers: list[record.Answer]) -> None:
        try:
            scores = self._one(version, _Laid([job]).columns(version.columns), job.bound.rows)
        except Exception as problem:  # a model's own failure is part of its record
            answers.append(record.Answer(version.version, version.role, [], [], version.threshold, describe(problem)))
            return
        decisions = _decided(scores, version.threshold)
        answers.append(record.Answer(version.version, version.role, scores, decisions, version.threshold))

    def _one(self, version: wire.PlanVersion, columns: dict[str, list[Any]], rows: int) -> list[float]:
        scored = self._model(version.bundle, version.folder).score(columns)
        scores: list[float] = scored.tolist() if hasattr(scored, "tolist") else list(scored)
        if len(scores) != rows:
            raise ValueError(f"the model gave {len(scores)} scores for {rows} rows")
        if not math.isfinite(sum(scores)):
            raise ValueError("the model gave a score that is not a number")
        return scores

    def _reply(self, plan: wire.Plan, job: Job, said: list[record.Answer], infer_us: int) -> wire.Reply:
        bound = job.bound
        chosen, fallback = said[0], None
        if chosen.error is not None:
            # A candidate that fails takes no caller down while the champion beside it has the answer already.
            for other in said[1:]:
                if other.error is None and other.role == record.CHAMPION:
                    chosen, fallback = other, f"version {said[0].version} failed: {said[0].error}"
                    break
            else:
                return _failure(chosen)
        body = replies.encode_answer(
            plan.endpoint, str(chosen.version), bound.request_id, chosen.scores, chosen.decisions, plan.parameters
        )
        columns = bound.columns
        personal, entities = b"", bound.entities
        inputs: list[list[Any] | None] = []
        masked: dict[str, list[Any]] = {}
        any_personal = False
        for column in plan.signature.columns:
            values = columns.get(column.name)
            if column.personal:
                any_personal = True
                if values is not None:
                    masked[column.name] = self._mask(column.name, values)
                values = None
            inputs.append(values)
        if any_personal:
            personal, entities = record.encode_entry(record.Personal(masked, entities)), None
        work = record.encode_entry(
            record.Work(
                bound.request_id, entities, bound.table_version, plan.schema, bound.rows, inputs,
                chosen.version, said, job.decode_us, infer_us, fallback,
            )
        )  # fmt: skip
        return wire.Reply(200, body, work, personal)


class _Laid:
    """Rows of several calls laid end to end, column by column as versions ask for them."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._columns: dict[str, list[Any]] = {}
        self.rows = sum(job.bound.rows for job in jobs)

    def columns(self, names: Sequence[str]) -> dict[str, list[Any]]:
        known, jobs = self._columns, self._jobs
        if len(jobs) == 1:
            given, rows = jobs[0].bound.columns, self.rows
            return {name: given[name] if name in given else [None] * rows for name in names}
        for name in names:
            if name not in known:
                values: list[Any] = []
                for job in jobs:
                    part = job.bound.columns.get(name)
                    values += part if part is not None else [None] * job.bound.rows
                known[name] = values
        return {name: known[name] for name in names}


def _decided(scores: Sequence[float], threshold: float | None) -> list[int]:
    return [] if threshold is None else [1 if score >= threshold else 0 for score in scores]


def describe(problem: BaseException) -> str:
    """An exception in one line, for a record: kind and text."""
    text = " ".join(str(problem).split())
    return f"{type(problem).__name__}: {text}"[:500]


def refusal(problem: Exception) -> wire.Reply:
    """The answer to a call that cannot be answered."""
    return wire.Reply(replies.status_of(problem), replies.encode_error(problem), describe(problem).encode(), b"")


def _failure(answer: record.Answer) -> wire.Reply:
    problem = StepFailed(
        f"version {answer.version} failed on this request",
        found=answer.error,
        next_step="Look at the request, then at the model's owner.",
    )
    return refusal(problem)
