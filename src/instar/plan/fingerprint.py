"""The fingerprint of a step's code, taken when a run is planned: everything a function reaches, and nothing else.

Followed from the function: its own body, defaults and closure; functions and classes it names, in any project file, and
what those name in turn; decorators, partials and lambdas; the values of constants. Installed libraries count with their
version. Comments, docstrings and layout do not count. What cannot be followed is listed, so that it can be declared.

    found = fingerprint(step.function, root=project.root, sources=pipeline.sources)
    found.digest                                        # "b3:…", equal on all supported Pythons
    found.parts                                         # {"pipeline.clean_flights": "b3:…", "pipeline.LIMIT": "b3:…"}
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from instar.core.ids import digest_of
from instar.plan import sourcecode, suspects, values
from instar.plan.syntax import Reads, normal_text, reads_of


@dataclass(frozen=True)
class Fingerprint:
    """What a function's behaviour depends on.

    Attributes:
        digest: Of all parts.
        parts: Digest of each function, class and constant that it reaches, by dotted name.
        distributions: Version of each installed distribution that it reaches.
        unresolved: What could not be followed, and should be declared.
    """

    digest: str
    parts: Mapping[str, str] = field(default_factory=dict)
    distributions: Mapping[str, str] = field(default_factory=dict)
    unresolved: tuple[str, ...] = ()


def fingerprint(function: Callable[..., Any], *, root: Path, sources: Mapping[str, str] | None = None) -> Fingerprint:
    """Follow `function` and take the digest of all it reaches.

    Args:
        function: A function of the project.
        root: The project's folder.
        sources: Text of imported files, by path; others are read from the disk.
    """
    walk = _Walk(sourcecode.Sources(root, sources or {}))
    start = walk.callable_(function)
    parts = dict(sorted(walk.parts.items()))
    whole = digest_of({"start": start, "parts": parts})
    return Fingerprint(whole, parts, dict(sorted(walk.distributions.items())), tuple(sorted(walk.unresolved)))


# Python's own notes on a module: where it lies is not what it does.
_OF_THE_MODULE = frozenset({"__file__", "__path__", "__spec__", "__loader__", "__doc__", "__builtins__", "__package__"})


class _Walk:
    """One walk over all that a function reaches. A label names a thing where it is used; parts hold what it is."""

    def __init__(self, sources: sourcecode.Sources) -> None:
        self.sources = sources
        self.parts: dict[str, str] = {}
        self.distributions: dict[str, str] = {}
        self.unresolved: set[str] = set()
        self._labels: dict[int, str] = {}
        self._globals: dict[tuple[str, str], str] = {}
        self._open: set[int] = set()  # objects whose state is being read: a ring ends there
        self._alive: list[object] = []  # ids are keys above, so nothing seen may be freed

    # What is met: each method returns the label of a thing, and sees to it that its parts are taken.

    def callable_(self, value: Any) -> str:
        """A function, class, method, partial or wrapper of the project."""
        if id(value) in self._labels:
            return self._labels[id(value)]
        self._alive.append(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.MethodType):
            return f"method {self.callable_(value.__func__)} of {self.value(value.__self__)}"
        if isinstance(value, functools.partial):
            return f"partial {self.callable_(value.func)} {self.value(value.args)} {self.value(value.keywords)}"
        if isinstance(value, staticmethod | classmethod):
            return self.callable_(value.__func__)
        if hasattr(value, "__wrapped__"):  # functools.cache and its like, whose arguments stand in the decorated source
            return f"wrapped {self.callable_(value.__wrapped__)}"
        return self._external(value)

    def value(self, value: object) -> str:
        """Canonical text of a value.

        Raises:
            values.Opaque: It has none.
        """
        return values.canonical(value, self._reference)

    def _reference(self, value: object) -> str | None:
        """Label of what a value refers to, when it is code of the project; Opaque when it is code of others."""
        if isinstance(value, types.ModuleType):
            raise values.Opaque(value)
        if callable(value) and (self._is_ours(value) or hasattr(value, "__wrapped__")):
            return self.callable_(value)
        if isinstance(value, functools.partial | types.MethodType):
            return self.callable_(value)
        if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
            raise values.Opaque(value)
        if isinstance(value, PurePath) and value.is_absolute() and value.is_relative_to(self.sources.root):
            return f"path in the project {value.relative_to(self.sources.root).as_posix()}"
        return self._instance(value) if self._is_ours(type(value)) else None

    def _instance(self, value: object) -> str:
        if id(value) in self._open:
            return "ring"
        self._open.add(id(value))
        try:
            return f"instance of {self.callable_(type(value))} {self.value(values.state_of(value))}"
        finally:
            self._open.remove(id(value))

    def _is_ours(self, value: object) -> bool:
        if isinstance(value, types.FunctionType):
            return self.sources.is_ours(value.__code__.co_filename)
        if isinstance(value, type):
            return self.sources.is_ours(sourcecode.file_of_module(value.__module__))
        return False

    def _function(self, function: types.FunctionType) -> str:
        if not self._is_ours(function):
            return self._external(function)
        code = function.__code__
        namespace = function.__globals__
        name = self._new_name(function, f"{namespace.get('__name__', '?')}.{code.co_qualname}")
        node = self.sources.function(code)
        if node is None:
            self.unresolved.add(f"{name}: its source cannot be found")
            self.parts[name] = digest_of([code.co_code.hex(), [repr(one) for one in code.co_consts]])
            return name
        node = sourcecode.without_terms(node, namespace)
        closure = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        content = {
            "source": normal_text(node),
            "defaults": self._attempt(function.__defaults__),
            "keyword defaults": self._attempt(function.__kwdefaults__),
            "closure": {variable: self._cell(name, variable, cell) for variable, cell in sorted(closure.items())},
            "reads": self._follow(name, reads_of(node), namespace, set(closure)),
        }
        self.parts[name] = digest_of(content)
        self._suspect(name, node)
        return name

    def _class(self, cls: type) -> str:
        if not self._is_ours(cls):
            return self._external(cls)
        name = self._new_name(cls, f"{cls.__module__}.{cls.__qualname__}")
        namespace = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
        nodes = self.sources.classes(cls)
        if not nodes:  # made by a call, such as namedtuple or type
            bases = [self.callable_(base) for base in cls.__bases__]
            fields = {key: self._attempt(inner) for key, inner in sorted(vars(cls).items()) if not key.startswith("__")}
            self.parts[name] = digest_of({"bases": bases, "fields": fields})
            return name
        reads = [self._follow(name, reads_of(node), namespace, {cls.__name__}) for node in nodes]
        self.parts[name] = digest_of({"source": [normal_text(node) for node in nodes], "reads": reads})
        for node in nodes:
            self._suspect(name, node)
        return name

    def _external(self, value: Any) -> str:
        module = str(getattr(value, "__module__", None) or type(value).__module__)
        self._distribution(module)
        # Wrappers of libraries (contextmanager, singledispatch) may hold functions of the project.
        if isinstance(value, types.FunctionType):
            for inner in sourcecode.held_by(value):
                if self._is_ours(inner):
                    self.callable_(inner)
        if hasattr(value, "__wrapped__") and self._is_ours(value.__wrapped__):
            return f"wrapped {self.callable_(value.__wrapped__)}"
        return f"{module}.{getattr(value, '__qualname__', type(value).__qualname__)}"

    def _module(self, module: types.ModuleType) -> str:
        """A module handed about as a value: any of it may be used."""
        name = f"{module.__name__} (whole module)"
        if name not in self.parts:
            self.parts[name] = ""  # met again on the way: a ring
            tree = self.sources.tree(str(module.__file__))
            reads = self._follow(name, reads_of(tree), vars(module), set()) if tree else {}
            self.parts[name] = digest_of({"source": normal_text(tree) if tree else "", "reads": reads})
        return name

    # How names are followed from where they are read.

    def _follow(self, owner: str, reads: Reads, namespace: Mapping[str, Any], known: set[str]) -> dict[str, str]:
        found = {}
        for chain in sorted(reads.chains):
            head = chain[0]
            if head in _OF_THE_MODULE:
                continue
            if head in reads.imports:
                label = self._imported(reads.imports[head], chain[1:], namespace)
            elif head in known:
                continue
            elif head in namespace:
                label = self._global(namespace, head, chain[1:])
            elif hasattr(builtins, head):
                label = f"builtin {head}"
            else:
                if head not in reads.optional and not head.startswith("__"):
                    self.unresolved.add(f"{owner}: the name {head} is not known when the run is planned")
                continue
            found[".".join(chain)] = label
        for alias, target in sorted(reads.imports.items()):
            if alias not in {chain[0] for chain in reads.chains}:
                found[f"import {alias}"] = self._imported(target, (), namespace)
        return found

    def _imported(
        self, target: tuple[int, str, str | None], rest: tuple[str, ...], namespace: Mapping[str, Any]
    ) -> str:
        """An import inside a function; project files are imported here, others only named."""
        level, module, attribute = target
        if level:
            package = str(namespace.get("__package__") or "")
            module = ".".join(part for part in (*package.split(".")[: -(level - 1) or None], module) if part)
        if not self.sources.is_our_module(module):
            self._distribution(module)
            return ".".join(["import " + module, *([attribute] if attribute else []), *rest])
        try:
            found = importlib.import_module(module)
            if attribute is None:
                return self._attribute(found, rest)
            if not hasattr(found, attribute):
                found = importlib.import_module(f"{module}.{attribute}")
                return self._attribute(found, rest)
        except ImportError as error:
            self.unresolved.add(f"import {module}: {error}")
            return f"import {module}"
        return self._attribute(found, (attribute, *rest))

    def _attribute(self, module: types.ModuleType, rest: tuple[str, ...]) -> str:
        """What `module.a.b` reads: attributes are followed through modules, never into objects."""
        if not self.sources.is_ours(getattr(module, "__file__", None)):
            if rest and hasattr(module, rest[0]) and self.sources.is_our_folder(module):
                return self._global(vars(module), rest[0], rest[1:])  # a folder of project files
            self._distribution(module.__name__)
            return ".".join(("import " + module.__name__, *rest))
        if not rest:
            return self._module(module)
        if not hasattr(module, rest[0]):
            self.unresolved.add(f"{module.__name__}.{rest[0]} is not known when the run is planned")
            return f"{module.__name__}.{rest[0]}"
        return self._global(vars(module), rest[0], rest[1:])

    def _global(self, namespace: Mapping[str, Any], name: str, rest: tuple[str, ...]) -> str:
        value = namespace[name]
        if isinstance(value, types.ModuleType):
            return self._attribute(value, rest)
        if getattr(value, "__module__", None) == "instar.plan.steps":
            return f"import instar.{name}"  # its arguments stand in the decorated source; declaring is all it does
        if self._is_ours(value) or (callable(value) and hasattr(value, "__wrapped__")):
            return self.callable_(value)
        place = (str(namespace.get("__name__", "?")), name)
        if place not in self._globals:
            label = self._free_name(".".join(place))
            self._globals[place] = label
            self.parts[label] = ""
            try:
                self.parts[label] = digest_of(self.value(value))
                self._distribution(type(value).__module__)
            except values.Opaque:
                self._by_statement(label, namespace, name, value)
        return self._globals[place]

    def _by_statement(self, label: str, namespace: Mapping[str, Any], name: str, value: object) -> None:
        """A global whose value has no canonical text counts by the statements that made it, and what those read."""
        self._distribution(str(getattr(value, "__module__", None) or type(value).__module__))
        tree = self.sources.tree(str(namespace.get("__file__", "")))
        imported = sourcecode.import_of(tree, name)
        if imported is not None and name not in sourcecode.assigned_names(tree):
            del self.parts[label]  # it has no part of its own: what it is called elsewhere says it all
            self._globals[(str(namespace.get("__name__", "?")), name)] = self._imported(imported, (), namespace)
            return
        statements = sourcecode.statements_about(tree, name)
        if not statements:
            self.unresolved.add(f"{label}: an object of {type(value).__qualname__} whose origin cannot be found")
        content = []
        for statement in statements:
            content.append([normal_text(statement), self._follow(label, reads_of(statement), namespace, {name})])
            self._suspect(label, statement)
        self.parts[label] = digest_of(content)

    def _cell(self, owner: str, variable: str, cell: types.CellType) -> str:
        try:
            value = cell.cell_contents
        except ValueError:  # not bound yet
            return "empty"
        if isinstance(value, types.ModuleType):
            return self._attribute(value, ())
        try:
            return self.value(value)
        except values.Opaque as opaque:
            if not callable(value):
                self.unresolved.add(f"{owner}: the closure variable {variable} holds {opaque}")
            return self._external(value)

    def _attempt(self, value: object) -> str:
        try:
            return self.value(value)
        except values.Opaque:
            return "as written"  # the source says how it is made, and the names in it are followed

    def _free_name(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self.parts:
            number += 1
            name = f"{wanted}#{number}"
        return name

    def _new_name(self, value: object, wanted: str) -> str:
        name = self._free_name(wanted)
        self._labels[id(value)] = name
        self.parts[name] = ""  # taken; filled when its parts are known
        return name

    def _distribution(self, module: str) -> None:
        self.distributions.update(sourcecode.distributions_of(module))

    def _suspect(self, owner: str, node: ast.AST) -> None:
        self.unresolved.update(f"{owner}, line {line}: {what}" for line, what in suspects.suspects(node))
