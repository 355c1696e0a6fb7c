"""The machine on which a run is made, read from the operating system before the run's first line of user code runs.

Results of floating point depend on it: on the vector instructions of the processor, the number of cores that work is
shared between, and the graphics processor. Nothing heavy is imported and no program is called; on Linux all is in /proc.
"""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

import msgspec

# Instructions which numeric libraries choose their kernels by: another choice sums in another order.
_CHOOSING = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512vl", "avx512_bf16", "amx_tile", "asimd", "sve", "sve2")
_NVIDIA = Path("/proc/driver/nvidia")


class Hardware(msgspec.Struct, frozen=True):
    """A machine.

    Attributes:
        processor: The model's name, e.g. `"AMD EPYC 7763"`; the architecture where nothing better is known.
        instructions: Vector instructions that it has, of those which numeric libraries choose by.
        cores: Logical processors of the machine; `usable` of them by this process.
        memory: Bytes.
        gpus: Models of its graphics processors; `driver` is their driver's version.
    """

    processor: str
    instructions: tuple[str, ...]
    cores: int
    usable: int
    memory: int
    gpus: tuple[str, ...] = ()
    driver: str | None = None


def capture() -> Hardware:
    """This machine, as this process may use it."""
    processor, instructions = _processor()
    gpus, driver = _graphics()
    return Hardware(processor, instructions, os.cpu_count() or 1, usable_cores(), _memory(), gpus, driver)


def usable_cores() -> int:
    """Logical processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _processor() -> tuple[str, tuple[str, ...]]:
    name, flags = "", set[str]()
    for line in _lines(Path("/proc/cpuinfo")):
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = set(value.split())
        elif not line.strip() and name:
            break  # the first processor speaks for all
    return name or platform.processor() or platform.machine(), tuple(one for one in _CHOOSING if one in flags)


@functools.cache
def _memory() -> int:
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


@functools.cache
def _graphics() -> tuple[tuple[str, ...], str | None]:
    if not _NVIDIA.is_dir():
        return (), None
    models = []
    for card in sorted(_NVIDIA.glob("gpus/*/information")):
        models += [line.partition(":")[2].strip() for line in _lines(card) if line.startswith("Model:")]
    first = next(iter(_lines(_NVIDIA / "version")), "")
    version = next((word for word in first.split() if word[:1].isdigit() and "." in word), None)
    return tuple(models), version


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
