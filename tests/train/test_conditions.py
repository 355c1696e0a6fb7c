from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from instar.core.store import Store
from instar.train import conditions, hardware, runs, seeds

TORCH = """
import sys
sys.random_calls = getattr(sys, "random_calls", [])
def manual_seed(seed):
    sys.random_calls.append(seed)
def get_num_threads():
    return 3
ORIGIN = __spec__.loader.__class__.__name__
"""


def test_the_machine_is_described_without_calling_anything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = hardware.capture()
    assert found.processor
    assert 1 <= found.usable <= found.cores
    assert found.memory > 100_000_000
    card = tmp_path / "gpus" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t\t NVIDIA H100\nIRQ:   \t\t 1\n")
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22\n")
    monkeypatch.setattr(hardware, "_NVIDIA", tmp_path)
    hardware._graphics.cache_clear()
    assert (hardware.capture().gpus, hardware.capture().driver) == (("NVIDIA H100",), "550.54.14")
    hardware._graphics.cache_clear()


def test_random_and_numpy_are_seeded_at_once() -> None:
    drawn = []
    for _ in range(2):
        seeds.plant(11)
        drawn.append((random.random(), float(np.random.random())))
    assert drawn[0] == drawn[1]
    seeds.plant(2**40 + 1)  # larger than NumPy takes


def test_torch_is_seeded_when_the_function_imports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text(TORCH)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(sys, "random_calls", [], raising=False)
    seeds.plant(5)
    seeds.plant(6)  # the next trial, before anybody imported it
    import torch

    assert sys.random_calls == [6]
    assert torch.__spec__.loader.__class__.__name__ == torch.ORIGIN == "SourceFileLoader"
    assert torch.__spec__.loader.get_source("torch") == TORCH
    seeds.plant(7)
    assert sys.random_calls == [6, 7]
    assert conditions.capture().threads.torch == 3
    assert not any(isinstance(one, seeds._Waiting) for one in sys.meta_path)
    del sys.modules["torch"]  # not by the patch, which would put it back for the tests that follow


def test_the_order_of_sets_is_on_the_record_when_it_was_set() -> None:
    code = "from instar.train import seeds; print(seeds.capture(3).hash_seed)"
    for value, expected in (("0", "0"), ("12", "12"), ("random", "random")):
        variables = {**os.environ, "PYTHONHASHSEED": value}
        done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_conditions_are_kept_once_and_hold_no_value_of_a_variable(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_OF_LAMPS", "very secret")
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    (tmp_path / "src").mkdir()
    about = conditions.capture(way="trial", seed=1, variables=["TOKEN_OF_LAMPS"], root=tmp_path)
    first, second = (runs.start(store, "p", experiment="e", conditions=about) for _ in range(2))
    assert first.conditions == second.conditions
    assert first.conditions is not None
    assert b"very secret" not in store.blobs.get(first.conditions)
    assert conditions.load(store.blobs, first.conditions) == about
    assert about.paths == ("src",)
    monkeypatch.setenv("TOKEN_OF_LAMPS", "another")
    assert conditions.capture(variables=["TOKEN_OF_LAMPS"]).variables != about.variables
