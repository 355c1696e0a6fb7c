"""Resource use of a run over time: processor, memory, disk, network and graphics processors, as metrics beside the run's own.

    for name, value in Gauge().read().items(): ...        # system/cpu_percent 87.5

Names begin with `system/`. Rates are means since the reading before; a gauge's first reading has no rates.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

MEGABYTE = 1_000_000.0
PREFIX = "system/"
ASK_SECONDS = 5.0  # for nvidia-smi
_GPU_FIELDS = "utilization.gpu,memory.used,memory.total,power.draw,temperature.gpu"


class Gauge:
    """Reads what this process and its machine use.

    Args:
        monotonic: The clock of rates, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        import psutil

        self._psutil: Any = psutil
        self._process = psutil.Process()
        self._monotonic = monotonic
        self._before: tuple[float, dict[str, float]] | None = None
        self._gpu = shutil.which("nvidia-smi")
        psutil.cpu_percent(None)  # the first asking only begins to count
        self._process.cpu_percent(None)

    def read(self) -> dict[str, float]:
        """Values by metric, each with its unit in the name; what the system does not tell is left out."""
        found: dict[str, float] = {}
        for part in (self._processor, self._memory, self._rates, self._graphics):
            try:
                found.update(part())
            except (OSError, ValueError, AttributeError, self._psutil.Error):
                continue  # a container may hide any of them
        return {f"{PREFIX}{name}": value for name, value in found.items()}

    def _processor(self) -> dict[str, float]:
        return {
            "cpu_percent": float(self._psutil.cpu_percent(None)),
            "process_cpu_percent": float(self._process.cpu_percent(None)),
        }

    def _memory(self) -> dict[str, float]:
        memory = self._psutil.virtual_memory()
        return {
            "memory_percent": float(memory.percent),
            "process_memory_mb": self._process.memory_info().rss / MEGABYTE,
            "disk_percent": float(self._psutil.disk_usage(".").percent),
        }

    def _rates(self) -> dict[str, float]:
        now, counts = self._monotonic(), self._counts()
        before, self._before = self._before, (now, counts)
        if before is None or now <= before[0]:
            return {}
        seconds = now - before[0]
        return {f"{name}_mb_s": (counts[name] - before[1].get(name, 0.0)) / MEGABYTE / seconds for name in counts}

    def _counts(self) -> dict[str, float]:
        counts: dict[str, float] = {}
        disk = self._psutil.disk_io_counters()
        if disk is not None:
            counts |= {"disk_read": float(disk.read_bytes), "disk_written": float(disk.write_bytes)}
        network = self._psutil.net_io_counters()
        if network is not None:
            counts |= {"network_received": float(network.bytes_recv), "network_sent": float(network.bytes_sent)}
        return counts

    def _graphics(self) -> dict[str, float]:
        if self._gpu is None:
            return {}
        command = [self._gpu, f"--query-gpu={_GPU_FIELDS}", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            self._gpu = None  # it hangs: ask no more
            return {}
        return graphics(done.stdout)


def graphics(text: str) -> dict[str, float]:
    """Metrics of each graphics processor from what nvidia-smi prints: use, memory, memory in all, power, temperature.

    >>> graphics("55, 1024, 4096, 71.5, 60")
    {'gpu0_percent': 55.0, 'gpu0_memory_percent': 25.0, 'gpu0_watts': 71.5, 'gpu0_celsius': 60.0}
    """
    found: dict[str, float] = {}
    for number, line in enumerate(text.strip().splitlines()):
        values = [_number(word) for word in line.split(",")]
        if len(values) != 5:
            continue
        use, used, memory, watts, celsius = values
        share = 100.0 * used / memory if used is not None and memory else None
        named = {"percent": use, "memory_percent": share, "watts": watts, "celsius": celsius}
        found |= {f"gpu{number}_{name}": value for name, value in named.items() if value is not None}
    return found


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None  # "[N/A]": this card does not tell
