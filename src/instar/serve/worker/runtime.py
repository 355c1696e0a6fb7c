"""Inside a worker: loaded models, and what is done with the calls that are queued, at the moment of a call.

Calls of one route are bound one by one and asked of each version together; how, is left to `table_work` for models of named
columns and to `tensor_work` for models of tensors. A call that does not fit its signature is refused alone.

A worker turns `(job, plan, body)` into messages. It knows nothing of sockets (`worker.py`) or of who calls.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec

from instar.core.errors import DeadlineExceeded, NotLoaded, RequestError, StepFailed, Unavailable
from instar.serve.log import record
from instar.serve.log.keeping import LIMIT_BYTES
from instar.serve.log.masking import Mask, mask_nothing_through
from instar.serve.protocol import codings, replies, v2_json, wire
from instar.serve.protocol.forms import reading
from instar.serve.protocol.forms.answer import Answer
from instar.serve.worker.metering import Meter
from instar.serve.worker.models import LIMIT as MODELS_LIMIT
from instar.serve.worker.models import Models
from instar.serve.worker.table_work import TableModel, TableWork
from instar.serve.worker.tensor_work import TensorModel, TensorWork
from instar.serve.worker.work import Ended, Job, describe
from instar.train.environment_places import NotBuilt

PLANS_LIMIT = 4096  # whose work is prepared

Model = TableModel | TensorModel
Loader = Callable[[Path], Model]


class Work(Protocol):
    """What is done with the calls of one plan. `Any` stands for what the two kinds of work have of their own."""

    def read(self, body: bytes | memoryview) -> Any:
        """A request in JSON, held to the plan's signature."""

    def bind(self, request: v2_json.Request) -> Any:
        """A request that came in another form, held to the plan's signature."""

    def ask(self, versions: Sequence[wire.PlanVersion], jobs: Sequence[Job]) -> list[list[Any]]:
        """What each version says, by job and version."""

    def outputs(self, said: Any, wanted: Sequence[str] | None, plain: bool = True) -> list[replies.Output]:
        """What is answered of it: lists for JSON (`plain`), or arrays where the model gave them."""

    def answers(self, said: Sequence[Any]) -> list[record.Answer]:
        """What is recorded of it."""

    def inputs(self, job: Job) -> tuple[list[Any], list[record.Tensor] | None, dict[str, list[Any]] | None]:
        """Inputs for the record: columns, tensors, and those that are personal, masked."""


class Runtime:
    """Models by bundle and plans by number, for all gateways that are connected.

    Args:
        load: Makes a model from a bundle's folder.
        mask: Masks the values of a personal input.
        limit: Models loaded at once.
        keep_bytes: Largest tensors of a call that are recorded whole (see `keeping`).
        budget_bytes: Memory for all loaded models; None: no limit.

    Attributes:
        models: What is loaded.
        meter: What each version used.
    """

    def __init__(
        self,
        load: Loader,
        mask: Mask = mask_nothing_through,
        limit: int = MODELS_LIMIT,
        keep_bytes: int = LIMIT_BYTES,
        budget_bytes: int | None = None,
    ) -> None:
        self._mask = mask
        self._keep_bytes = keep_bytes
        self.models = Models(load, budget_bytes, limit)
        self.meter = Meter(self.models)
        self._endpoint = ""
        # By identity: plans of two gateways may have one number, and hashing a signature at each call would be slow.
        self._works: OrderedDict[int, tuple[wire.Plan, Work]] = OrderedDict()

    def load(self, bundle: str, folder: str, keep: bool = False) -> str | None:
        """Have a bundle ready; returns why it cannot be, or None. With `keep` it never makes room for others."""
        try:
            self.models.get(bundle, folder, keep=keep)
        except Exception as problem:  # whatever a bundle's loading raises is the answer to who asked
            return describe(problem)
        return None

    def answer(self, plan: wire.Plan, calls: Sequence[tuple[int, wire.Ask]]) -> tuple[list[bytes], list[Job]]:
        """Ask the first group of a plan on calls of that plan.

        Returns:
            The answers as messages, and the jobs left over for `later`. Jobs whose call was refused are not among them.
        """
        work = self._work(plan)
        messages: list[bytes] = []
        jobs: list[Job] = []
        for job, ask in calls:
            started = time.perf_counter_ns()
            try:
                if ask.deadline and time.monotonic_ns() > ask.deadline:
                    raise DeadlineExceeded(
                        "the caller's time was over before a model was asked",
                        next_step="Allow more time, or try later.",
                    )
                if ask.coding:
                    ask = msgspec.structs.replace(ask, body=codings.unpack(ask.body, ask.coding), coding=codings.PLAIN)
                bound = work.read(ask.body) if ask.form == wire.JSON else reading.read(ask, plan.signature, work)
                deadline = _deadline(ask, bound.asked) if bound.asked.timeout_us else ask.deadline
            except (RequestError, DeadlineExceeded) as problem:
                if plan.first:
                    messages.append(wire.encode_answer(job, refusal(problem, ask.form, plan.signature.personal)))
                if plan.later:
                    messages.append(wire.encode(wire.LATER, job, record.NO_ANSWERS))
                continue
            jobs.append(Job(job, bound, (time.perf_counter_ns() - started) // 1000, ask, deadline))
        if plan.first and jobs:
            started = time.perf_counter_ns()
            answers = self._ask(work, plan, plan.first, jobs)
            infer_us = (time.perf_counter_ns() - started) // 1000
            for taken, said in zip(jobs, answers, strict=True):
                messages.append(wire.encode_answer(taken.job, _reply(work, plan, taken, said, infer_us)))
        return messages, jobs if plan.later else []

    def later(self, plan: wire.Plan, jobs: Sequence[Job]) -> list[bytes]:
        """Ask the versions of a plan that only the record hears."""
        work = self._work(plan)
        return [
            wire.encode(wire.LATER, job.job, record.encode_entry(work.answers(said)))
            for job, said in zip(jobs, self._ask(work, plan, plan.later, jobs), strict=True)
        ]

    def _work(self, plan: wire.Plan) -> Work:
        known = self._works.get(id(plan))
        if known is not None and known[0] is plan:
            return known[1]
        work: Work
        if plan.signature.tensors:
            work = TensorWork(plan.signature, self._tensor_model, self._mask, self._keep_bytes)
        else:
            work = TableWork(plan.signature, self._table_model, self._mask)
        self._works[id(plan)] = plan, work
        if len(self._works) > PLANS_LIMIT:
            self._works.popitem(last=False)
        return work

    def _table_model(self, version: wire.PlanVersion) -> TableModel:
        model: Any = self._model(version)
        if hasattr(model, "score"):  # a check of the whole protocol would take a microsecond a call
            return cast(TableModel, model)
        raise StepFailed("it takes tensors, and the endpoint has columns")

    def _tensor_model(self, version: wire.PlanVersion) -> TensorModel:
        model: Any = self._model(version)
        if hasattr(model, "infer"):
            return cast(TensorModel, model)
        raise StepFailed("it takes columns, and the endpoint has tensors")

    def _ask(
        self, work: Work, plan: wire.Plan, versions: Sequence[wire.PlanVersion], jobs: Sequence[Job]
    ) -> list[list[Any]]:
        """Ask versions, and count what each of them uses: it begins where its model is fetched."""
        self._endpoint = plan.endpoint
        try:
            return work.ask(versions, jobs)
        finally:
            self.meter.stop()
            rows = sum(job.bound.rows for job in jobs)
            for version in versions:
                self.meter.count((plan.endpoint, version.version, version.bundle), len(jobs), rows)

    def _model(self, version: wire.PlanVersion) -> Model:
        self.meter.mark((self._endpoint, version.version, version.bundle))
        try:
            model: Model = self.models.get(version.bundle, version.folder)
        except NotBuilt:
            raise
        except Exception as problem:  # whatever a bundle's loading raises
            raise NotLoaded(
                "its model cannot be loaded",
                found=describe(problem),
                next_step="`instar live` tells how versions are; `instar route` has another one answer.",
            ) from problem
        return model


def _reply(work: Work, plan: wire.Plan, job: Job, said: list[Any], infer_us: int) -> wire.Reply:
    bound = job.bound
    asked: v2_json.Asked = bound.asked
    chosen, fallback = said[0], None
    if chosen.error is not None:
        # A candidate that fails takes no caller down while the champion beside it has the answer already.
        for other in said[1:]:
            if other.error is None and other.role == record.CHAMPION:
                chosen, fallback = other, f"version {said[0].version} failed: {said[0].error}"
                break
        else:
            return _failure(chosen.version, chosen.error, job)
    answer = Answer(
        plan.endpoint,
        str(chosen.version),
        asked,
        plan.parameters,
        lambda plain: work.outputs(chosen, asked.outputs, plain),
    )
    try:
        if job.deadline and time.monotonic_ns() > job.deadline:
            raise DeadlineExceeded(
                "the caller's time was over when the model had answered",
                next_step="Allow more time, or try later.",
            )
        body, form, head = reading.write(job.form, job.answer, answer)
    except (RequestError, DeadlineExceeded) as problem:
        return refusal(problem, job.form, plan.signature.personal)
    coding = codings.PLAIN
    if job.pack and len(body) >= codings.PACKED_FROM_BYTES:
        body, coding = codings.pack(body, job.pack), job.pack
    columns, tensors, masked = work.inputs(job)
    personal, entities = b"", asked.entities
    if masked is not None:
        personal, entities = record.encode_entry(record.Personal(masked, entities)), None
    kept = record.encode_entry(
        record.Work(
            asked.request_id, entities, asked.table_version, plan.schema, bound.rows, columns,
            chosen.version, work.answers(said), job.decode_us, infer_us, fallback, tensors,
        )
    )  # fmt: skip
    return wire.Reply(200, body, kept, personal, form, head, coding)


def refusal(problem: Exception, form: int = wire.JSON, personal: bool = False) -> wire.Reply:
    """The answer to a call that cannot be answered.

    Args:
        personal: What was sent tells of a person: its sender hears what was found in it, the record does not.
    """
    error = describe(problem, personal and isinstance(problem, RequestError))
    return wire.Reply(replies.status_of(problem), reading.refuse(form, problem), error.encode(), b"")


def _deadline(ask: wire.Ask, asked: v2_json.Asked) -> int:
    """When the time is over that a caller allows in its body, or in the header if that is sooner.

    Raises:
        DeadlineExceeded: It is.
    """
    now = time.monotonic_ns()
    deadline = (ask.came or now) + (asked.timeout_us or 0) * 1000
    if now > deadline:
        raise DeadlineExceeded(
            "the caller's time was over before a model was asked",
            subject="$.parameters.timeout",
            asked=f"{asked.timeout_us} microseconds",
            next_step="Allow more time, or try later.",
        )
    return min(deadline, ask.deadline) if ask.deadline else deadline


def _failure(version: int, error: str, job: Job) -> wire.Reply:
    known = (job.problems or {}).get(version)
    problem: Exception
    if isinstance(known, (NotBuilt, NotLoaded)):
        kind = NotLoaded if isinstance(known, NotLoaded) else Unavailable
        problem = kind(f"version {version} cannot answer now: {known.what}", found=known.found,
                       subject=known.subject, next_step=known.next_step)  # fmt: skip
    elif isinstance(known, Ended) and known.hung:  # the request may be as good as any: it may be sent again
        what = f"version {version} cannot answer now: {known.what}"
        problem = Unavailable(what, subject=known.subject, next_step=known.next_step)  # its words are in the log
    else:
        problem = StepFailed(
            f"version {version} failed on this request",
            found=error,
            next_step="Look at the request, then at the model's owner.",
        )
    return refusal(problem, job.form)
