"""Names, values and paths of a run, made into what a record can hold, in the moment in which they are logged."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from instar.core.errors import BadInput

LONGEST_NAME = 250  # characters of the name of a metric, parameter or tag
SMALLEST, LARGEST = -(2**63), 2**63 - 1  # whole numbers that a record holds; a parameter beyond is kept as text


def named(name: Any) -> str:
    """The name of a metric, parameter or tag.

    Raises:
        BadInput: It is empty, too long, or has what no database keeps.
    """
    text = str(name)
    if not text.strip() or len(text) > LONGEST_NAME or text != clean(text):
        raise BadInput("that is no name", found=repr(text[:80]), asked=f"1 to {LONGEST_NAME} characters")
    return text


def relative(path: str) -> str:
    """The path of an artifact.

    Raises:
        BadInput: It is absolute, or leads elsewhere.
    """
    parts = path.replace("\\", "/").split("/")
    if not path or path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise BadInput("an artifact's path is relative", found=repr(path), asked="such as plots/roc.png")
    return "/".join(parts)


def step_of(step: Any) -> int:
    """A step: any whole number of 64 bits, those of NumPy and PyTorch among them.

    Raises:
        BadInput: It is none.
    """
    try:
        found = int(step) if isinstance(step, float) and step.is_integer() else operator.index(step)
    except TypeError:
        raise BadInput("that is no step", found=repr(step)[:80], asked="a whole number") from None
    if not SMALLEST <= found < LARGEST:  # the next one is kept, too
        raise BadInput("that is no step", found=str(found)[:80], asked="a whole number of 64 bits")
    return found


def plain(value: Any) -> Any:
    """A value as JSON has it; what JSON has not, as text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, int | float):  # of exactly these types: numpy's numbers only inherit from them
        if isinstance(value, int):
            if SMALLEST <= value <= LARGEST:
                return int(value)
            return str(int(value)) if value.bit_length() < 10_000 else hex(value)  # more digits Python does not write
        return float(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # arrays and numbers of numpy, tensors of PyTorch
        return plain(value.tolist())
    return clean(str(value))


def text_of(value: Any) -> str:
    """A value as the text of a tag."""
    return clean(value if isinstance(value, str) else str(value))


def clean(text: str) -> str:
    """The text without what no database keeps: a NUL, half of a surrogate pair."""
    if "\0" in text:
        text = text.replace("\0", "\\0")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return str(text)
