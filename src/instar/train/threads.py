"""How many threads numeric libraries may use: written down before a run, and set again when it is repeated.

Sums over several threads are added up in another order than over one, so the last digits of a model may depend on it.
The variables count first; where none is set the libraries take every processor that the process may use.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from instar.train.hardware import usable_cores

# Variables by which the number of threads, or the order of their sums, is set.
VARIABLES = (
    "OMP_NUM_THREADS", "OMP_DYNAMIC", "OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DYNAMIC", "MKL_CBWR",
    "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS", "LOKY_MAX_CPU_COUNT",
)  # fmt: skip
# Those that stand for "as many as there are processors" where nothing is set.
_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT")


class Threads(msgspec.Struct, frozen=True):
    """How many threads there were to be.

    Attributes:
        usable: Processors that the process may run on.
        variables: Values of those `VARIABLES` that were set.
        pools: Threads of each pool that was loaded by then, by library, and the kernels that BLAS chose; empty when
            `threadpoolctl` had not been imported.
        torch: Threads of PyTorch, where it had been imported.
    """

    usable: int
    variables: dict[str, str] = {}
    pools: dict[str, str] = {}
    torch: int | None = None


def capture() -> Threads:
    """The threads that this process may use now."""
    set_ = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    torch: Any = sys.modules.get("torch")
    threads = int(torch.get_num_threads()) if hasattr(torch, "get_num_threads") else None
    return Threads(usable_cores(), set_, _pools(), threads)


def variables_for(recorded: Threads) -> dict[str, str | None]:
    """Variables that give a new process the recorded number of threads; None: not set.

    Where the count followed the number of processors and this machine has another one, it is set outright.
    """
    found: dict[str, str | None] = {name: recorded.variables.get(name) for name in VARIABLES}
    if recorded.usable != usable_cores():
        for name in _COUNTS:
            found[name] = found[name] or str(recorded.usable)
    return found


def differences(recorded: Threads, found: Threads) -> dict[str, tuple[Any, Any]]:
    """What differs, by name; a pool counts only when it was loaded both times."""
    pairs: dict[str, tuple[Any, Any]] = {"usable processors": (recorded.usable, found.usable)}
    for name in VARIABLES:
        pairs[name] = (recorded.variables.get(name), found.variables.get(name))
    for name in recorded.pools.keys() & found.pools.keys():
        pairs[f"threads of {name}"] = (recorded.pools[name], found.pools[name])
    if recorded.torch is not None and found.torch is not None:
        pairs["threads of torch"] = (recorded.torch, found.torch)
    if _same_count(recorded, found):
        for name in _COUNTS:  # said in another way, or left to the number of processors
            pairs.pop(name, None)
    return {name: pair for name, pair in sorted(pairs.items()) if pair[0] != pair[1]}


def _same_count(recorded: Threads, found: Threads) -> bool:
    def counts(threads: Threads) -> list[str]:
        return [threads.variables.get(name) or str(threads.usable) for name in _COUNTS]

    return counts(recorded) == counts(found)


def _pools() -> dict[str, str]:
    control = sys.modules.get("threadpoolctl")
    if control is None:
        return {}
    found: list[Mapping[str, Any]] = control.threadpool_info()
    return {
        f"{one['internal_api']} ({one['prefix']})": f"{one['num_threads']}{_kernels(one)}"
        for one in sorted(found, key=lambda one: str(one["filepath"]))
    }


def _kernels(pool: Mapping[str, Any]) -> str:
    return f" {pool['architecture']}" if pool.get("architecture") else ""
