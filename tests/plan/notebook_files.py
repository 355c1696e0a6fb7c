"""Notebooks of a few lines, for tests."""

from __future__ import annotations

import json
from typing import Any


def notebook_file(*cells: tuple[str, ...] | str, outputs: list[Any] | None = None, count: int | None = None) -> str:
    """The text of a notebook: each cell is its source, or its source followed by its tags; markdown begins with `#md`."""
    found = []
    for number, cell in enumerate(cells):
        source, *tags = (cell,) if isinstance(cell, str) else cell
        metadata = {"tags": tags} if tags else {}
        if source.startswith("#md"):
            found.append({"cell_type": "markdown", "metadata": metadata, "source": source})
            continue
        found.append(
            {
                "cell_type": "code",
                "metadata": metadata,
                "source": source.splitlines(keepends=True) if number % 2 else source,  # both are allowed
                "outputs": outputs or [],
                "execution_count": count,
            }
        )
    return json.dumps(
        {
            "cells": found,
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python"}},
            "nbformat": 4,
            "nbformat_minor": 4,
        }
    )
