"""Starting is quick because nothing heavy is imported before it is needed, and the public names are the promised ones."""

from __future__ import annotations

import subprocess
import sys

import instar

HEAVY = (
    "polars",
    "numpy",
    "sqlalchemy",
    "pyarrow",
    "deltalake",
    "sklearn",
    "pandas",
    "rich",
    "starlette",
    "uvicorn",
    "httpx",
)


def _loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sorted(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(done.stdout.split("\n")[-2].split())


def test_importing_instar_loads_no_heavy_library() -> None:
    assert not _loaded_after("import instar") & set(HEAVY)


def test_help_loads_no_heavy_library() -> None:
    code = "from instar.interfaces.cli.main import cli; cli.main(['--help'], standalone_mode=False)"
    assert not _loaded_after(code) & set(HEAVY)


def test_the_pipeline_s_decorators_load_no_heavy_library() -> None:
    assert not _loaded_after("from instar import baseline, check, gold, model, silver, source") & set(HEAVY)


def test_every_public_name_is_there_and_no_other() -> None:
    assert sorted(instar.__all__) == sorted(instar._HOMES)
    for name in instar.__all__:
        assert getattr(instar, name) is not None
