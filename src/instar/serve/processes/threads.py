"""How many processors a version's processes use at most, when one begins: set before its model is loaded, held by the system.

Of the standard library alone: shims in environments that are not ours load it by its path.
"""

from __future__ import annotations

import os
import random

VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS", "LOKY_MAX_CPU_COUNT",
)  # fmt: skip


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
