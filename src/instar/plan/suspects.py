"""What cannot be followed in a step's code when a run is planned: computed names, files, the network, the clock, chance.

A list of suspects, not a proof: each is named by `instar why`, so that its user can declare it (`files`, `variables`) or
do without it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from instar.plan.scopes import walk

_COMPUTED = frozenset({"eval", "exec", "compile", "__import__", "globals", "import_module"})
_FILES = frozenset({"open", "read_text", "read_bytes", "loadtxt", "genfromtxt", "fromfile", "memmap"})
_FILE_PREFIXES = ("read_", "scan_")
_VARIABLES = ("os.environ", "os.getenv")
_VARIABLE_NAMES = ("environ", "getenv")
_NETWORK = frozenset({"requests", "httpx", "urllib", "socket", "boto3", "ftplib", "smtplib", "aiohttp"})
_PROCESSES = frozenset({"subprocess"})
_CLOCK = frozenset({"now", "utcnow", "today"})
_CLOCK_OF_TIME = frozenset({"time.time", "time.time_ns", "time.monotonic", "time.perf_counter"})
_CHANCE = frozenset({"random", "secrets"})
FILES, VARIABLES = "reads a file", "reads a variable"


def suspects(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and description of each place in a function, class or statement that cannot be followed."""
    for part in walk(node):
        kind = type(part)
        if kind is ast.Call:
            what = _of_call(part)  # type: ignore[arg-type]
        elif kind is ast.Attribute:
            written = dotted(part)  # type: ignore[arg-type]
            what = f"{VARIABLES} with {written}" if written in _VARIABLES else ""
        elif kind is ast.Name and part.id in _VARIABLE_NAMES:  # type: ignore[attr-defined]
            what = f"{VARIABLES} with {part.id}"  # type: ignore[attr-defined]
        else:
            continue
        if what:
            yield getattr(part, "lineno", 0), what


def dotted(node: ast.expr) -> str:
    """`a.b.c` as written; what is not a name stands as nothing, so that `f().read_text` is `.read_text`."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    names.append(node.id if isinstance(node, ast.Name) else "")
    return ".".join(reversed(names))


def _of_call(call: ast.Call) -> str:
    written = dotted(call.func)
    head, _, _ = written.partition(".")
    last = written.rpartition(".")[2]
    if last in ("getattr", "setattr", "hasattr") and len(call.args) > 1 and not isinstance(call.args[1], ast.Constant):
        return f"{last} on a computed name"
    if (last in _COMPUTED and last != "compile") or written == "compile":
        return f"runs what it computes, with {written}"
    if last == "run_cell_magic":
        return f"runs what it cannot read, with %%{ast.literal_eval(call.args[0])}" if call.args else ""
    if last in ("system", "getoutput", "popen"):
        return f"starts a program with {written.lstrip('.')}"
    if written == "open" and _writes(call):
        return ""
    if last in _FILES or last.startswith(_FILE_PREFIXES):
        return f"{FILES} with {written.lstrip('.')}"
    if head in _NETWORK:
        return f"uses the network with {written}"
    if head in _PROCESSES:
        return f"starts a program with {written}"
    if written in _CLOCK_OF_TIME or (last in _CLOCK and ("date" in head or "date" in written) and len(call.args) < 2):
        return f"reads the clock with {written}"
    if (head in _CHANCE and "." in written) or (last == "default_rng" and not call.args and not call.keywords):
        return f"draws at random with {written}, without a seed that is seen here"
    return ""


def _writes(call: ast.Call) -> bool:
    """Does an `open` only write?"""
    modes = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "mode")]
    return any(isinstance(one, ast.Constant) and str(one.value).rstrip("bt") in ("w", "x", "a") for one in modes)
