"""Calls of a table model in a worker: rows of several calls scored together, at the moment of a call.

The rows are laid end to end, each version scores once, and the scores are cut up again. When a version raises on the whole
batch, it is asked again call by call, so that one bad call cannot fail its neighbours; one that hung is not (`work.Again`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from instar.serve.log import record
from instar.serve.log.masking import Mask
from instar.serve.log.record import Answer
from instar.serve.protocol import columns, replies, wire
from instar.serve.protocol.signature import Signature
from instar.serve.protocol.v2_json import Request
from instar.serve.worker.work import Again, Ended, Job


class TableModel(Protocol):
    """A loaded model of named columns, of whatever form."""

    def score(self, columns: Mapping[str, Sequence[Any]]) -> Any:
        """Probability that the target is true by row: numpy array or list, shape (n,); `columns` maps each input to n values."""


class TableWork:
    """What is done with the calls of one plan.

    Args:
        model: The loaded model of a version.
        mask: Masks the values of a personal column.
    """

    def __init__(self, signature: Signature, model: Callable[[wire.PlanVersion], TableModel], mask: Mask) -> None:
        self._signature = signature
        self._binder = columns.Binder(signature)
        self._model = model
        self._mask = mask

    def read(self, body: bytes | memoryview) -> columns.Bound:
        """A request in JSON, held to the signature."""
        return self._binder.read(body)

    def bind(self, request: Request) -> columns.Bound:
        """The request held to the signature."""
        return self._binder.bind(request)

    def ask(self, versions: Sequence[wire.PlanVersion], jobs: Sequence[Job]) -> list[list[Answer]]:
        """Answers by job and version."""
        said: list[list[Answer]] = [[] for _ in jobs]
        laid = _Laid(jobs)
        for version in versions:
            try:
                model = self._model(version)
            except Exception as problem:  # no value of a caller's is in it, so it is told in full
                for job, answers in zip(jobs, said, strict=True):
                    answers.append(_failed(version, job, problem))
                continue
            try:
                scores = _score(model, laid.columns(version.columns), laid.rows)
            except Exception as problem:
                self._ask_alone(version, model, jobs, said, problem)
                continue
            threshold, start = version.threshold, 0
            for job, answers in zip(jobs, said, strict=True):
                stop = start + job.bound.rows
                part = scores[start:stop]
                decisions = _decided(part, threshold)
                answers.append(Answer(version.version, version.role, part, decisions, threshold))
                start = stop
        return said

    def outputs(self, said: Answer, wanted: Sequence[str] | None, plain: bool = True) -> list[replies.Output]:
        """Outputs `score` (FP64) and `decision` (INT64, 1 from the threshold on), the latter where the version decides."""
        rows = [len(said.scores)]
        outputs = [replies.Output("score", rows, "FP64", said.scores)]
        if said.threshold is not None:
            outputs.append(replies.Output("decision", rows, "INT64", said.decisions))
        return outputs if wanted is None else replies.select(outputs, wanted)

    def answers(self, said: Sequence[Answer]) -> list[Answer]:
        """What is recorded: all of it."""
        return list(said)

    def inputs(self, job: Job) -> tuple[list[Any], list[record.Tensor] | None, dict[str, list[Any]] | None]:
        """Values by column in the signature's order, without those that are personal; and these, masked."""
        given = job.bound.columns
        inputs: list[list[Any] | None] = []
        masked: dict[str, list[Any]] | None = None
        for column in self._signature.columns:
            values = given.get(column.name)
            if column.personal:
                if masked is None:
                    masked = {}
                if values is not None:
                    masked[column.name] = self._mask(column.name, values)
                values = None
            inputs.append(values)
        return inputs, None, masked

    def _ask_alone(
        self,
        version: wire.PlanVersion,
        model: TableModel,
        jobs: Sequence[Job],
        said: list[list[Answer]],
        problem: Exception,
    ) -> None:
        personal, again = self._signature.personal, Again()
        again.heard(problem)
        if len(jobs) == 1 and not isinstance(problem, Ended):  # it was alone, and would say the same again
            said[0].append(_failed(version, jobs[0], problem, personal))
            return
        for job, answers in zip(jobs, said, strict=True):
            if again.over is not None:
                answers.append(_failed(version, job, again.over, personal))
                continue
            try:
                scores = _score(model, _Laid([job]).columns(version.columns), job.bound.rows)
            except Exception as failure:  # a model's own failure is part of its record
                again.heard(failure)
                answers.append(_failed(version, job, failure, personal))
                continue
            decisions = _decided(scores, version.threshold)
            answers.append(Answer(version.version, version.role, scores, decisions, version.threshold))


def _score(model: TableModel, given: dict[str, list[Any]], rows: int) -> list[float]:
    scored = model.score(given)
    scores: list[float] = scored.tolist() if hasattr(scored, "tolist") else list(scored)
    if len(scores) != rows:
        raise ValueError(f"the model gave {len(scores)} scores for {rows} rows")
    if not math.isfinite(sum(scores)):
        raise ValueError("the model gave a score that is not a number")
    return scores


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


def _failed(version: wire.PlanVersion, job: Job, problem: Exception, personal: bool = False) -> Answer:
    error = job.failed(version.version, problem, personal)
    return Answer(version.version, version.role, [], [], version.threshold, error)


def _decided(scores: Sequence[float], threshold: float | None) -> list[int]:
    return [] if threshold is None else [1 if score >= threshold else 0 for score in scores]
