"""From the number of a form to what reads and writes it, in a worker at a call. Plain JSON, the most common, is read before."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Protocol

from instar.core.errors import MalformedRequest, RequestError
from instar.serve.protocol import replies, wire
from instar.serve.protocol.forms import arrow, binary, csv_rows, inference, invocations, records, rows
from instar.serve.protocol.forms.answer import Answer, Written
from instar.serve.protocol.signature import Signature
from instar.serve.protocol.v2_json import Request

_READ: dict[int, ModuleType] = {
    wire.RECORDS: records, wire.INVOCATIONS: invocations, wire.CSV: csv_rows, wire.ARROW: arrow,
}  # fmt: skip
_WRITE: dict[int, Any] = dict(_READ)
# The form of an answer where it is not that of the request: JSON says itself where binary tensors are wanted.
_SAME = {wire.BINARY: wire.JSON, wire.CSV: wire.INVOCATIONS}


class Binding(Protocol):
    """Holds a request to a signature."""

    def bind(self, request: Request) -> Any:
        """The request, bound."""


def read(ask: wire.Ask, signature: Signature, work: Binding) -> Any:
    """The request of a call that is not in JSON, held to the signature.

    Raises:
        RequestError: It cannot be read, or does not fit; the subject is where the caller finds the fault.
    """
    if ask.form == wire.BINARY:
        return work.bind(binary.read(ask, signature))
    form: Any = _READ[ask.form]
    request = form.read(ask, signature)
    if form is arrow:
        request.inputs = [arrow.datatype_of_nulls(one, signature) for one in request.inputs]
    try:
        return work.bind(request)
    except RequestError as problem:
        raise rows.retold(problem, request, lambda name, row: form.where(ask, name, row)) from None


def write(form: int, wanted: int, answer: Answer) -> Written:
    """An answer in the form that the caller wants, or else in that which belongs to the one in which it was asked.

    Raises:
        NotAcceptable: What the model says has no place in that form.
        MalformedRequest: Binary tensors are asked for, and that form has none.
    """
    if wanted == wire.SAME:
        wanted = _SAME.get(form, form)
    if wanted == wire.JSON:
        return inference.write(answer)
    if wanted == wire.BINARY:
        return binary.write_all(answer)
    if answer.asked.binary is not None:
        raise MalformedRequest(
            "binary tensors are asked for, and the answer is of a form that has none", subject="$.parameters",
            next_step="Accept application/json or application/octet-stream on /v2/models/{endpoint}/infer.",
        )  # fmt: skip
    written: Written = _WRITE[wanted].write(answer)
    return written


def refuse(form: int, problem: Exception) -> bytes:
    """The body of a refusal: always JSON; in MLflow's words, too, for its callers."""
    if form in (wire.INVOCATIONS, wire.CSV):
        return invocations.refusal(problem)
    return replies.encode_error(problem)
