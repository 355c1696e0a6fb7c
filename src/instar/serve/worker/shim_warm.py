"""The warm process of an environment that is not ours, while a server runs: it imports what its models name, and is forked.

Loaded by its path by `shim.py`, and like that of the standard library alone: nothing of ours is installed where it runs.
"""

# ruff: noqa: B905, UP035 (as `shim.py`)
from __future__ import annotations

import contextlib
import importlib
import json
import os
import pathlib
import pickletools
import signal
import socket
import warnings
from typing import Any, Callable

# Libraries that may be imported before a fork: they begin no threads until they compute.
FORKABLE = frozenset(
    {"numpy", "scipy", "sklearn", "pandas", "polars", "pyarrow", "joblib", "xgboost", "lightgbm", "torch"}
)

_seen: set[str] = set()


def be_warm(line: socket.socket, serve: Callable[[socket.socket], object], part: Callable[[str], Any]) -> None:
    """Be the process from which those of this environment are forked, until the root closes the line.

    Args:
        serve: What a forked process does with the line to its worker.
        part: Loads another file of `serve` by its place.
    """
    zygote = part("processes/zygote")

    def begin(arguments: list[str], fds: list[int]) -> None:
        zygote.call_process("instar shim")
        os.environ["INSTAR_WORKER"] = arguments[arguments.index("--socket") + 1]  # see `leftovers`
        if "--threads" in arguments:
            part("processes/threads").limit(int(arguments[arguments.index("--threads") + 1]))
        _enclose(part("processes/fence"), arguments)
        serve(socket.socket(fileno=fds[0]))

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is for the root
    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork.*", category=DeprecationWarning)
    zygote.call_process("instar warm env")
    zygote.serve(line, begin, warm=_warm, adopted=True)


def _enclose(fence: Any, arguments: list[str]) -> None:
    """In a forked process: go behind the fence of the worker that it belongs to."""
    if not fence.wanted():
        return
    said = dict(zip(arguments[::2], arguments[1::2]))
    store, scratch, bundle = (pathlib.Path(said[name]) for name in ("--store", "--scratch", "--bundle"))
    fence.around_model(store, scratch, bundle, said["--environment"])


def _warm(arguments: list[str]) -> None:
    """Import what the bundle of a worker to come will ask for, as far as a fork bears it."""
    folder = arguments[arguments.index("--bundle") + 1]
    if folder in _seen:
        return
    _seen.add(folder)
    with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
        form = json.load(file).get("form")
    named = {form} & FORKABLE
    with contextlib.suppress(OSError, ValueError), open(os.path.join(folder, "native.pickle"), "rb") as pickled:
        for opcode, argument, _ in pickletools.genops(pickled.read()):
            if isinstance(argument, str):  # STACK_GLOBAL takes its module from a text before it
                text = argument.partition(" ")[0] if opcode.name == "GLOBAL" else argument
                if text.partition(".")[0] in FORKABLE and text.replace(".", "").isidentifier():
                    named.add(text)
    for name in sorted(named):
        with contextlib.suppress(Exception):  # what cannot be imported is said where it is needed
            importlib.import_module(name)
