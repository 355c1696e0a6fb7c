"""How many threads and processors a process that answers with a model has, when it is begun.

A call has few rows, and such a process shares the machine with gateways and with others of its kind. Pools of as many threads
as there are processors then mostly wait for each other: two pools on two processors made trees thirty times slower. So
it is one thread by default; `INSTAR_MODEL_THREADS` says another number, and so does a library's own variable for that library.
A version that says how many it may use is held to that by the system, too.

Of the standard library alone: shims in environments that are not ours load it by its path.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping

SETTING = "INSTAR_MODEL_THREADS"
_ALL = "OMP_NUM_THREADS"  # which most of the others follow where they are not set
VARIABLES = (
    _ALL, "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS",
    "POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "LOKY_MAX_CPU_COUNT",
)  # fmt: skip


def bounded(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables for a process to come.

    Args:
        environment: What it would have else; by default our own.
    """
    found = dict(os.environ if environment is None else environment)
    count = found.get(SETTING, "").strip() or found.get(_ALL, "").strip() or "1"
    for name in VARIABLES:
        found.setdefault(name, count)
    # A thread that waits for work sleeps, and does not take the processor from who has some.
    found.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return found


def limit(most: int) -> None:
    """Have this process, and all that it starts, use so many processors at most.

    Libraries that are loaded later read how many threads that is. One that a fork brought has its number already: its threads
    share these processors. Which they are is drawn, so that versions do not all meet on the first.
    """
    for name in VARIABLES:
        os.environ[name] = str(most)
    if hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))
        if most < len(mine):
            os.sched_setaffinity(0, random.sample(mine, most))
