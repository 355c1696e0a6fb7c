"""Seeds of chance: set before a user's function is called, and written down, so that the same run draws the same numbers.

`random` and NumPy are seeded at once. PyTorch is seeded when it is there, and else in the moment in which the function
imports it: importing it for everybody would cost seconds. What draws from a generator of its own, or from the operating
system, is beyond this; `instar reproduce` then finds that two runs differ.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import random
import sys
import types
from collections.abc import Sequence
from typing import Any

import msgspec


class Seeds(msgspec.Struct, frozen=True):
    """How chance was set.

    Attributes:
        seed: Set for `random`, NumPy and PyTorch before the function; None: nobody set one.
        hash_seed: `PYTHONHASHSEED`, by which sets of texts are ordered; `"random"` when each process has its own.
        torch: Flags of PyTorch that decide whether its kernels repeat; None where it had not been imported.
        cublas: `CUBLAS_WORKSPACE_CONFIG`, without which sums on CUDA may not repeat.
    """

    seed: int | None
    hash_seed: str
    torch: dict[str, bool] | None = None
    cublas: str | None = None


def capture(seed: int | None = None) -> Seeds:
    """How chance stands in this process, given the seed that is about to be planted."""
    hash_seed = os.environ.get("PYTHONHASHSEED", "random") if sys.flags.hash_randomization else "0"
    return Seeds(seed, hash_seed, _flags(sys.modules.get("torch")), os.environ.get("CUBLAS_WORKSPACE_CONFIG"))


def plant(seed: int) -> None:
    """Seed `random`, NumPy and PyTorch; PyTorch as soon as it is imported, if it is not yet."""
    random.seed(seed)
    import numpy as np

    np.random.seed(seed % 2**32)
    torch = sys.modules.get("torch")
    for old in [one for one in sys.meta_path if isinstance(one, _Waiting)]:
        sys.meta_path.remove(old)
    if hasattr(torch, "manual_seed"):
        _seed_torch(torch, seed)
    else:
        sys.meta_path.insert(0, _Waiting(seed))


def _seed_torch(torch: Any, seed: int) -> None:
    torch.manual_seed(seed)  # of every device: CUDA's too, now or when it is first used


def _flags(torch: Any) -> dict[str, bool] | None:
    if not hasattr(torch, "are_deterministic_algorithms_enabled"):
        return None
    cudnn = torch.backends.cudnn
    return {
        "deterministic": bool(torch.are_deterministic_algorithms_enabled()),
        "cudnn_deterministic": bool(cudnn.deterministic),
        "cudnn_benchmark": bool(cudnn.benchmark),
        "cuda": bool(torch.cuda.is_available()),
    }


class _Waiting(importlib.abc.MetaPathFinder):
    """Waits for the import of PyTorch, and seeds it when its module is complete."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        spec.loader = _Seeding(spec.loader, self.seed)
        return spec


class _Seeding(importlib.abc.Loader):
    """PyTorch's own loader, and the seed after it."""

    def __init__(self, loader: Any, seed: int) -> None:
        self._loader = loader
        self._seed = seed

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        made: types.ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: types.ModuleType) -> None:
        # The module's own loader from here on: what asks it for its source or its files is answered.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _seed_torch(module, self._seed)
