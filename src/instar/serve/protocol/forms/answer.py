"""What is to be said to a caller, before it is written in the form that the caller speaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from instar.serve.protocol.replies import Output
from instar.serve.protocol.v2_json import Asked


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        model, version: Who answered: the endpoint, and the version behind it.
        asked: What the caller said beside the inputs.
        parameters: Of the route: policy number and reason.
        outputs: Makes the outputs: of plain lists for JSON, or of numpy arrays where the model gave such.
    """

    model: str
    version: str
    asked: Asked
    parameters: dict[str, Any]
    outputs: Callable[[bool], list[Output]]


Written = tuple[bytes, int, int]  # body, form, and bytes of the JSON head before binary tensors
