"""Holds the documents to the code: run by `./run check`, needs the standard library only.

Says, one line each, and fails when: a command or an option of the command line stands in no document; a relative link is
dead; README's tree misses a module or lists one that is not there; a module has no first line.

With `--write` it renews the tree in README from the modules' first lines.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# In the order of the life cycle, which the alphabet scrambles.
FOLDERS = (
    "core",
    "plan",
    "data",
    "train",
    "evaluate",
    "release",
    "serve",
    "serve/protocol",
    "serve/protocol/forms",
    "serve/clients",
    "serve/traffic",
    "serve/publishing",
    "serve/access",
    "serve/gateway",
    "serve/worker",
    "serve/worker/commands",
    "serve/log",
    "serve/processes",
    "serve/root",
    "operate",
    "adapters",
    "adapters/migrations",
    "interfaces",
    "interfaces/cli",
    "interfaces/sdk",
    "interfaces/api",
    "interfaces/mlflow",
    "interfaces/tuning",
    "interfaces/comparison",
    "interfaces/charts",
    "interfaces/console",
    "interfaces/demo",
)
LONGEST_LINE = 116  # characters of a line in the tree
COMMAND_LINE = "src/instar/interfaces/cli"


def main() -> int:
    """Print what is wrong; returns the exit status."""
    if "--write" in sys.argv:
        renew_tree(ROOT)
    found = sorted(problems(ROOT))
    for line in found:
        print(line)
    if found:
        print(f"docs/check.py: {len(found)} problems; the tree in README is renewed by: python docs/check.py --write")
    return 1 if found else 0


def problems(root: Path) -> Iterator[str]:
    """Everything that is wrong, each as `file: what`."""
    yield from dead_links(root)
    yield from undocumented(root)
    yield from unnamed_modules(root)
    yield from wrong_tree(root)


def documents(root: Path) -> list[Path]:
    """The documents for people."""
    return [*(file for file in sorted(root.glob("*.md"))), *sorted((root / "docs").rglob("*.md"))]


def dead_links(root: Path) -> Iterator[str]:
    """Relative links that lead nowhere, also to a heading that is not there."""
    for document in documents(root):
        text = _without_code(document.read_text("utf-8"))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, heading = target.partition("#")
            file = (document.parent / path).resolve() if path else document
            if not file.exists():
                yield f"{_name(root, document)}: dead link {target}"
            elif heading and file.suffix == ".md" and heading not in _anchors(file):
                yield f"{_name(root, document)}: {target} names a heading that is not there"


def undocumented(root: Path) -> Iterator[str]:
    """Commands and long options of the command line that no document mentions."""
    text = "\n".join(document.read_text("utf-8") for document in documents(root))
    for command in commands(root):
        if not re.search(rf"\binstar (?:--\S+ \S+ )?{re.escape(command)}\b", text):
            yield f"docs: the command `instar {command}` is mentioned nowhere"
    for file, option in options(root):
        if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text):
            yield f"docs: the option {option} of {file} is mentioned nowhere"


def commands(root: Path) -> list[str]:
    """The commands in the table of the command line's main file."""
    for node in _parsed(root / COMMAND_LINE / "main.py").body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "COMMANDS":
            assert isinstance(node.value, ast.Dict)
            return [ast.literal_eval(key) for key in node.value.keys if key is not None]
    raise LookupError("main.py has no table COMMANDS")


def options(root: Path) -> list[tuple[str, str]]:
    """Long options of all commands, with the file that declares them, as `--json`."""
    found: dict[str, str] = {}
    for file in sorted((root / COMMAND_LINE).glob("*.py")):
        for node in ast.walk(_parsed(file)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "option":
                for value in node.args:
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        names = re.findall(r"--[a-z][a-z0-9-]*", value.value)
                        found.update({name: file.name for name in names if name not in found})
    return [(file, name) for name, file in found.items()]


def unnamed_modules(root: Path) -> Iterator[str]:
    """Modules whose first line does not say what they are for."""
    for module in modules(root):
        if not first_line(root / module):
            yield f"{module}: the module has no first line that says what it is for"


def wrong_tree(root: Path) -> Iterator[str]:
    """Modules that the tree in README misses, and lines of it that stand for nothing."""
    wanted = _places(tree(root))
    printed = _places(_printed_tree((root / "README.md").read_text("utf-8").splitlines()))
    for place in wanted - printed:
        yield f"README.md: the tree misses src/instar/{place}"
    for place in printed - wanted:
        yield f"README.md: the tree lists src/instar/{place}, which is not there"
    folders = {str(module.parent.relative_to("src/instar")) for module in modules(root)} - {"."}
    for folder in sorted(folders - set(FOLDERS)):
        yield f"src/instar/{folder}: docs/check.py does not know where this folder stands in the life cycle"


def renew_tree(root: Path) -> None:
    """Write the tree as it is into README."""
    readme = root / "README.md"
    text = readme.read_text("utf-8")
    before = "\n".join(_printed_tree(text.splitlines()))
    readme.write_text(text.replace(before, "\n".join(tree(root))), "utf-8")


def _places(lines: list[str]) -> set[str]:
    """Paths below src/instar that the lines of a tree stand for, told by their indentation."""
    found, folders = set(), [""]
    for line in lines[1:]:
        depth = (len(line) - len(line.lstrip(" "))) // 2
        name = line.split()[0]
        folders[depth:] = [folders[depth - 1] + name]
        found.add(folders[depth])
    return found


def tree(root: Path) -> list[str]:
    """The house in the order of the life cycle, one line a file, from each module's first line."""
    here = Path("src/instar")
    lines = ["src/instar/"]
    for folder in FOLDERS:
        files = [file for file in modules(root) if file.parent == here / folder]
        if not files:
            continue
        depth = folder.count("/") + 1
        opening = here / folder / "__init__.py"
        lines.append(_line(depth, f"{folder.rsplit('/', 1)[-1]}/", first_line(root / opening)))
        lines += [_line(depth + 1, file.name, first_line(root / file)) for file in files if file != opening]
    top = [file for file in modules(root) if file.parent == here and file.name != "__init__.py"]
    return [*lines, *(_line(1, file.name, first_line(root / file)) for file in top)]


def _printed_tree(lines: list[str]) -> list[str]:
    start = next((place for place, line in enumerate(lines) if line == "src/instar/"), None)
    if start is None:
        return []
    end = next(place for place in range(start, len(lines)) if lines[place].startswith("```"))
    return lines[start:end]


def _line(depth: int, name: str, text: str) -> str:
    start = f"{'  ' * depth}{name}".ljust(26) + " "
    return start + _clause(text, LONGEST_LINE - len(start))


def _clause(text: str, length: int) -> str:
    """The beginning of a sentence up to its last clause that fits."""
    if len(text) <= length:
        return text
    ends = [match.start() for match in re.finditer(r"[:;,.]? (?=\w)|[:;,.] ", text[: length + 1])]
    whole = [end for end in ends if text[:end].count("(") == text[:end].count(")")]
    clauses = [end for end in whole if text[end] in ":;,." and end >= 24]
    return text[: clauses[-1]] if clauses else text[: ends[-1]] + " …"


def modules(root: Path) -> list[Path]:
    """Python files of the package, relative to the repository, without revisions of the database."""
    found = (root / "src" / "instar").rglob("*.py")
    kept = [file.relative_to(root) for file in found if "__pycache__" not in file.parts]
    return sorted(file for file in kept if "versions" not in file.parts and "template" not in file.parts)


def first_line(file: Path) -> str:
    """The first line of a module's docstring, or of its sentence if that goes on; empty without one."""
    if not file.exists():
        return ""
    text = ast.get_docstring(_parsed(file)) or ""
    sentence = " ".join(text.split("\n\n")[0].split())
    return sentence.rstrip(".")


def _anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+\s+(.+)$", _without_code(file.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), str(file))


def _name(root: Path, file: Path) -> str:
    return str(file.relative_to(root))


if __name__ == "__main__":
    sys.exit(main())
