"""How many threads numeric libraries have in a process that answers with a model, when it is begun.

A call has few rows, and such a process shares the machine with gateways and with others of its kind. Pools of as many threads
as there are processors then mostly wait for each other: two pools on two processors made trees thirty times slower. So
it is one thread by default; `INSTAR_MODEL_THREADS` says another number, and so does a library's own variable for that library.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

SETTING = "INSTAR_MODEL_THREADS"
_ALL = "OMP_NUM_THREADS"  # which most of the others follow where they are not set
_VARIABLES = (
    _ALL, "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS",
    "POLARS_MAX_THREADS",
)  # fmt: skip


def bounded(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables for such a process.

    Args:
        environment: What it would have else; by default our own.
    """
    found = dict(os.environ if environment is None else environment)
    count = found.get(SETTING, "").strip() or found.get(_ALL, "").strip() or "1"
    for name in _VARIABLES:
        found.setdefault(name, count)
    # A thread that waits for work sleeps, and does not take the processor from who has some.
    found.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return found
