"""Processes that answer with models have few threads, unless somebody says how many."""

from __future__ import annotations

from instar.serve.processes.threads import bounded


def test_it_is_one_thread_unless_somebody_says_another_number() -> None:
    nothing = bounded({"PATH": "/bin"})
    assert nothing["PATH"] == "/bin"
    assert {nothing[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")} == {"1"}
    said = bounded({"INSTAR_MODEL_THREADS": "4", "MKL_NUM_THREADS": "2"})
    assert (said["OMP_NUM_THREADS"], said["MKL_NUM_THREADS"]) == ("4", "2")
    assert bounded({"OMP_NUM_THREADS": "3"})["OPENBLAS_NUM_THREADS"] == "3"
    assert bounded({"INSTAR_MODEL_THREADS": "4", "OMP_NUM_THREADS": "3"})["OMP_NUM_THREADS"] == "3"
