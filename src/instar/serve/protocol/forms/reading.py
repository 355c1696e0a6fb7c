"""From the number of a form to what reads and writes it, in a worker at a call. Plain JSON, the most common, is read before."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Protocol

from instar.core.errors import RequestError
from instar.serve.protocol import replies, wire
from instar.serve.protocol.forms import arrow, binary, csv_rows, inference, invocations, records, rows
from instar.serve.protocol.forms.answer import Answer, Written
from instar.serve.protocol.signature import Signature
from instar.serve.protocol.v2_json import Request

_READ: dict[int, ModuleType] = {
    wire.RECORDS: records, wire.INVOCATIONS: invocations, wire.CSV: csv_rows, wire.ARROW: arrow,
}  # fmt: skip


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


def write(form: int, answer: Answer) -> Written:
    """An answer in the form in which it was asked."""
    if form in (wire.JSON, wire.BINARY):
        return inference.write(answer)
    if form == wire.RECORDS:
        return records.write(answer)
    if form == wire.ARROW:
        return arrow.write(answer)
    return invocations.write(answer)


def refuse(form: int, problem: Exception) -> bytes:
    """The body of a refusal: always JSON; in MLflow's words, too, for its callers."""
    if form in (wire.INVOCATIONS, wire.CSV):
        return invocations.refusal(problem)
    return replies.encode_error(problem)
