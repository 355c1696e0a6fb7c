"""The loader of the servers that callers ask: a model of columns, or one of tensors, as its file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.serve import fakes, tensor_fakes


def load(folder: Path) -> Any:
    """The model of a folder."""
    kind: Any = tensor_fakes if '"batchable"' in (folder / "model.json").read_text() else fakes
    return kind.load(folder)
