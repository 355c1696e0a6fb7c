"""Installed distributions that a module belongs to, whose version counts in a step's key in place of their code."""

from __future__ import annotations

import functools
import importlib.metadata
import re
import sys
from importlib.metadata import Distribution

_TOP = re.compile(r"^([^/,\"\n]+)(?=[/,])", re.MULTILINE)


@functools.cache
def distributions_of(module: str) -> dict[str, str]:
    """Installed distributions that provide a module, with their versions; none for the standard library.

    Not by `importlib.metadata.packages_distributions`, which parses what every distribution says of itself: that takes
    longer than planning a thousand steps.
    """
    top = module.partition(".")[0]
    if not top or top in sys.stdlib_module_names or top == "__main__":
        return {}
    return _of_top(top)


@functools.cache
def _of_top(top: str) -> dict[str, str]:
    try:
        namesake = importlib.metadata.distribution(top)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        namesake = None
    # A package with an __init__.py has one owner; others may lie in the folder of a namespace.
    if namesake is not None and f"{top}/__init__.py," in (namesake.read_text("RECORD") or ""):
        return {namesake.name: namesake.version}
    found = {one.name: one.version for one in _installed().get(top, ())}
    if not found and namesake is not None:  # one that is installed in place may not list its files
        found = {namesake.name: namesake.version}
    return dict(sorted(found.items()))


@functools.cache
def _installed() -> dict[str, list[Distribution]]:
    """Every distribution on the path, by the modules that it brings."""
    found: dict[str, list[Distribution]] = {}
    for one in importlib.metadata.distributions():
        files = one.read_text("RECORD") or one.read_text("installed-files.txt") or ""
        tops = set((one.read_text("top_level.txt") or "").split())
        for top in _TOP.findall(files):
            tops.add(top.partition(".")[0] if top.endswith((".py", ".pyc", ".so", ".pyd")) else top)
        for top in tops:
            found.setdefault(top, []).append(one)
    return found
