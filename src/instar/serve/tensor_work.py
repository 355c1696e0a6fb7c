"""Calls of a tensor model in a worker: stacked along their first dimension where the model takes it, at the moment of a call.

Calls whose tensors differ in the first dimension alone are laid together, up to a bound of rows and bytes; the model is asked
once and its outputs are cut up again. A model that is not batchable is asked call by call, and so is one that raises on the
stack, so that one bad call cannot fail its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from instar.serve import keeping, record, replies, tensors, wire
from instar.serve.protocol import Request
from instar.serve.signature import BYTES, ELEMENT_BYTES, FLOATS, Signature
from instar.serve.work import Job, Mask, describe

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
    """What one version said on a call: an array by output, or why it failed."""

    version: int
    role: str
    outputs: dict[str, Array]
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
        self._signature = signature
        self._specs = {spec.name: spec for spec in signature.tensors}
        self._dtypes = {spec.name: _DTYPES[spec.datatype] for spec in signature.tensors}
        self._personal = any(spec.personal for spec in signature.tensors)
        self._model = model
        self._mask = mask
        self._keep_bytes = keep_bytes

    def bind(self, request: Request) -> tensors.Bound:
        """The request held to the signature."""
        return tensors.bind(request, self._signature)

    def ask(self, versions: Sequence[wire.PlanVersion], jobs: Sequence[Job]) -> list[list[Said]]:
        """What was said, by job and version."""
        said: list[list[Said]] = [[] for _ in jobs]
        stacks: list[_Stack] | None = None
        for version in versions:
            try:
                model = self._model(version)
            except Exception as problem:  # it was loaded once, and is gone from disk since
                for answers in said:
                    answers.append(Said(version.version, version.role, {}, describe(problem)))
                continue
            if len(jobs) > 1 and self._signature.rows and model.batchable:
                if stacks is None:
                    stacks = list(self._stacks(jobs))
                groups = stacks
            else:
                groups = [_Stack([at], [job.bound]) for at, job in enumerate(jobs)]
            for group in groups:
                for at, answer in zip(group.places, self._asked(version, model, group), strict=True):
                    said[at].append(answer)
        return said

    def outputs(self, said: Said, wanted: Sequence[str] | None) -> list[replies.Output]:
        """All outputs as the model gave them, or those wanted.

        Raises:
            MalformedRequest: This version has no such output.
        """
        outputs = [
            replies.Output(name, list(array.shape), _DATATYPES[array.dtype], array)
            for name, array in said.outputs.items()
        ]
        return outputs if wanted is None else replies.select(outputs, wanted)

    def answers(self, said: Sequence[Said]) -> list[record.Answer]:
        """What is recorded: outputs, large ones sampled, and the score where there is one."""
        return [
            record.Answer(one.version, one.role, [], [], None, one.error)
            if one.error is not None
            else record.Answer(
                one.version, one.role, self._scores(one.outputs), [], None, None,
                keeping.keep([(name, _DATATYPES[a.dtype], a) for name, a in one.outputs.items()], self._keep_bytes),
            )
            for one in said
        ]  # fmt: skip

    def inputs(self, job: Job) -> tuple[list[Any], list[record.Tensor] | None, dict[str, list[Any]] | None]:
        """Tensors as they were given, large ones sampled; of personal ones the shape alone, and their text masked."""
        given: dict[str, tensors.Given] = job.bound.tensors
        named = [(name, self._specs[name].datatype, self._array(name, one)) for name, one in given.items()]
        if not self._personal:
            return [], keeping.keep(named, self._keep_bytes), None
        masked = {
            name: self._mask(name, array.ravel().tolist())
            for name, datatype, array in named
            if self._specs[name].personal and datatype == BYTES
        }
        kept = keeping.keep([one for one in named if not self._specs[one[0]].personal], self._keep_bytes)
        hidden = [
            record.Tensor(name, datatype, array.shape, [] if datatype == BYTES else b"")
            for name, datatype, array in named
            if self._specs[name].personal
        ]
        return [], [*kept, *hidden], masked

    def _stacks(self, jobs: Sequence[Job]) -> Iterator[_Stack]:
        """Calls whose tensors differ in the first dimension alone, together."""
        open_: dict[tuple[Any, ...], _Stack] = {}
        for at, job in enumerate(jobs):
            bound: tensors.Bound = job.bound
            kind = tuple((name, one.shape[1:]) for name, one in bound.tensors.items())
            size = sum(
                math.prod(one.shape) * ELEMENT_BYTES.get(self._specs[name].datatype, TEXT_BYTES)
                for name, one in bound.tensors.items()
            )
            stack = open_.get(kind)
            if stack is not None and (stack.rows + bound.rows > STACK_ROWS or stack.size + size > STACK_BYTES):
                yield stack
                stack = None
            if stack is None:
                stack = open_[kind] = _Stack([], [])
            stack.places.append(at)
            stack.bounds.append(bound)
            stack.rows += bound.rows
            stack.size += size
        yield from open_.values()

    def _asked(self, version: wire.PlanVersion, model: TensorModel, stack: _Stack) -> list[Said]:
        try:
            given = {
                name: self._laid(name, stack.bounds) for name in version.columns if name in stack.bounds[0].tensors
            }
            outputs = model.infer(given)
            return self._cut(version, outputs, stack.bounds)
        except Exception as problem:  # a model's own failure is part of its record
            if len(stack.bounds) == 1:
                return [Said(version.version, version.role, {}, describe(problem))]
            return [said for bound in stack.bounds for said in self._asked(version, model, _Stack([0], [bound]))]

    def _cut(
        self, version: wire.PlanVersion, outputs: Mapping[str, Array], bounds: Sequence[tensors.Bound]
    ) -> list[Said]:
        by_rows = self._signature.rows
        rows = bounds[0].rows if len(bounds) == 1 else sum(bound.rows for bound in bounds)
        checked: dict[str, Array] = {}
        for name, array in outputs.items():
            if array.dtype not in _DATATYPES:
                if array.dtype.kind not in "US":
                    raise ValueError(f"output {name!r} has a type that the protocol has not: {array.dtype}")
                array = array.astype(object)
            if by_rows and (not array.ndim or array.shape[0] != rows):
                raise ValueError(f"output {name!r} has the shape {list(array.shape)} for {rows} rows")
            checked[name] = array
        if len(bounds) == 1:
            return [Said(version.version, version.role, checked)]
        cut: list[Said] = []
        start = 0
        for bound in bounds:
            stop = start + bound.rows
            part = {name: array[start:stop] for name, array in checked.items()}
            cut.append(Said(version.version, version.role, part))
            start = stop
        return cut

    def _laid(self, name: str, bounds: Sequence[tensors.Bound]) -> Array:
        """One tensor of several calls; each keeps its part as an array, for the versions and the record after."""
        given = [bound.tensors[name] for bound in bounds]
        if len(given) == 1:
            return self._array(name, given[0])
        if all(type(one.values) is list for one in given):
            flat = list(chain.from_iterable([one.values for one in given]))
            whole = np.array(flat, dtype=self._dtypes[name]).reshape(-1, *given[0].shape[1:])
        else:
            whole = np.concatenate([self._array(name, one) for one in given])
        start = 0
        for one in given:
            stop = start + one.shape[0]
            one.values = whole[start:stop]
            start = stop
        return whole

    def _array(self, name: str, given: tensors.Given) -> Array:
        if type(given.values) is list:
            given.values = np.array(given.values, dtype=self._dtypes[name]).reshape(given.shape)
        elif given.values.shape != given.shape:
            given.values = given.values.reshape(given.shape)
        array: Array = given.values
        return array

    def _scores(self, outputs: Mapping[str, Array]) -> list[float]:
        if not self._signature.rows:
            return []
        for name in SCORES:
            array = outputs.get(name)
            if array is not None and _DATATYPES[array.dtype] in FLOATS and array.size == array.shape[0]:
                scores: list[float] = array.ravel().tolist()
                return scores if math.isfinite(sum(scores)) else []
        return []


class _Stack:
    """Calls that are asked together, and their places in the batch."""

    __slots__ = ("bounds", "places", "rows", "size")

    def __init__(self, places: list[int], bounds: list[tensors.Bound]) -> None:
        self.places = places
        self.bounds = bounds
        self.rows = 0
        self.size = 0
