"""The check that holds documents to the code finds each kind of fault, and nothing in a house that is in order."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[2]
MAIN = '''"""The command."""
import click
COMMANDS: dict[str, tuple[str, str]] = {"run": ("plan", "Run."), "why": ("plan", "Say why.")}
'''
PLAN = '''"""Commands of planning."""
import click
@click.option("-S", "--set", "given", help="x")
@click.option("--json/--no-json")
def run(): ...
'''
README = """# House

`instar run` takes `--set`, `--json` and `--no-json`; `instar why` takes nothing. See [more](docs/more.md#a-part) and
[the web](https://example.com/none).

```
src/instar/
```
"""


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("documents_check", REPOSITORY / "docs" / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def house(tmp_path: Path, check: ModuleType) -> Path:
    """A small repository in order."""
    for name, text in {
        "README.md": README,
        "docs/more.md": "# More\n\n## A part\n",
        "src/instar/__init__.py": '"""The house."""\n',
        "src/instar/core/__init__.py": '"""The ground floor."""\n',
        "src/instar/core/ids.py": '"""Names of records."""\n',
        "src/instar/interfaces/cli/__init__.py": '"""The command line."""\n',
        "src/instar/interfaces/cli/main.py": MAIN,
        "src/instar/interfaces/cli/plan.py": PLAN,
        "src/instar/interfaces/__init__.py": '"""The rim."""\n',
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    check.renew_tree(tmp_path)
    return tmp_path


def test_a_house_in_order_has_no_faults(house: Path, check: ModuleType) -> None:
    assert list(check.problems(house)) == []
    assert "    ids.py                 Names of records" in (house / "README.md").read_text().splitlines()


def _replace(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def _break_link(house: Path) -> None:
    _replace(house / "README.md", "docs/more.md#a-part", "docs/less.md")


def _break_heading(house: Path) -> None:
    _replace(house / "docs/more.md", "A part", "Another part")


def _forget_command(house: Path) -> None:
    _replace(house / "README.md", "`instar why` takes nothing", "that is all")


def _forget_option(house: Path) -> None:
    _replace(house / "README.md", "`--json` and `--no-json`", "`--no-json`")


def _add_module(house: Path) -> None:
    (house / "src/instar/core/clock.py").write_text('"""Time."""\n')


def _remove_module(house: Path) -> None:
    (house / "src/instar/core/ids.py").unlink()


def _add_folder(house: Path) -> None:
    (house / "src/instar/cellar").mkdir()
    (house / "src/instar/cellar/wine.py").write_text('"""Wine."""\n')


def _say_nothing(house: Path) -> None:
    (house / "src/instar/core/ids.py").write_text("import os\n")


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (_break_link, "README.md: dead link docs/less.md"),
        (_break_heading, "README.md: docs/more.md#a-part names a heading that is not there"),
        (_forget_command, "docs: the command `instar why` is mentioned nowhere"),
        (_forget_option, "docs: the option --json of plan.py is mentioned nowhere"),
        (_add_module, "README.md: the tree misses src/instar/core/clock.py"),
        (_remove_module, "README.md: the tree lists src/instar/core/ids.py, which is not there"),
        (_add_folder, "src/instar/cellar: docs/check.py does not know where this folder stands in the life cycle"),
        (_say_nothing, "src/instar/core/ids.py: the module has no first line that says what it is for"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_kind_of_fault_is_one_clear_line(house: Path, check: ModuleType, fault, line: str) -> None:  # type: ignore[no-untyped-def]
    fault(house)
    assert line in list(check.problems(house))
