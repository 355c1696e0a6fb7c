"""The JSON form of the Open Inference Protocol V2: what is answered in it, at a call. What is asked is read by `protocol`."""

from __future__ import annotations

from instar.serve.protocol import replies, wire
from instar.serve.protocol.forms import binary
from instar.serve.protocol.forms.answer import Answer, Written


def write(answer: Answer) -> Written:
    """The answer in JSON; with binary tensors behind it where the caller wants some of those."""
    asked = answer.asked
    if asked.binary is not None:
        return binary.write(answer)
    outputs = answer.outputs(True)
    body = replies.encode_answer(answer.model, answer.version, asked.request_id, outputs, answer.parameters)
    return body, wire.JSON, 0
