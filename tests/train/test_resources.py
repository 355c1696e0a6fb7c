"""Resource use: what the system tells becomes metrics, rates are differences over time, what it hides is left out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from instar.train import resources
from instar.train.resources import Gauge


@pytest.fixture
def gauge(monkeypatch: pytest.MonkeyPatch) -> Gauge:
    monkeypatch.setattr(resources.shutil, "which", lambda name: None)
    times = iter(range(100, 200, 10))
    return Gauge(monotonic=lambda: float(next(times)))


def test_processor_memory_and_disk_are_read(gauge: Gauge) -> None:
    found = gauge.read()
    assert {
        "system/cpu_percent",
        "system/process_cpu_percent",
        "system/memory_percent",
        "system/process_memory_mb",
    } <= set(found)
    assert found["system/process_memory_mb"] > 1
    assert 0 <= found["system/memory_percent"] <= 100


def test_rates_are_differences_over_time(gauge: Gauge, monkeypatch: pytest.MonkeyPatch) -> None:
    read = iter([1_000_000, 51_000_000])
    monkeypatch.setattr(
        gauge._psutil, "disk_io_counters", lambda: SimpleNamespace(read_bytes=next(read), write_bytes=0)
    )
    monkeypatch.setattr(gauge._psutil, "net_io_counters", lambda: None)
    assert not any(name.endswith("_mb_s") for name in gauge.read())
    assert gauge.read()["system/disk_read_mb_s"] == 5.0


def test_what_a_container_hides_is_left_out(gauge: Gauge, monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(*_: Any) -> None:
        raise PermissionError("/proc/stat")

    monkeypatch.setattr(gauge._psutil, "cpu_percent", hidden)
    monkeypatch.setattr(gauge._psutil, "disk_io_counters", hidden)
    found = gauge.read()
    assert "system/cpu_percent" not in found
    assert "system/memory_percent" in found


def test_graphics_processors_are_asked_through_their_tool(gauge: Gauge, monkeypatch: pytest.MonkeyPatch) -> None:
    gauge._gpu = "nvidia-smi"
    answer = SimpleNamespace(stdout="55, 1024, 4096, [N/A], 60\n7, 1, 2, 3, 4\nno such line\n")
    monkeypatch.setattr(resources.subprocess, "run", lambda *_, **__: answer)
    found = gauge.read()
    assert found["system/gpu0_percent"] == 55
    assert found["system/gpu0_memory_percent"] == 25
    assert "system/gpu0_watts" not in found
    assert found["system/gpu1_celsius"] == 4


def test_a_tool_that_hangs_is_not_asked_again(gauge: Gauge, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def hangs(*_: Any, **__: Any) -> None:
        asked.append(1)
        raise resources.subprocess.TimeoutExpired("nvidia-smi", 5)

    gauge._gpu = "nvidia-smi"
    monkeypatch.setattr(resources.subprocess, "run", hangs)
    gauge.read()
    gauge.read()
    assert asked == [1]
