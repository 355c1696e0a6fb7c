"""Building a virtual environment from a hashed lock: by `uv` with links from its cache, else by `venv` and pip.

`uv` is asked first without the network: with all in its cache, building takes a quarter of a second. Only then is the
index asked, as the user's own settings of `uv` or pip name it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from instar.core.errors import Blocked
from instar.train import tools

SECONDS = 1800.0  # a large environment over a slow line
_LAST_LINES = 6


def install(place: Path, base: str, requirements: Path, *, whole: bool) -> str:
    """Build an environment at `place`; returns by what, `"uv"` or `"pip"`.

    Args:
        base: The interpreter that it is made of.
        requirements: The lock's text.
        whole: Every distribution has a hash, so that one without is refused.

    Raises:
        Blocked: A distribution is not to be had, or is not the one that the lock's hash names.
    """
    uv = tools.uv()
    if uv is None:
        _by_pip(place, base, requirements)
        return "pip"
    _call([uv, "venv", "--quiet", "--no-project", "--python", base, str(place)], place)
    sync = [uv, "pip", "sync", "--quiet", "--allow-empty-requirements", "--python", str(place / "bin" / "python")]
    sync += ["--require-hashes"] if whole else []
    if _tried([*sync, "--offline", str(requirements)], place) is not None:
        _call([*sync, str(requirements)], place)
    return "uv"


def _by_pip(place: Path, base: str, requirements: Path) -> None:
    _call([base, "-m", "venv", str(place)], place)
    lines = requirements.read_text("utf-8").splitlines()
    # pip asks a hash of all as soon as one has one.
    for name, chosen, asked in (
        ("hashed.txt", [line for line in lines if "--hash=" in line], ["--require-hashes"]),
        ("unhashed.txt", [line for line in lines if "--hash=" not in line], []),
    ):
        if chosen:
            file = requirements.with_name(name)
            file.write_text("\n".join(chosen) + "\n", "utf-8")
            python = str(place / "bin" / "python")
            _call([python, "-m", "pip", "install", "--quiet", "--no-deps", *asked, "-r", str(file)], place)


def _call(command: list[str], place: Path) -> None:
    said = _tried(command, place)
    if said is not None:
        raise Blocked(
            "the environment cannot be built here", subject=f"environment {place.parent.name[:8]}",
            found="; ".join(line.strip() for line in said.splitlines() if line.strip()),
            next_step="See that the index can be reached, or that the cache has it; or use the running one: --here.",
        )  # fmt: skip


def _tried(command: list[str], place: Path) -> str | None:
    """Why it failed, in its last words; None when it did not."""
    place.parent.mkdir(parents=True, exist_ok=True)
    variables = tools.environment()
    if "UV_LINK_MODE" not in os.environ:
        variables["UV_LINK_MODE"] = "hardlink"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False, env=variables, cwd=place.parent
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}: {error}"
    if done.returncode == 0:
        return None
    return "\n".join((done.stderr or done.stdout).splitlines()[-_LAST_LINES:]) or f"status {done.returncode}"
