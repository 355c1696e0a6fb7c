"""Calls of a tensor model in a worker: stacked along their first dimension where the model takes it, at the moment of a call.

Calls whose tensors differ in the first dimension alone are laid together, up to a bound of rows and bytes; the model is asked
once and its outputs are cut up again. A model that is not batchable is asked call by call, and so is one that raises on the
stack, so that one bad call cannot fail its neighbours; one that hung is not asked again (`work.Again`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from instar.serve.log import keeping, record
from instar.serve.log.masking import Mask
from instar.serve.protocol import replies, tensors, wire
from instar.serve.protocol.signature import BYTES, ELEMENT_BYTES, FLOATS, Signature
from instar.serve.protocol.v2_json import Request
from instar.serve.worker.work import Again, Job

STACK_ROWS = 1024
STACK_BYTES = 8 * 1024 * 1024
TEXT_BYTES = 64  # of a text in a stack, as the bound counts it

# An output of one of these names with one float a row is also what the log, monitors and comparisons know as the score.
SCORES = ("score", "probability")

Array = NDArray[Any]

_DTYPES = {name: np.dtype(kind) for name, kind in tensors.DTYPES.items()}
_DATATYPES = {dtype: name for name, dtype in _DTYPES.items()}


class TensorModel(Protocol):
    """A loaded model of named tensors, of whatever form.

    Attributes:
        batchable: Rows of several calls may be stacked: each row's answer depends on that row alone.
    """

    batchable: bool

    def infer(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Outputs by name; arrays of Python objects for text. An input that was not given is absent."""


class Said(msgspec.Struct, gc=False):
    """What one version said on a call: its part, from `start` to `stop`, of what it answered to a stack; or why it failed."""

    version: int
    role: str
    outputs: list[Laid]
    start: int = 0
    stop: int = 0
    error: str | None = None


class TensorWork:
    """What is done with the calls of one plan.

    Args:
        model: The loaded model of a version.
        mask: Masks the values of a personal tensor.
        keep_bytes: See `keeping`.
    """

    def __init__(
        self, signature: Signature, model: Callable[[wire.PlanVersion], TensorModel], mask: Mask, keep_bytes: int
    ) -> None:
        self._by_rows = signature.rows
        self._binder = tensors.Binder(signature)
        self._datatypes = {spec.name: spec.datatype for spec in signature.tensors}
        self._personal = {spec.name for spec in signature.tensors if spec.personal}
        self._model = model
        self._mask = mask
        self._keep_bytes = keep_bytes

    def read(self, body: bytes | memoryview) -> tensors.Bound:
        """A request in JSON, held to the signature."""
        return self._binder.read(body)

    def bind(self, request: Request) -> tensors.Bound:
        """The request held to the signature."""
        return self._binder.bind(request)

    def ask(self, versions: Sequence[wire.PlanVersion], jobs: Sequence[Job]) -> list[list[Said]]:
        """What was said, by job and version."""
        said: list[list[Said]] = [[] for _ in jobs]
        stacks: list[Stack] | None = None
        for version in versions:
            try:
                model = self._model(version)
            except Exception as problem:  # it was loaded once, and is gone from disk since
                for job, answers in zip(jobs, said, strict=True):
                    answers.append(_failed(version, job, problem))
                continue
            if len(jobs) > 1 and self._by_rows and model.batchable:
                if stacks is None:
                    stacks = self._stacks(jobs)
                asked = stacks
            else:
                asked = [self._alone(at, job.bound) for at, job in enumerate(jobs)]
            again = Again()
            for stack in asked:
                for at, answer in zip(stack.places, self._answers(version, model, stack, jobs, again), strict=True):
                    said[at].append(answer)
        return said

    def outputs(self, said: Said, wanted: Sequence[str] | None, plain: bool = True) -> list[replies.Output]:
        """All outputs as the model gave them, or those wanted.

        Args:
            plain: As lists for JSON; else as arrays.

        Raises:
            MalformedRequest: This version has no such output.
        """
        start, stop = said.start, said.stop
        outputs = [
            replies.Output(
                one.name,
                one.shape(start, stop, self._by_rows),
                one.datatype,
                one.values(start, stop) if plain else one.array[start:stop] if self._by_rows else one.array,
            )
            for one in said.outputs
        ]
        return outputs if wanted is None else replies.select(outputs, wanted)

    def answers(self, said: Sequence[Said]) -> list[record.Answer]:
        """What is recorded: outputs, large ones sampled, and the score where there is one."""
        return [
            record.Answer(one.version, one.role, [], [], None, one.error)
            if one.error is not None
            else record.Answer(
                one.version, one.role, self._scores(one), [], None, None, self._kept(one.outputs, one.start, one.stop)
            )
            for one in said
        ]

    def inputs(self, job: Job) -> tuple[list[Any], list[record.Tensor] | None, dict[str, list[Any]] | None]:
        """Tensors as they were given, large ones sampled; of personal ones the shape alone, and their text masked."""
        bound: tensors.Bound = job.bound
        stack, start, stop = bound.laid or (self._alone(0, bound), 0, bound.rows)
        named = [stack.tensor(name, self._datatypes[name]) for name in bound.tensors]
        if not self._personal:
            return [], self._kept(named, start, stop), None
        masked: dict[str, list[Any]] = {}
        hidden: list[record.Tensor] = []
        for one in named:
            if one.name in self._personal:
                text = one.datatype == BYTES
                shape = tuple(one.shape(start, stop, self._by_rows))
                hidden.append(record.Tensor(one.name, one.datatype, shape, [] if text else b""))
                if text:
                    masked[one.name] = self._mask(one.name, one.values(start, stop))
        kept = self._kept([one for one in named if one.name not in self._personal], start, stop)
        return [], [*kept, *hidden], masked

    def _alone(self, at: int, bound: tensors.Bound) -> Stack:
        stack = Stack()
        stack.add(at, bound, 0)
        return stack

    def _stacks(self, jobs: Sequence[Job]) -> list[Stack]:
        """Calls whose tensors differ in the first dimension alone, together."""
        made: list[Stack] = []
        newest: dict[Any, Stack] = {}
        for at, job in enumerate(jobs):
            bound: tensors.Bound = job.bound
            size = 0
            kind: list[Any] = []
            for name, one in bound.tensors.items():
                kind.append((name, one.shape[1:]))
                size += len(one.values) * ELEMENT_BYTES.get(self._datatypes[name], TEXT_BYTES)
            key = tuple(kind)
            stack = newest.get(key)
            if stack is None or stack.rows + bound.rows > STACK_ROWS or stack.size + size > STACK_BYTES:
                stack = newest[key] = Stack()
                made.append(stack)
            stack.add(at, bound, size)
        return made

    def _answers(
        self, version: wire.PlanVersion, model: TensorModel, stack: Stack, jobs: Sequence[Job], again: Again
    ) -> list[Said]:
        if again.over is None:
            try:
                given = stack.bounds[0].tensors
                asked = {
                    name: stack.tensor(name, self._datatypes[name]).array for name in version.columns if name in given
                }
                outputs = self._checked(model.infer(asked), stack.rows)
                return [Said(version.version, version.role, outputs, start, stop) for start, stop in stack.spans]
            except Exception as problem:  # a model's own failure is part of its record
                again.heard(problem)
                failure = problem
        else:
            failure = again.over
        if len(stack.bounds) == 1 or again.over is not None:
            return [_failed(version, jobs[at], failure, bool(self._personal)) for at in stack.places]
        alone = [self._alone(at, bound) for at, bound in zip(stack.places, stack.bounds, strict=True)]
        return [said for one in alone for said in self._answers(version, model, one, jobs, again)]

    def _checked(self, outputs: Mapping[str, Array], rows: int) -> list[Laid]:
        made: list[Laid] = []
        for name, array in outputs.items():
            datatype = _DATATYPES.get(array.dtype)
            if datatype is None:
                if array.dtype.kind not in "US":
                    raise ValueError(f"output {name!r} has a type that the protocol has not: {array.dtype}")
                array, datatype = array.astype(object), BYTES
            if self._by_rows and (not array.ndim or array.shape[0] != rows):
                raise ValueError(f"output {name!r} has the shape {list(array.shape)} for {rows} rows")
            made.append(Laid(name, datatype, array, rows if self._by_rows else 1))
        return made

    def _kept(self, given: Sequence[Laid], start: int, stop: int) -> list[record.Tensor]:
        rows, size = stop - start, 0
        for one in given:
            size += one.unit * rows if one.unit else sum(map(len, one.values(start, stop)))
        if size <= self._keep_bytes:
            return [one.kept(start, stop, self._by_rows) for one in given]
        return keeping.keep(
            [(one.name, one.datatype, one.array[start:stop] if self._by_rows else one.array) for one in given],
            self._keep_bytes,
        )

    def _scores(self, said: Said) -> list[float]:
        if self._by_rows:
            for one in said.outputs:
                if one.name in SCORES and one.width == 1 and one.datatype in FLOATS:
                    scores: list[float] = one.values(said.start, said.stop)
                    return scores if math.isfinite(sum(scores)) else []
        return []


def _failed(version: wire.PlanVersion, job: Job, problem: Exception, personal: bool = False) -> Said:
    return Said(version.version, version.role, [], error=job.failed(version.version, problem, personal))


class Laid:
    """One tensor of a stack: as the model has it, as plain values for answers, and as bytes for the record.

    Each of these is made at most once for all calls of the stack, which then cut their parts out of it.

    Attributes:
        width: Values of one row; a call that is no rows is one.
        unit: Bytes of one row; 0 for text.
    """

    __slots__ = ("_bytes", "_flat", "array", "datatype", "name", "unit", "width")

    def __init__(self, name: str, datatype: str, array: Array, rows: int) -> None:
        self.name = name
        self.datatype = datatype
        self.array = array
        self.width = array.size // rows if rows else 0
        self.unit = self.width * ELEMENT_BYTES.get(datatype, 0)
        self._flat: list[Any] | None = None
        self._bytes: bytes | None = None

    def shape(self, start: int, stop: int, by_rows: bool) -> list[int]:
        """Of the part from `start` to `stop`."""
        return [stop - start, *self.array.shape[1:]] if by_rows else list(self.array.shape)

    def values(self, start: int, stop: int) -> list[Any]:
        """Plain values row by row."""
        if self._flat is None:
            self._flat = self.array.ravel().tolist()
        return self._flat[start * self.width : stop * self.width]

    def kept(self, start: int, stop: int, by_rows: bool) -> record.Tensor:
        """For the record, whole."""
        shape = tuple(self.shape(start, stop, by_rows))
        if not self.unit and self.datatype == BYTES:
            return record.Tensor(self.name, self.datatype, shape, self.values(start, stop))
        if self._bytes is None:
            self._bytes = self.array.tobytes()
        return record.Tensor(self.name, self.datatype, shape, self._bytes[start * self.unit : stop * self.unit])


class Stack:
    """Calls that are asked together, their places in the batch, and the rows of each."""

    __slots__ = ("_tensors", "bounds", "places", "rows", "size", "spans")

    def __init__(self) -> None:
        self.bounds: list[tensors.Bound] = []
        self.places: list[int] = []
        self.spans: list[tuple[int, int]] = []
        self.rows = 0
        self.size = 0
        self._tensors: dict[str, Laid] = {}

    def add(self, place: int, bound: tensors.Bound, size: int) -> None:
        """One more call."""
        start = self.rows
        self.rows = stop = start + bound.rows
        self.size += size
        self.bounds.append(bound)
        self.places.append(place)
        self.spans.append((start, stop))
        if bound.laid is None:
            bound.laid = self, start, stop

    def tensor(self, name: str, datatype: str) -> Laid:
        """A tensor of all calls."""
        laid = self._tensors.get(name)
        if laid is None:
            given = [bound.tensors[name] for bound in self.bounds]
            dtype = _DTYPES[datatype]
            if len(given) == 1:
                array = np.asarray(given[0].values, dtype=dtype).reshape(given[0].shape)
            elif all(type(one.values) is list for one in given):
                flat = list(chain.from_iterable([one.values for one in given]))
                array = np.array(flat, dtype=dtype).reshape(-1, *given[0].shape[1:])
            else:
                array = np.concatenate([np.asarray(one.values, dtype=dtype).reshape(one.shape) for one in given])
            laid = self._tensors[name] = Laid(name, datatype, array, self.rows)
        return laid
