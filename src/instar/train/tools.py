"""The programs that build environments: `uv` where there is one, and interpreters of Python by their version."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path


def uv() -> str | None:
    """The path of `uv`: beside this interpreter, else on the path; None without one."""
    beside = Path(sys.executable).with_name("uv")
    if beside.is_file():
        return str(beside)
    if importlib.util.find_spec("uv") is not None:
        from uv import find_uv_bin

        try:
            return str(find_uv_bin())
        except FileNotFoundError:
            pass
    return shutil.which("uv")


def environment() -> dict[str, str]:
    """Variables for `uv` and `pip`: they see nothing of this process's own environment, and fetch no interpreter."""
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
    }
    return {**inherited, "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def interpreter(version: str) -> str | None:
    """An interpreter of that version, e.g. `"3.11.9"`, or of another patch of the same minor version.

    Never that of a virtual environment: what is built from it must not see another's packages.
    """
    running = "{}.{}.{}".format(*sys.version_info[:3])
    own = str(getattr(sys, "_base_executable", sys.executable))
    if version == running:
        return own
    minor = ".".join(version.split(".")[:2])
    for wanted in (version, minor):
        found = _find(wanted)
        if found is not None:
            return found
    return own if running.startswith(f"{minor}.") else None


def _find(version: str) -> str | None:
    tool = uv()
    if tool is None:
        return shutil.which(f"python{version}")
    command = [tool, "python", "find", "--system", "--no-project", version]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment())
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
